"""Classification: the training manifest and one asset per classifier.

The work is done by ``csfd_core.classification``; here it is only named, described and
recorded.
"""

from collections.abc import Iterator

import dagster as dg

from csfd_core.classification.card import ClassifierCard
from csfd_core.classification.classifiers import has_backbone
from csfd_core.classification.fit import (
    CODE_VERSION,
    plan_classifier,
    why_untrainable,
)
from csfd_core.classification.manifest import (
    MANIFEST_COLUMNS,
    balance_of_folds,
    read_manifest,
    write_manifest,
)
from csfd_core.classification.training_run import ClassifierRun, run_classifier
from csfd_core.learning.loop import VALIDATION_LOSS
from csfd_core.learning.outcomes import StopReason, TrainingOutcome
from csfd_core.text import count
from csfd_dagster.assets.ingest import metadata_table
from csfd_dagster.assets.outcomes import OWNERS, not_yet
from csfd_dagster.assets.segmentation import vertebra_crops
from csfd_dagster.assets.sources import classification_settings
from csfd_dagster.conditions import follows
from csfd_dagster.partitions import EACH_FOLD, TABLES, TRAININGS, fold_number, folds
from csfd_dagster.presentation import table_of
from csfd_dagster.resources.classification import ClassificationResource
from csfd_dagster.resources.mlflow import MlflowResource
from csfd_dagster.resources.stores import StoreResource

GROUP = "classification"
_TAUGHT_BY = ("training_manifest", "classification_settings")


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"parquet"},
    deps=[vertebra_crops, metadata_table],
    pool=TABLES,
    # Made by itself once; after that by a retraining, whose root it is: what is trained
    # follows from it.
    automation_condition=follows(some_of=["metadata_table", "vertebra_crops"]),
    code_version="1",
    metadata={
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn(name, str(kind), description=meaning)
                for name, kind, meaning in MANIFEST_COLUMNS
            ]
        )
    },
)
def training_manifest(
    store: StoreResource, classification: ClassificationResource
) -> dg.MaterializeResult:
    """Every vertebra of every study: label, fold, crops, and why it is left out."""
    manifest = write_manifest(store.open(), classification.crops().to_note())
    left_out = manifest.table["left_out"].value_counts()
    balance = balance_of_folds(manifest.usable)
    return dg.MaterializeResult(
        metadata={
            "vertebrae": len(manifest.usable),
            "fractured": int(manifest.usable["label"].sum()),
            "left_out": dg.MetadataValue.json(
                {str(why): int(count) for why, count in left_out.items()}
            ),
            "folds": table_of(balance),
            "data_kind": manifest.data_kind.value,
        },
        data_version=dg.DataVersion(manifest.inputs[:16]),
    )


def _classifier_asset(name: str, description: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=name,
        description=description,
        group_name=GROUP,
        owners=OWNERS,
        kinds={"keras"},
        deps=[training_manifest, classification_settings],
        partitions_def=folds,
        backfill_policy=EACH_FOLD,
        pool=TRAININGS,
        automation_condition=follows(*_TAUGHT_BY, needs=_TAUGHT_BY, by_content=True),
        output_required=False,
        code_version=CODE_VERSION,
    )
    def classifier(
        context: dg.AssetExecutionContext,
        store: StoreResource,
        classification: ClassificationResource,
        mlflow: MlflowResource,
    ) -> Iterator[dg.MaterializeResult]:
        stores, config = store.open(), classification.settings()
        manifest = read_manifest(stores.root)
        for key in context.partition_keys:
            fit = plan_classifier(name, fold_number(key), config, manifest)
            if why := why_untrainable(fit):
                not_yet(context, why)
                return
        trained = 0
        with mlflow.run(context) as run:
            for key in context.partition_keys:
                with run.child(mlflow.identity(context, partition=key)) as child:
                    fold = fold_number(key)
                    fold_run = run_classifier(stores, name, fold, config, child)
                context.add_asset_metadata(_describe(fold_run), partition_key=key)
                trained += fold_run.outcome is not TrainingOutcome.UNCHANGED
                if told := fold_run.result.card.unimproved(VALIDATION_LOSS):
                    context.log.warning("%s, fold %s. %s", name, fold, told)
        yield dg.MaterializeResult(metadata={"folds_trained": trained})

    return classifier


basic_cnn = _classifier_asset(
    "basic_cnn",
    "A small CNN from scratch. Learns from patches around the fractures and on bone.",
)
triplanar_cnn = _classifier_asset(
    "triplanar_cnn",
    "A small CNN that sees each place on axial, sagittal and coronal planes at once.",
)
inception_v3 = _classifier_asset(
    "inception_v3", "InceptionV3 with a head that judges the slices of one vertebra."
)
resnet50 = _classifier_asset(
    "resnet50", "ResNet50 with a head that judges the slices of one vertebra."
)
efficientnet_b5 = _classifier_asset(
    "efficientnet_b5",
    "EfficientNetB5 with a head that judges the slices of one vertebra.",
)
CLASSIFIER_ASSETS = (basic_cnn, triplanar_cnn, inception_v3, resnet50, efficientnet_b5)


def _describe(fold_run: ClassifierRun) -> dict[str, dg.MetadataValue]:
    """Return what Dagster shows of one fold's classifier."""
    card = fold_run.result.card
    values = {
        "outcome": dg.MetadataValue.text(fold_run.outcome.value),
        "model_id": dg.MetadataValue.text(card.model_id),
        "weights": dg.MetadataValue.text(card.weights),
        "training_studies": dg.MetadataValue.int(len(card.training_studies)),
        "train_s": dg.MetadataValue.float(card.train_s),
        "best_epoch": dg.MetadataValue.int(card.best_epoch),
        "stopped": dg.MetadataValue.text(_why_stopped(card)),
        "data_kind": dg.MetadataValue.text(card.data_kind.value),
    }
    scores = {k: dg.MetadataValue.float(v) for k, v in fold_run.scores.items()}
    return {**values, **scores}


def _why_stopped(card: ClassifierCard) -> str:
    """Say why a training ended."""
    match card.stopped:
        case StopReason.NO_IMPROVEMENT:
            patience = card.config.planned_patience(
                has_backbone=has_backbone(card.model)
            )
            return f"no lower validation loss in {count(patience, 'epoch')}"
        case StopReason.NOT_A_NUMBER:
            return f"the loss was not a number in epoch {len(card.history) + 1}"
        case _:
            return "after its last epoch"
