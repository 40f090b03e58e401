"""Segmentation: the model, the vertebra masks of every study, and their crops.

The work is done by ``csfd_core.segmentation`` and ``csfd_core.crops``; here it is only
named, described and recorded.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from csfd_core.crops.maker import CropMaker
from csfd_core.inference.warm import MASKS
from csfd_core.ingest.outcomes import Outcome, StudyOutcome
from csfd_core.reports.segmentation.training_run import (
    FoldRun,
    SegmentationRun,
    run_folds,
)
from csfd_core.runtime.study_map import Work
from csfd_core.runtime.tracking import RunIdentity
from csfd_core.segmentation.masks import MaskMaker
from csfd_core.segmentation.training import VALIDATION_DICE
from csfd_core.store.stores import Stores
from csfd_dagster.assets.ingest import mask_store, metadata_table, slice_store
from csfd_dagster.assets.outcomes import (
    OWNERS,
    RETRIES,
    Event,
    failure_check,
    made_warm,
    record_outcomes,
)
from csfd_dagster.assets.sources import segmentation_settings, source_studies
from csfd_dagster.checks.masks import check_masks, mask_check_specs
from csfd_dagster.conditions import follows
from csfd_dagster.partitions import MANY_STUDIES, TRAININGS, studies
from csfd_dagster.presentation import figures_of, report_link, version_of
from csfd_dagster.resources.mlflow import MlflowResource
from csfd_dagster.resources.segmentation import SegmentationResource
from csfd_dagster.resources.stores import (
    ExecutorResource,
    SourceResource,
    StoreResource,
)

GROUP = "segmentation"


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"keras", "html"},
    deps=[metadata_table, slice_store, mask_store, segmentation_settings],
    pool=TRAININGS,
    automation_condition=follows(
        "segmentation_settings",
        needs=["metadata_table", "segmentation_settings"],
        by_content=True,
    ),
    code_version="1",
)
def segmentation_model(
    context: dg.AssetExecutionContext,
    store: StoreResource,
    segmentation: SegmentationResource,
    mlflow: MlflowResource,
) -> dg.MaterializeResult:
    """U-Nets that find C1 to C7, one per held-out fold, with one report on all.

    Trained on studies with a checked mask; the locked test studies take no part. Left
    alone while what it is made from has not changed.
    """

    def identify(fold: int) -> RunIdentity:
        return mlflow.identity(context, partition=f"fold_{fold}")

    with mlflow.run(context) as run:
        trained = run_folds(
            store.open(),
            segmentation.settings(),
            segmentation.trained_folds(),
            run,
            identify,
        )
    metadata = _describe_report(trained)
    for fold in trained.folds:
        metadata |= _describe(fold)
        if told := fold.card.unimproved(VALIDATION_DICE):
            context.log.warning("Segmentation, fold %s. %s", fold.fit.fold, told)
    models = [fold.card.model_id for fold in trained.folds]
    return dg.MaterializeResult(
        metadata=metadata, data_version=dg.DataVersion(version_of(models))
    )


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"keras", "parquet"},
    deps=[slice_store, segmentation_model],
    partitions_def=studies,
    backfill_policy=MANY_STUDIES,
    retry_policy=RETRIES,
    automation_condition=follows(
        "slice_store", needs=["slice_store", "segmentation_model"]
    ),
    check_specs=[
        failure_check("vertebra_masks"),
        *mask_check_specs("vertebra_masks"),
    ],
    code_version="1",
)
def vertebra_masks(
    context: dg.AssetExecutionContext, store: StoreResource, executor: ExecutorResource
) -> Iterator[Event]:
    """Predicted masks of each study in the grid of its slices, lossless.

    By a model that has not seen the study wherever there is one, else marked as
    in-sample; by the general one, which comes with csfd, before there is a model.
    """
    stores = store.open()
    outcomes = made_warm(context, stores, MASKS)
    if not outcomes:
        keys = context.partition_keys
        outcomes = executor.make(MaskMaker(stores), keys, Work.NETWORKS, stores)
    made = [o.study_uid for o in outcomes if o.action is Outcome.WRITTEN]
    read = {uid: stores.predicted_masks.read_note(uid) for uid in made}
    checks = check_masks(stores, {uid: note for uid, note in read.items() if note})
    yield from record_outcomes(context, outcomes, _facts, _mask_version, *checks)


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"parquet"},
    deps=[vertebra_masks, source_studies],
    partitions_def=studies,
    backfill_policy=MANY_STUDIES,
    retry_policy=RETRIES,
    automation_condition=follows(
        "vertebra_masks", "source_studies", needs=["vertebra_masks"]
    ),
    check_specs=[failure_check("vertebra_crops")],
    code_version="1",
)
def vertebra_crops(
    context: dg.AssetExecutionContext,
    source: SourceResource,
    store: StoreResource,
    segmentation: SegmentationResource,
    executor: ExecutorResource,
) -> Iterator[Event]:
    """Slices across each vertebra with neighbours, mask, labels and fold."""
    stores = store.open()
    maker = CropMaker.of_sources(stores, segmentation.crops(), source.open())
    outcomes = executor.make(maker, context.partition_keys, Work.ARRAYS, stores)
    yield from record_outcomes(
        context, outcomes, _facts, lambda one: _crops_version(stores, one)
    )


def _describe(fold_run: FoldRun) -> dict[str, dg.MetadataValue]:
    """Return what Dagster shows of one fold's model."""
    name = f"fold_{fold_run.fit.fold}"
    values: dict[str, dg.MetadataValue] = {
        f"{name}_outcome": dg.MetadataValue.text(fold_run.outcome.value),
        f"{name}_model_id": dg.MetadataValue.text(fold_run.card.model_id),
        f"{name}_training_studies": dg.MetadataValue.int(
            len(fold_run.fit.split.training)
        ),
    }
    if fold_run.mlflow_model_id is not None:
        values[f"{name}_mlflow_model"] = dg.MetadataValue.text(fold_run.mlflow_model_id)
    return values


def _describe_report(trained: SegmentationRun) -> dict[str, dg.MetadataValue]:
    """Return what Dagster shows of the report on all folds; nothing if unchanged."""
    if trained.evaluation is None:
        return {}
    values: dict[str, dg.MetadataValue] = {
        "page": report_link(trained.evaluation.location),
    }
    for key, number in trained.evaluation.scores.summary().items():
        values[key] = dg.MetadataValue.float(number)
    return values | figures_of(trained.evaluation.location, trained.evaluation.written)


def _facts(outcome: StudyOutcome) -> dict[str, Any]:
    """Return what Dagster shows of one study's mask or crops."""
    return {
        "model_id": outcome.model_id,
        "standing": outcome.standing,
        "levels": ", ".join(outcome.levels),
        "flags": "\n".join(outcome.flags) or "none",
        "seconds": outcome.seconds,
    }


def _mask_version(outcome: StudyOutcome) -> str:
    """Identify a study's mask: its slices, and the model that predicted it."""
    return version_of([outcome.content_hash, outcome.model_id, outcome.standing])


def _crops_version(stores: Stores, outcome: StudyOutcome) -> str:
    """Identify a study's crops: mask, labels, boxes and how they are cut."""
    note = stores.crops.read_note(outcome.study_uid)
    return version_of(None if note is None else note.inputs)
