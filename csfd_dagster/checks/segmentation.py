"""Asset check: what must hold of the models of the segmentation."""

import dagster as dg

from csfd_core.evaluation.folds import assign_folds
from csfd_core.segmentation.model_store import ModelStore
from csfd_dagster.resources.stores import StoreResource


@dg.asset_check(asset="segmentation_model", blocking=True)
def no_test_study_trained(store: StoreResource) -> dg.AssetCheckResult:
    """No study of the locked test set, and no patient of it, was trained on."""
    stores = store.open()
    folds = assign_folds(stores.metadata.read_studies())
    locked = set(folds["study_uid"][folds["is_test"]])
    fold_of = dict(zip(folds["study_uid"], folds["fold"], strict=True))
    leaked, crossed = [], []
    for fold, card in ModelStore(stores.root).cards().items():
        trained = {*card["training_studies"], *card["validation_studies"]}
        leaked += sorted(trained & locked)
        crossed += [uid for uid in card["training_studies"] if fold_of.get(uid) == fold]
    return dg.AssetCheckResult(
        passed=not (leaked or crossed),
        metadata={
            "locked": len(locked),
            "leaked": leaked[:5],
            "of_the_held_out_fold": crossed[:5],
        },
    )


SEGMENTATION_CHECKS = [no_test_study_trained]
