"""Asset check: what must hold of the models of the segmentation."""

import dagster as dg

from csfd_core.learning.splits import leaks_of
from csfd_core.segmentation.model_store import ModelStore
from csfd_dagster.checks.leaks import leak_result
from csfd_dagster.resources.stores import StoreResource


@dg.asset_check(asset="segmentation_model", blocking=True)
def no_test_study_trained(store: StoreResource) -> dg.AssetCheckResult:
    """No study of the locked test set, and no patient of it, was trained on."""
    stores = store.open()
    cards = ModelStore(stores.root).cards().values()
    return leak_result(leaks_of(cards, stores.metadata.read_studies()))


SEGMENTATION_CHECKS = [no_test_study_trained]
