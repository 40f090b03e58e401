"""All definitions of the code location. Loading them opens no file or connection."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from csfd_dagster.assets import (
    audit,
    champion,
    classification,
    comparison,
    drift,
    eda,
    ingest,
    segmentation,
    sources,
)
from csfd_dagster.checks.champion import CHAMPION_CHECKS
from csfd_dagster.checks.classification import CLASSIFICATION_CHECKS
from csfd_dagster.checks.drift import DRIFT_CHECKS
from csfd_dagster.checks.ingest import CHECKS
from csfd_dagster.checks.segmentation import SEGMENTATION_CHECKS
from csfd_dagster.jobs import JOBS
from csfd_dagster.resources.classification import ClassificationResource
from csfd_dagster.resources.mlflow import MlflowResource
from csfd_dagster.resources.promotion import PromotionResource
from csfd_dagster.resources.segmentation import SegmentationResource
from csfd_dagster.resources.stores import (
    ExecutorResource,
    SourceResource,
    StoreResource,
)
from csfd_dagster.schedules import build_schedules
from csfd_dagster.sensors import build_sensors


def build_defs(resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Build the definitions.

    Args:
        resources: Resources to use in place of those that read the environment.
    """
    return dg.Definitions(
        assets=dg.load_assets_from_modules(
            [
                sources,
                ingest,
                eda,
                segmentation,
                classification,
                comparison,
                champion,
                drift,
                audit,
            ]
        ),
        asset_checks=[
            *CHECKS,
            *SEGMENTATION_CHECKS,
            *CLASSIFICATION_CHECKS,
            *CHAMPION_CHECKS,
            *DRIFT_CHECKS,
        ],
        jobs=JOBS,
        sensors=build_sensors(),
        schedules=build_schedules(),
        # One process for all steps of a run: each spreads its studies over a pool of
        # its own, and networks are loaded once.
        executor=dg.in_process_executor,
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
