"""Tells Dagster what has changed outside: partitions, and observations of the sources.

The sensor and ``csfd run`` both do what is here; what follows is said by conditions.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

import dagster as dg

from csfd_core.ingest.plan import Plan
from csfd_dagster.assets.sources import (
    classification_settings,
    segmentation_settings,
    source_labels,
    source_studies,
)
from csfd_dagster.presentation import version_of
from csfd_dagster.resources.classification import ClassificationResource
from csfd_dagster.resources.segmentation import SegmentationResource

_DATA_VERSION: Final = "dagster/data_version"  # tag, named in Dagster's documentation


def observe_studies(versions: Mapping[str, str]) -> Iterator[dg.AssetObservation]:
    """Say which version of each study lies in the sources."""
    for study_uid, version in versions.items():
        yield _observation(source_studies, version, study_uid)


def observe_labels(version: str) -> dg.AssetObservation:
    """Say which version of the label tables, label files and withdrawals there is."""
    return _observation(source_labels, version)


def observe_settings(
    segmentation: SegmentationResource, classification: ClassificationResource
) -> Iterator[dg.AssetObservation]:
    """Say how the models are trained, and of which folds."""
    yield _observation(segmentation_settings, segmentation.version())
    version = classification.version()
    for fold in classification.trained_folds():
        yield _observation(classification_settings, version, f"fold_{fold}")


def settings_version(
    segmentation: SegmentationResource, classification: ClassificationResource
) -> str:
    """Identify all that ``observe_settings`` tells."""
    events = observe_settings(segmentation, classification)
    return version_of(
        [[str(event.partition), dict(event.tags or {})] for event in events]
    )


def take_up(instance: dg.DagsterInstance, name: str, plan: Plan) -> None:
    """Add and delete partitions as a plan says, and observe what it takes up.

    A study that had a partition may be due because it failed: an observation of the
    version that is known would start nothing, so its version gets the time.

    Args:
        instance: Where partitions and observations are kept.
        name: Of the partitions.
        plan: Of the studies of the sources.
    """
    for study_uid in plan.withdrawn:
        instance.delete_dynamic_partition(name, study_uid)
    instance.add_dynamic_partitions(name, plan.new)
    now, new = datetime.now(UTC).isoformat(), set(plan.new)
    versions = {
        study_uid: version if study_uid in new else f"{version}-{now}"
        for study_uid, version in plan.take_up.items()
    }
    for observation in observe_studies(versions):
        instance.report_runless_asset_event(observation)


def _observation(
    asset: dg.SourceAsset | dg.AssetsDefinition,
    version: str,
    partition: str | None = None,
) -> dg.AssetObservation:
    tags = {_DATA_VERSION: version}
    return dg.AssetObservation(asset.key, partition=partition, tags=tags)
