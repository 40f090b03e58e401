"""Quality of the data: what is quarantined, missing, compressed or there twice."""

from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pandas as pd

from csfd_core.store.metadata import MetadataStore
from csfd_core.store.parquet import read_parquet
from csfd_core.store.standing import usable_studies
from csfd_core.vocabulary import LABEL_COLUMNS

_READERS: Final = 16  # reading waits for the disk or the network

# DICOM PS3.6 table A-1, in words that fit an axis.
_SYNTAXES: Final = {
    "1.2.840.10008.1.2": "uncompressed (implicit VR)",
    "1.2.840.10008.1.2.1": "uncompressed (explicit VR)",
    "1.2.840.10008.1.2.1.99": "deflated",
    "1.2.840.10008.1.2.2": "uncompressed (big endian)",
    "1.2.840.10008.1.2.4.50": "JPEG baseline, lossy",
    "1.2.840.10008.1.2.4.51": "JPEG extended, lossy",
    "1.2.840.10008.1.2.4.57": "JPEG lossless (process 14)",
    "1.2.840.10008.1.2.4.70": "JPEG lossless",
    "1.2.840.10008.1.2.4.80": "JPEG-LS lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS near-lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.201": "HTJ2K lossless",
    "1.2.840.10008.1.2.5": "RLE lossless",
}


def syntax_name(uid: str) -> str:
    """Return a transfer syntax in words; its UID where it is not a common one."""
    return _SYNTAXES.get(uid, uid)


def count_slices_by_syntax(store: MetadataStore) -> pd.DataFrame:
    """Count slices by transfer syntax, from the header tables of all studies.

    Reads one column of each table and keeps only counts, so that memory does not grow
    with the number of slices.

    Returns:
        ``transfer_syntax_uid, slices, studies``; a study counts for each syntax that
        any of its slices has.
    """

    def read(study_uid: str) -> Counter[str]:
        path = store.path(study_uid)
        table, _ = read_parquet(store.location, path, ["transfer_syntax_uid"])
        return Counter(table.column(0).to_pylist())

    slices: Counter[str] = Counter()
    studies: Counter[str] = Counter()
    with ThreadPoolExecutor(_READERS) as pool:
        for counts in pool.map(read, store.study_uids()):
            slices.update(counts)
            studies.update(counts.keys())
    rows = [(uid, slices[uid], studies[uid]) for uid in sorted(slices)]
    columns = ["transfer_syntax_uid", "slices", "studies"]
    return pd.DataFrame(rows, columns=columns)


def quality_table(studies: pd.DataFrame, labels_without_images: int) -> pd.DataFrame:
    """Count studies by what matters for their quality.

    Args:
        studies: The whole table of studies, with the quarantined ones.
        labels_without_images: Labelled studies that are no rows of it.

    Returns:
        ``topic, item, studies``, in a fixed order of topics.
    """
    good = usable_studies(studies)
    unlabelled = int(good[list(LABEL_COLUMNS)].isna().any(axis=1).sum())
    direction = Counter(
        "head to feet" if falls else "feet to head"
        for falls in good["z_descending"].dropna()
    )
    topics: list[tuple[str, Mapping[str, int]]] = [
        ("standing", Counter(studies["status"].dropna())),
        ("quarantined for", Counter(studies["quarantine_code"].dropna())),
        ("warned of", _count_warnings(studies["warning_codes"])),
        ("instance numbers rise", direction),
        (
            "labels",
            {
                "complete": len(good) - unlabelled,
                "missing or incomplete": unlabelled,
                "labelled, without images": labels_without_images,
            },
        ),
        ("content", _count_copies(studies)),
    ]
    rows = [
        (topic, item, count)
        for topic, counts in topics
        for item, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
    return pd.DataFrame(rows, columns=["topic", "item", "studies"])


def duplicates(studies: pd.DataFrame) -> pd.DataFrame:
    """Return the studies whose slices are those of another: ``group, study_uid``."""
    filled = studies[(studies["slice_count"].fillna(0) > 0)]
    filled = filled.dropna(subset=["content_hash"])
    repeated = filled[filled["content_hash"].duplicated(keep=False)]
    ordered = repeated.sort_values(["content_hash", "study_uid"])
    group = pd.factorize(ordered["content_hash"])[0] + 1
    return pd.DataFrame({"group": group, "study_uid": ordered["study_uid"].to_numpy()})


def _count_copies(studies: pd.DataFrame) -> Mapping[str, int]:
    if studies["content_hash"].isna().all():
        return {}
    copies = len(duplicates(studies))
    keys = studies["patient_key"].dropna()
    shared = keys.duplicated(keep=False)
    return {
        "same slices as another study": copies,
        "same PatientID as another study": int(shared.sum()),
    }


def _count_warnings(codes: Iterable[object]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for several in codes:
        if isinstance(several, Iterable):
            counts.update(set(several))
    return counts
