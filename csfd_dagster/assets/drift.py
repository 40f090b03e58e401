"""Drift: whether the studies that came since are like those of the training."""

import math

import dagster as dg

from csfd_core.reports.drift.observe import Drift, observe_drift
from csfd_core.reports.drift.report import (
    DRIFT_CSV,
    explain_missing,
    report_location,
    summarize,
    to_frame,
    write_report,
)
from csfd_dagster.assets.champion import champion_model
from csfd_dagster.assets.classification import GROUP
from csfd_dagster.assets.comparison import report_files
from csfd_dagster.assets.ingest import metadata_table, slice_store
from csfd_dagster.assets.outcomes import FRESH_FOR_A_WEEK, OWNERS
from csfd_dagster.assets.segmentation import vertebra_crops
from csfd_dagster.conditions import follows
from csfd_dagster.presentation import figures_of, report_link, table_of
from csfd_dagster.resources.mlflow import MlflowResource
from csfd_dagster.resources.stores import StoreResource

_SHOWN = ["feature", "reference_mean", "current_mean", "psi", "p_adjusted", "drifted"]


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"html", "csv"},
    deps=[champion_model, metadata_table, slice_store, vertebra_crops],
    automation_condition=follows("champion_model", needs=["champion_model"]),
    freshness_policy=FRESH_FOR_A_WEEK,
    code_version="1",
)
def data_drift(
    context: dg.AssetExecutionContext, store: StoreResource, mlflow: MlflowResource
) -> dg.MaterializeResult:
    """New studies beside those that the serving model was trained on.

    Grey levels, spacing, size, label rates and predicted probabilities. Says so where
    no classifier was trained yet, or too few studies have come to judge. The serving
    model predicts the new studies that it has not spoken of.
    """
    stores = store.open()
    location = report_location(stores)
    drift = observe_drift(stores, mlflow.uri())
    written = write_report(location, drift)
    table, summary = to_frame(drift), summarize(drift)
    with mlflow.run(context) as run:
        run.log_params(
            {
                "verdict": drift.verdict,
                "model": drift.groups.serving and drift.groups.serving.title,
                "data_kind": drift.groups.data_kind.value,
                "inputs": drift.groups.inputs[:12],
            }
        )
        run.log_metrics(_metrics(drift))
        csv = location.read(DRIFT_CSV)
        run.log_files({**report_files(written), f"report/{DRIFT_CSV}": csv})
    context.log.info(summary)
    return dg.MaterializeResult(
        metadata={
            "verdict": drift.verdict,
            "summary": dg.MetadataValue.md(summary),
            "without_prediction": explain_missing(drift) or "none",
            "new_studies": len(drift.groups.current),
            "reference_studies": len(drift.groups.reference),
            "predicted_now": drift.predictions.made,
            "drifted_features": len(drift.drifted),
            "judged_features": len(drift.judged),
            "data_kind": drift.groups.data_kind.value,
            "page": report_link(location),
            "features": table_of(table[_SHOWN]),
            **figures_of(location, written),
            "mlflow_run_id": run.run_id,
        }
    )


def _metrics(drift: Drift) -> dict[str, float]:
    """Return what is followed from one week to the next; nothing that is undefined."""
    metrics: dict[str, float] = {
        "new_studies": len(drift.groups.current),
        "drifted_features": len(drift.drifted),
        "judged_features": len(drift.judged),
    }
    for finding in drift.findings:
        name, comparison = finding.feature.name, finding.comparison
        values = {
            "psi": comparison.psi,
            "ks": comparison.ks,
            "p_adjusted": finding.p_adjusted,
            "current_mean": comparison.current_mean,
            "reference_mean": comparison.reference_mean,
        }
        for key, value in values.items():
            if not math.isnan(value):
                metrics[f"{name}_{key}"] = value
    return metrics
