"""Checks of stored studies: of those that a run has made, or of all in the store."""

from collections.abc import Sequence

import dagster as dg
import numpy as np

from csfd_core.ingest.outcomes import Outcome, StudyOutcome
from csfd_core.store.source import Sources, StudyFolder
from csfd_core.store.standing import usable_studies
from csfd_core.store.stores import Stores

_SPACING_TOLERANCE = 0.1  # of the median, as for a single stack
_NAMED = 5  # studies, as examples


def check_rows(stores: Stores, sources: Sources) -> dg.AssetCheckResult:
    """Each study folder of the sources is a row, and each has as many slices as files.

    Slices are compared for studies that are not quarantined. Rows of studies that have
    left the sources, and so are kept, are a warning.
    """
    table = stores.metadata.read_studies().set_index("study_uid")
    withdrawn = stores.withdrawn.study_uids()
    folders = {
        folder.name: folder
        for folder in sources.studies()
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
        check_name="rows_agree_with_source",
        passed=not (missing or extra or uneven),
        severity=(
            dg.AssetCheckSeverity.ERROR
            if missing or uneven
            else dg.AssetCheckSeverity.WARN
        ),
        metadata={
            "studies_in_source": len(folders),
            "rows": len(table),
            "missing_in_table": missing[:_NAMED],
            "missing_in_source": extra[:_NAMED],
            "other_slice_count": uneven[:_NAMED],
        },
    )


def check_spacing(stores: Stores, study_uids: Sequence[str]) -> dg.AssetCheckResult:
    """The slices of studies that are not quarantined lie evenly.

    Measured on the stored positions, independently of the checks at ingestion.
    """
    uneven = []
    for study_uid in study_uids:
        gaps_mm = -np.diff(stores.metadata.read_positions_mm(study_uid))
        off = np.abs(gaps_mm - np.median(gaps_mm)).max()
        if off > _SPACING_TOLERANCE * np.median(gaps_mm):
            uneven.append(study_uid)
    return dg.AssetCheckResult(
        check_name="spacing_is_uniform",
        passed=not uneven,
        metadata={"studies": len(study_uids), "uneven": uneven[:_NAMED]},
    )


def check_decoding(outcomes: Sequence[StudyOutcome]) -> dg.AssetCheckResult:
    """Every slice decodes to the size that is recorded for it."""
    failed = [outcome for outcome in outcomes if outcome.action is Outcome.FAILED]
    return dg.AssetCheckResult(
        check_name="slices_decode",
        passed=not failed,
        metadata={
            "studies": len(outcomes),
            "slices": sum(outcome.slice_count for outcome in outcomes),
            "damaged": [outcome.study_uid for outcome in failed[:_NAMED]],
        },
    )


def slice_check_specs(asset: str, *names: str) -> list[dg.AssetCheckSpec]:
    """Return checks of this module, by name, for an asset."""
    told = {
        "rows_agree_with_source": check_rows.__doc__,
        "spacing_is_uniform": check_spacing.__doc__,
        "slices_decode": check_decoding.__doc__,
    }
    return [dg.AssetCheckSpec(n, asset=asset, description=told[n]) for n in names]


def _slice_files(folder: StudyFolder) -> int:
    return sum(entry.name.lower().endswith(".dcm") for entry in folder.files)
