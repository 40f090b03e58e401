"""Segmentation: the model, the vertebra masks of every study, and their crops.

The work is done by ``csfd_core.segmentation`` and ``csfd_core.crops``; here it is only
named, described and recorded.
"""

from collections import Counter
from collections.abc import Iterable

import dagster as dg

from csfd_core.crops.maker import CropMaker
from csfd_core.ingest.outcomes import Outcome, StudyOutcome, make_all
from csfd_core.reports.segmentation.training_run import (
    FoldRun,
    SegmentationRun,
    run_folds,
)
from csfd_core.runtime.tracking import RunIdentity
from csfd_core.segmentation.masks import MaskMaker
from csfd_core.store.labels import read_all_boxes
from csfd_dagster.assets.ingest import (
    OWNERS,
    RETRIES,
    mask_store,
    metadata_table,
    slice_store,
)
from csfd_dagster.partitions import MANY_STUDIES, studies
from csfd_dagster.presentation import picture
from csfd_dagster.resources.mlflow import MlflowResource
from csfd_dagster.resources.segmentation import SegmentationResource
from csfd_dagster.resources.stores import SourceResource, StoreResource

GROUP = "segmentation"


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"keras", "html"},
    deps=[metadata_table, slice_store, mask_store],
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
        found = run_folds(
            store.open(), segmentation.settings(), segmentation.folds, run, identify
        )
    metadata = _describe_report(found)
    for fold in found.folds:
        metadata |= _describe(fold)
    return dg.MaterializeResult(metadata=metadata)


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"keras", "parquet"},
    deps=[slice_store, segmentation_model],
    partitions_def=studies,
    backfill_policy=MANY_STUDIES,
    retry_policy=RETRIES,
    code_version="1",
)
def vertebra_masks(
    context: dg.AssetExecutionContext, store: StoreResource
) -> dg.MaterializeResult:
    """Predicted masks of each study in the grid of its slices, lossless.

    By a model that has not seen the study wherever there is one, else marked as
    in-sample.
    """
    maker = MaskMaker(store.open())
    return _record(context, make_all(maker.make, context.partition_keys))


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"parquet"},
    deps=[vertebra_masks, metadata_table],
    partitions_def=studies,
    backfill_policy=MANY_STUDIES,
    retry_policy=RETRIES,
    code_version="1",
)
def vertebra_crops(
    context: dg.AssetExecutionContext,
    source: SourceResource,
    store: StoreResource,
    segmentation: SegmentationResource,
) -> dg.MaterializeResult:
    """Slices across each vertebra with neighbours, mask, labels and fold."""
    boxes = read_all_boxes(source.open().locations).table
    maker = CropMaker(store.open(), segmentation.crops(), boxes)
    return _record(context, make_all(maker.make, context.partition_keys))


def _describe(found: FoldRun) -> dict[str, dg.MetadataValue]:
    """Return what Dagster shows of one fold's model."""
    name = f"fold_{found.fit.fold}"
    values: dict[str, dg.MetadataValue] = {
        f"{name}_outcome": dg.MetadataValue.text(found.outcome),
        f"{name}_model_id": dg.MetadataValue.text(str(found.facts["model_id"])),
        f"{name}_training_studies": dg.MetadataValue.int(len(found.fit.split.training)),
    }
    if found.mlflow_model_id is not None:
        values[f"{name}_mlflow_model"] = dg.MetadataValue.text(found.mlflow_model_id)
    return values


def _describe_report(found: SegmentationRun) -> dict[str, dg.MetadataValue]:
    """Return what Dagster shows of the report on all folds; nothing if unchanged."""
    if found.evaluation is None:
        return {}
    values: dict[str, dg.MetadataValue] = {
        "page": dg.MetadataValue.path(f"{found.evaluation.location}/index.html")
    }
    for key, number in found.evaluation.scores.summary().items():
        values[key] = dg.MetadataValue.float(number)
    for key, (kind, content) in found.evaluation.written.previews.items():
        values[f"figure_{key}"] = picture(content, kind=kind)
    return values


def _record(
    context: dg.AssetExecutionContext, made: Iterable[StudyOutcome]
) -> dg.MaterializeResult:
    """Attach each study's outcome to its partition, and the counts to the run."""
    outcomes = list(made)
    for outcome in outcomes:
        context.add_asset_metadata(
            {
                "outcome": outcome.action.value,
                "model_id": outcome.model_id,
                "standing": outcome.standing,
                "levels": ", ".join(outcome.levels),
                "flags": "\n".join(outcome.flags) or "none",
                "seconds": outcome.seconds,
            },
            partition_key=outcome.study_uid,
        )
    failed = [o for o in outcomes if o.action is Outcome.FAILED]
    if failed:
        raise dg.Failure(
            f"{len(failed)} of {len(outcomes)} studies failed; the first, "
            f"{failed[0].study_uid}: {failed[0].message} The others are stored "
            "and will not be done again."
        )
    counts = Counter(outcome.action for outcome in outcomes)
    return dg.MaterializeResult(
        metadata={f"studies_{action}": count for action, count in counts.items()}
    )
