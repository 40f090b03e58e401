"""Asset checks: what must hold of the manifest and of every classifier."""

import dagster as dg

from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.classification.classifiers import CLASSIFIERS
from csfd_core.classification.general import with_general
from csfd_core.classification.manifest import (
    balance_of_folds,
    patients_in_two_folds,
    read_manifest,
)
from csfd_core.evaluation.folds import assign_folds
from csfd_core.learning.splits import leaks_of
from csfd_core.store.standing import usable_studies
from csfd_dagster.checks.leaks import leak_result
from csfd_dagster.presentation import table_of
from csfd_dagster.resources.stores import StoreResource

_UNEVEN = 3.0  # times the share of fractured vertebrae of all folds
_FEWEST = 100  # vertebrae of a fold; the shares of fewer say nothing


@dg.asset_check(asset="training_manifest", blocking=True)
def no_patient_is_in_two_folds(store: StoreResource) -> dg.AssetCheckResult:
    """No patient is in two folds, and none of the locked test set in any.

    The folds of the manifest are compared with each other and with what the hash of the
    patient says today.
    """
    stores = store.open()
    table = read_manifest(stores.root).table
    crossed = patients_in_two_folds(table)
    studies = stores.metadata.read_studies()
    used = usable_studies(studies)  # others may repeat a study
    wanted = assign_folds(used).set_index("study_uid")
    manifest = table.drop_duplicates("study_uid").set_index("study_uid")
    common = manifest.index.intersection(wanted.index)
    same = (
        manifest.loc[common, ["fold", "is_test"]]
        == wanted.loc[common, ["fold", "is_test"]]
    )
    moved = sorted(common[~same.all(axis=1)])
    return dg.AssetCheckResult(
        passed=not (crossed or moved),
        metadata={
            "patients": int(table["patient"].nunique()),
            "patients_in_two_folds": len(crossed),
            "studies_moved": moved[:5],
        },
    )


@dg.asset_check(asset="training_manifest")
def folds_are_balanced(store: StoreResource) -> dg.AssetCheckResult:
    """Fractured vertebrae are spread over the folds and the locked test set."""
    table = balance_of_folds(read_manifest(store.open().root).usable)
    overall = float(table["fractured"].sum()) / max(1, int(table["vertebrae"].sum()))
    large = table[table["vertebrae"] >= _FEWEST]
    low, high = overall / _UNEVEN, overall * _UNEVEN
    uneven = large[(large["share"] < low) | (large["share"] > high)]
    return dg.AssetCheckResult(
        passed=uneven.empty,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"share": overall, "folds": table_of(table)},
    )


def _leak_check(name: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=name, name=f"{name}_saw_no_test_study", blocking=True)
    def check(store: StoreResource) -> dg.AssetCheckResult:
        """No patient of the locked test set, nor of the held-out fold, was trained."""
        stores = store.open()
        cards = with_general(ClassifierStore(stores.root).cards([name]))
        return leak_result(leaks_of(cards, stores.metadata.read_studies()))

    return check


CLASSIFICATION_CHECKS = [
    no_patient_is_in_two_folds,
    folds_are_balanced,
    *(_leak_check(name) for name in CLASSIFIERS),
]
