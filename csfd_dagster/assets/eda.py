"""Exploratory analysis: the report on the data, and the film of a study.

The work is done by ``csfd_core.reports.eda``; here it is only named, described and
recorded.
"""

from dataclasses import asdict
from typing import Final

import dagster as dg

from csfd_core.ingest.outcomes import Outcome
from csfd_core.reports.eda.film import OVERLAY, PLAIN, PREVIEW
from csfd_core.reports.eda.inputs import read_inputs
from csfd_core.reports.eda.report import (
    make_film,
    report_location,
    write_eda_report,
)
from csfd_core.reports.page import INDEX
from csfd_core.store.paths import EDA_REPORT
from csfd_dagster.assets.ingest import mask_store, metadata_table, slice_store
from csfd_dagster.assets.outcomes import OWNERS, RETRIES
from csfd_dagster.conditions import follows
from csfd_dagster.presentation import figures_of, link, picture, report_link
from csfd_dagster.resources.mlflow import MlflowResource
from csfd_dagster.resources.stores import SourceResource, StoreResource

GROUP = "eda"
DATA = [metadata_table, slice_store, mask_store]
# Made anew whenever the table of studies is another.
WHEN_DATA_CHANGE: Final = follows(
    "metadata_table", needs=["metadata_table"], by_content=True
)


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"video"},
    deps=DATA,
    retry_policy=RETRIES,
    automation_condition=WHEN_DATA_CHANGE,
    code_version="1",
)
def mask_overlay_video(
    context: dg.AssetExecutionContext,
    source: SourceResource,
    store: StoreResource,
    mlflow: MlflowResource,
) -> dg.MaterializeResult:
    """Film of one study from skull base to upper back, plain and with its mask.

    MP4 in steps of 1 mm with the names of the vertebrae, and a small animated preview.
    Made anew only where the study or its mask has changed.
    """
    stores = store.open()
    inputs = read_inputs(source.open(), stores, with_headers=False)
    films, is_new = make_film(inputs, report_location(stores))
    if films is None:
        return dg.MaterializeResult(metadata={"outcome": "no study has images"})
    with mlflow.run(context) as run:
        run.log_params({"frames": films.note.frame_count})  # the film shows a patient
    return dg.MaterializeResult(
        metadata={
            "outcome": (Outcome.WRITTEN if is_new else Outcome.UNCHANGED).value,
            "study_uid": films.note.study_uid,
            "frames": films.note.frame_count,
            "preview": picture(f"{EDA_REPORT}/{PREVIEW}"),
            "plain": link(f"{EDA_REPORT}/{PLAIN}"),
            **({"overlay": link(f"{EDA_REPORT}/{OVERLAY}")} if films.has_mask else {}),
            "mlflow_run_id": run.run_id,
        }
    )


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"matplotlib", "html"},
    deps=[*DATA, mask_overlay_video],
    retry_policy=RETRIES,
    automation_condition=WHEN_DATA_CHANGE,
    code_version="1",
)
def eda_report(
    context: dg.AssetExecutionContext,
    source: SourceResource,
    store: StoreResource,
    mlflow: MlflowResource,
) -> dg.MaterializeResult:
    """One self-contained page on labels, geometry, images, boxes and data quality."""
    report = write_eda_report(source.open(), store.open())
    numbers = asdict(report.numbers)
    with mlflow.run(context) as run:
        run.log_metrics(numbers)
        run.log_files(
            {
                **report.written.figures,
                **report.written.tables,
                INDEX: report.written.html.encode(),
            }
        )
    return dg.MaterializeResult(
        metadata={
            "page": report_link(report.location),
            "since": report.since,
            **{f"{name}_count": number for name, number in numbers.items()},
            **{
                section.key: dg.MetadataValue.text(section.sentence)
                for section in report.sections
            },
            **figures_of(report.location, report.written),
            "mlflow_run_id": run.run_id,
        }
    )
