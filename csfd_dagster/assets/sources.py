"""What lies outside: studies and labels of the sources, and the settings of trainings.

Nothing is made here. The sensor and ``csfd run`` tell what has changed as observations;
a person can observe these assets in the UI. What follows is said by the conditions of
the assets below.
"""

import warnings
from typing import Final

import dagster as dg

from csfd_core.ingest.plan import survey
from csfd_core.ingest.studies_table import label_inputs
from csfd_dagster.partitions import folds, studies
from csfd_dagster.resources.classification import ClassificationResource
from csfd_dagster.resources.segmentation import SegmentationResource
from csfd_dagster.resources.stores import SourceResource, StoreResource

GROUP: Final = "sources"
# Dagster would say at every start that this kind of asset may still change.
warnings.filterwarnings("ignore", "Function `observable_source_asset`", dg.BetaWarning)


@dg.observable_source_asset(
    group_name=GROUP,
    partitions_def=studies,
    description="Files, mask, labels and "
    "fracture boxes of each study in the source and the inbox.",
)
def source_studies(
    source: SourceResource, store: StoreResource
) -> dg.DataVersionsByPartition:
    """Identify each study as it lies in the sources."""
    surveyed = survey(store.open(), source.open(), store.conversion())
    return dg.DataVersionsByPartition(
        {uid: study.version for uid, study in surveyed.studies.items()}
    )


@dg.observable_source_asset(
    group_name=GROUP,
    description="Label tables, label files and withdrawals.",
)
def source_labels(source: SourceResource, store: StoreResource) -> dg.DataVersion:
    """Identify what the sources say of all studies."""
    return dg.DataVersion(label_inputs(store.open(), source.open())[:16])


@dg.observable_source_asset(
    group_name=GROUP, description="How the segmentation is trained."
)
def segmentation_settings(segmentation: SegmentationResource) -> dg.DataVersion:
    """Identify the settings of the segmentation."""
    return dg.DataVersion(segmentation.version())


@dg.observable_source_asset(
    group_name=GROUP,
    partitions_def=folds,
    description="How classifiers are trained, and of which folds.",
)
def classification_settings(
    classification: ClassificationResource,
) -> dg.DataVersionsByPartition:
    """Identify the settings of the classifiers, for each fold that is wanted."""
    version = classification.version()
    return dg.DataVersionsByPartition(
        {f"fold_{fold}": version for fold in classification.trained_folds()}
    )
