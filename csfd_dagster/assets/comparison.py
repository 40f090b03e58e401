"""Comparison of the classifiers, and the audit of leakage."""

from collections.abc import Iterator

import dagster as dg
import pandas as pd

from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.classification.classifiers import CLASSIFIERS
from csfd_core.classification.ensemble import write_best
from csfd_core.classification.manifest import read_manifest
from csfd_core.ingest.outcomes import Outcome
from csfd_core.reports.comparison.example_choice import choose_examples
from csfd_core.reports.comparison.report import write_comparison
from csfd_core.reports.comparison.summary import compare
from csfd_core.reports.leakage.audit import audit_progress, is_current, run_audit
from csfd_core.reports.leakage.config import PROFILES as AUDIT_PROFILES
from csfd_core.reports.leakage.report import report_location
from csfd_core.reports.leakage.report import write_report as write_audit
from csfd_core.reports.page import INDEX, Written
from csfd_core.store import paths
from csfd_dagster.assets.classification import (
    CLASSIFIER_ASSETS,
    GROUP,
    training_manifest,
)
from csfd_dagster.assets.ingest import slice_store
from csfd_dagster.assets.outcomes import OWNERS, not_yet
from csfd_dagster.conditions import follows
from csfd_dagster.partitions import TRAININGS
from csfd_dagster.presentation import figures_of, report_link, table_of
from csfd_dagster.resources.classification import ClassificationResource
from csfd_dagster.resources.mlflow import MlflowResource
from csfd_dagster.resources.stores import StoreResource

_LOGGED = [
    "competition_log_loss",
    "auc_vertebra",
    "auc_overall",
    "f1",
    "sensitivity",
    "specificity",
]


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"keras", "html"},
    deps=[training_manifest, slice_store],
    pool=TRAININGS,
    automation_condition=follows(
        "training_manifest", needs=["training_manifest"], by_content=True
    ),
    code_version="1",
)
def leakage_audit(
    context: dg.AssetExecutionContext,
    store: StoreResource,
    classification: ClassificationResource,
    mlflow: MlflowResource,
) -> dg.MaterializeResult:
    """How much AUC a split of slices pretends, beside a split by patient.

    The same network is trained on every slice with its study's label, as a first
    attempt at these data did. Left alone while the data have not changed.
    """
    stores, config = store.open(), AUDIT_PROFILES[classification.profile]
    if read_manifest(stores.root).usable.empty:
        return dg.MaterializeResult(metadata={"outcome": "no labelled study"})
    location = report_location(stores)
    page = report_link(location)
    if is_current(stores, config):
        return dg.MaterializeResult(
            metadata={"outcome": Outcome.UNCHANGED.value, "page": page}
        )
    with mlflow.run(context) as run:
        with audit_progress() as on_progress:
            audit = run_audit(stores, config, on_progress)
        written = write_audit(location, audit)
        run.log_params(config.to_note())
        frame = audit.to_frame()
        for row in frame[["protocol", "auc"]].dropna().itertuples(index=False):
            run.log_metrics({f"auc_{row.protocol}": float(str(row.auc))})
        run.log_files(report_files(written))
    return dg.MaterializeResult(
        metadata={
            "outcome": "measured",
            "page": page,
            "data_kind": audit.data_kind.value,
            "protocols": table_of(frame[["protocol", "auc", "f1", "loss"]]),
            **figures_of(location, written),
        }
    )


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"html", "csv"},
    deps=list(CLASSIFIER_ASSETS),
    automation_condition=follows(*CLASSIFIERS, some_of=[tuple(CLASSIFIERS)]),
    output_required=False,
    code_version="1",
)
def comparison_report(
    context: dg.AssetExecutionContext, store: StoreResource, mlflow: MlflowResource
) -> Iterator[dg.MaterializeResult]:
    """The classifiers side by side on the locked test set, with intervals and tests.

    Notes which of them is the best; that one challenges the champion.
    """
    stores = store.open()
    results = ClassifierStore(stores.root).results(list(CLASSIFIERS))
    if not results:
        not_yet(
            context,
            "No classifier was trained yet, so there is nothing to compare. "
            "Materialize a fold of basic_cnn first, or wait for its run.",
        )
        return
    manifest = read_manifest(stores.root)
    facts = {"data_kind": manifest.data_kind}
    comparison = compare(results, facts)
    best = comparison.best or next(iter(comparison.results))
    write_best(stores, best, beats_prevalences=comparison.beats_prevalences)
    examples = choose_examples(stores, manifest, best)
    location = stores.root.join(paths.COMPARISON_REPORT)
    written = write_comparison(location, comparison, facts, examples)
    with mlflow.run(context) as run:
        run.log_params({"best": best, "data_kind": comparison.data_kind})
        for row in comparison.models.to_dict(orient="records"):
            scores = {
                f"{row['model']}_{name}": float(row[name])
                for name in _LOGGED
                if not pd.isna(row[name])
            }
            run.log_metrics(scores)
        run.log_files(report_files(written))
    yield dg.MaterializeResult(
        metadata={
            "best": best,
            "data_kind": comparison.data_kind.value,
            "page": report_link(location),
            "models": table_of(comparison.models[["model", "weights", *_LOGGED]]),
            **figures_of(location, written),
        }
    )


def report_files(written: Written) -> dict[str, bytes]:
    """Return a report as artifacts of a run."""
    return {
        f"report/{INDEX}": written.html.encode(),
        **{f"report/{path}": content for path, content in written.figures.items()},
        **{f"report/{path}": content for path, content in written.tables.items()},
    }
