"""Jobs: what a person or a schedule materializes together.

Nothing here says what follows from what: that is said by the conditions of the assets.
"""

from typing import Final

import dagster as dg

from csfd_core.classification.classifiers import CLASSIFIERS

# What is trained, and what a training begins with: the rest follows from it.
TRAINED: Final = ("segmentation_model", *CLASSIFIERS)
RETRAINING_ROOTS: Final = ("segmentation_model", "training_manifest")

ingestion = dg.define_asset_job(
    "ingestion",
    selection=dg.AssetSelection.assets(
        "study_headers", "slice_store", "mask_store", "metadata_table"
    ),
    description="Headers, slices and masks of chosen studies, and the table of all.",
)

exploration = dg.define_asset_job(
    "exploration",
    selection=dg.AssetSelection.groups("eda"),
    description="The report on the data, and the film of a study.",
)

retraining = dg.define_asset_job(
    "retraining",
    selection=dg.AssetSelection.assets(*RETRAINING_ROOTS),
    description="The root of what is trained: the segmentation and the manifest of "
    "vertebrae. Classifiers, comparison and champion follow where these have changed.",
)

remask = dg.define_asset_job(
    "remask",
    selection=dg.AssetSelection.assets(
        "vertebra_masks", "vertebra_crops", "study_predictions"
    ),
    description="Masks, crops and predictions by today's segmentation: a backfill, as "
    "a new model does not remake the studies that were there before.",
)

predict_again = dg.define_asset_job(
    "predict_again",
    selection=dg.AssetSelection.assets("study_predictions"),
    description="Predictions by today's champion: a backfill, as a new champion does "
    "not predict again what was predicted before.",
)

drift = dg.define_asset_job(
    "drift",
    selection=dg.AssetSelection.assets("data_drift"),
    description="Whether new studies are like those that the champion was trained on.",
)

audit = dg.define_asset_job(
    "audit",
    selection=dg.AssetSelection.assets("store_audit"),
    description="A look at everything that the store holds.",
)

arrival = dg.define_asset_job(
    "arrival",
    selection=dg.AssetSelection.assets(
        "study_headers",
        "slice_store",
        "vertebra_masks",
        "vertebra_crops",
        "study_predictions",
    ),
    # Whatever the other jobs do: a study is waited for, and each process costs seconds.
    executor_def=dg.in_process_executor,
    description="One uploaded study, from its files to its prediction.",
)

JOBS: Final = [
    arrival,
    ingestion,
    exploration,
    retraining,
    remask,
    predict_again,
    drift,
    audit,
]
