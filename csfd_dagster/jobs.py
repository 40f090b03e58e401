"""Jobs: what is materialized together."""

import dagster as dg

from csfd_dagster.assets import ingest

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

everything = dg.define_asset_job(
    "everything",
    selection=dg.AssetSelection.all(),
    executor_def=dg.in_process_executor,
    description="The whole graph.",
)

JOBS = [ingestion, exploration, everything]
