"""Jobs: what is materialized together."""

from typing import Any

import dagster as dg
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES
from pydantic import Field

from csfd_dagster.assets import ingest
from csfd_dagster.phases import materialize_everything, open_project
from csfd_dagster.resources.mlflow import MlflowResource
from csfd_dagster.resources.stores import SourceResource, StoreResource

# A run that is queued will run, even if nothing of it is to be seen yet.
UNDER_WAY = [dg.DagsterRunStatus.QUEUED, *IN_PROGRESS_RUN_STATUSES]

# One process for all steps: each spreads its studies over a pool of its own.
ingestion = dg.define_asset_job(
    "ingestion",
    selection=dg.AssetSelection.assets(
        ingest.study_headers,
        ingest.slice_store,
        ingest.mask_store,
        ingest.metadata_table,
    ),
    executor_def=dg.in_process_executor,
    description="Headers, slices and masks of new studies, and the table of all.",
)

exploration = dg.define_asset_job(
    "exploration",
    selection=dg.AssetSelection.groups("eda"),
    executor_def=dg.in_process_executor,
    description="The report on the data, and the film of a study.",
)


class EverythingConfig(dg.Config):
    """What the job is started with."""

    profile: str = Field(default="demo", description="demo or full.")


@dg.op(description="Each phase is a run of its own; this one says what was done.")
def materialize_all(
    context: dg.OpExecutionContext,
    config: EverythingConfig,
    source: SourceResource,
    store: StoreResource,
    mlflow: MlflowResource,
) -> None:
    """Materialize what is new or has changed, and what follows from it."""
    resources = {"source": source, "store": store, "mlflow": mlflow}
    project = open_project(config.profile, resources)
    materialize_everything(project, context.instance, context.log.info)


@dg.job(
    description="The whole graph, phase by phase: what is new or has changed.",
    executor_def=dg.in_process_executor,
)
def everything() -> None:
    """Do what ``csfd run`` does."""
    materialize_all()


JOBS: list[Any] = [ingestion, exploration, everything]  # two classes of jobs
