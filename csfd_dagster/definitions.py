"""All definitions of the code location. Loading them opens no file or connection."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from csfd_dagster.assets import (
    champion,
    classification,
    comparison,
    drift,
    eda,
    ingest,
    segmentation,
)
from csfd_dagster.champion_checks import CHAMPION_CHECKS
from csfd_dagster.checks import CHECKS
from csfd_dagster.classification_checks import CLASSIFICATION_CHECKS
from csfd_dagster.classification_resource import ClassificationResource
from csfd_dagster.drift_checks import DRIFT_CHECKS
from csfd_dagster.drift_schedule import DRIFT_JOBS, build_drift_schedules
from csfd_dagster.jobs import JOBS
from csfd_dagster.mlflow_resource import MlflowResource
from csfd_dagster.promotion_resource import PromotionResource
from csfd_dagster.resources import ExecutorResource, SourceResource, StoreResource
from csfd_dagster.schedules import build_schedules
from csfd_dagster.segmentation_checks import SEGMENTATION_CHECKS
from csfd_dagster.segmentation_resource import SegmentationResource
from csfd_dagster.sensors import SENSORS


def build_defs(resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Build the definitions.

    Args:
        resources: Resources to use in place of those that read the environment.
    """
    return dg.Definitions(
        assets=dg.load_assets_from_modules(
            [ingest, eda, segmentation, classification, comparison, champion, drift]
        ),
        asset_checks=[
            *CHECKS,
            *SEGMENTATION_CHECKS,
            *CLASSIFICATION_CHECKS,
            *CHAMPION_CHECKS,
            *DRIFT_CHECKS,
        ],
        jobs=[*JOBS, *DRIFT_JOBS],
        sensors=SENSORS,
        schedules=[*build_schedules(), *build_drift_schedules()],
        resources={
            "source": SourceResource(),
            "store": StoreResource(),
            "executor": ExecutorResource(),
            "mlflow": MlflowResource(),
            "segmentation": SegmentationResource(),
            "classification": ClassificationResource(),
            "promotion": PromotionResource(),
            **(resources or {}),
        },
    )


defs = build_defs()
