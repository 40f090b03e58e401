"""Asset checks: what must hold of the table of studies."""

import dagster as dg

from csfd_core.store.metadata import STUDIES_COLUMNS
from csfd_core.store.standing import usable_studies
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES, OVERALL, is_uid
from csfd_dagster.resources.stores import StoreResource


@dg.asset_check(asset="metadata_table", blocking=True)
def study_uids_are_unique(store: StoreResource) -> dg.AssetCheckResult:
    """A study that stands in two rows would be counted, and trained on, twice."""
    table = store.open().metadata.read_studies()
    repeated = table["study_uid"][table["study_uid"].duplicated()].unique()
    trusted = usable_studies(table)["study_uid"]
    invalid = [uid for uid in trusted if not is_uid(uid)]
    return dg.AssetCheckResult(
        passed=not len(repeated) and not invalid,
        metadata={"repeated": len(repeated), "invalid": len(invalid)},
    )


@dg.asset_check(asset="metadata_table")
def overall_is_any_level(store: StoreResource) -> dg.AssetCheckResult:
    """``patient_overall`` is 1 exactly where one of C1 to C7 is."""
    table = store.open().metadata.read_studies()
    labelled = table.dropna(subset=list(LABEL_COLUMNS))
    highest = labelled[list(LEVEL_NAMES)].max(axis=1)
    wrong = labelled["study_uid"][labelled[OVERALL] != highest]
    return dg.AssetCheckResult(
        passed=wrong.empty,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"labelled": len(labelled), "contradictory": wrong.tolist()[:5]},
    )


@dg.asset_check(asset="metadata_table")
def columns_match_contract(store: StoreResource) -> dg.AssetCheckResult:
    """The stored table has the columns of the data contract, in their order."""
    table = store.open().metadata.read_studies()
    expected = [name for name, _, _ in STUDIES_COLUMNS]
    return dg.AssetCheckResult(
        passed=list(table.columns) == expected, metadata={"columns": len(table.columns)}
    )


CHECKS = [study_uids_are_unique, overall_is_any_level, columns_match_contract]
