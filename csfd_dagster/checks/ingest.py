"""Asset checks: what must hold of the stores as a whole."""

import dagster as dg
import numpy as np

from csfd_core.store.metadata import STUDIES_COLUMNS
from csfd_core.store.source import StudyFolder
from csfd_core.store.standing import usable_studies
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES, OVERALL, is_uid
from csfd_dagster.resources.stores import SourceResource, StoreResource

_SPACING_TOLERANCE = 0.1  # of the median, as for a single stack


@dg.asset_check(asset="metadata_table")
def rows_agree_with_source(
    source: SourceResource, store: StoreResource
) -> dg.AssetCheckResult:
    """Each study folder of the sources is a row, and each has as many slices as files.

    Slices are compared for studies that are not quarantined. Rows of studies that have
    left the sources, and so are kept, are a warning.
    """
    stores = store.open()
    table = stores.metadata.read_studies().set_index("study_uid")
    withdrawn = stores.withdrawn.study_uids()
    folders = {
        folder.name: folder
        for folder in source.open().studies()
        if folder.files and folder.name not in withdrawn
    }
    missing = sorted(set(folders) - set(table.index))
    extra = sorted(set(table.index) - set(folders))
    good = usable_studies(table)
    uneven = [
        uid
        for uid, count in good["slice_count"].items()
        if uid in folders and _slice_files(folders[str(uid)]) != count
    ]
    return dg.AssetCheckResult(
        passed=not (missing or extra or uneven),
        severity=(
            dg.AssetCheckSeverity.ERROR
            if missing or uneven
            else dg.AssetCheckSeverity.WARN
        ),
        metadata={
            "studies_in_source": len(folders),
            "rows": len(table),
            "missing_in_table": missing[:5],
            "missing_in_source": extra[:5],
            "other_slice_count": uneven[:5],
        },
    )


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
def spacing_is_uniform(store: StoreResource) -> dg.AssetCheckResult:
    """The slices of every study that is not quarantined lie evenly.

    Measured on the stored positions, independently of the checks at ingestion.
    """
    stores = store.open()
    table = stores.metadata.read_studies()
    trusted = usable_studies(table)["study_uid"]
    uneven = []
    for study_uid in trusted:
        gaps_mm = -np.diff(stores.metadata.read_positions_mm(study_uid))
        off = np.abs(gaps_mm - np.median(gaps_mm)).max()
        if off > _SPACING_TOLERANCE * np.median(gaps_mm):
            uneven.append(study_uid)
    return dg.AssetCheckResult(
        passed=not uneven,
        metadata={"studies": len(trusted), "uneven": uneven[:5]},
    )


@dg.asset_check(asset="metadata_table")
def columns_match_contract(store: StoreResource) -> dg.AssetCheckResult:
    """The stored table has the columns of the data contract, in their order."""
    table = store.open().metadata.read_studies()
    expected = [name for name, _, _ in STUDIES_COLUMNS]
    return dg.AssetCheckResult(
        passed=list(table.columns) == expected, metadata={"columns": len(table.columns)}
    )


def _slice_files(folder: StudyFolder) -> int:
    return sum(entry.name.lower().endswith(".dcm") for entry in folder.files)


CHECKS = [
    rows_agree_with_source,
    study_uids_are_unique,
    overall_is_any_level,
    spacing_is_uniform,
    columns_match_contract,
]
