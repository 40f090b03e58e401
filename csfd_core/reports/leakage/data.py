"""The slices of an audit: which studies take part, and their images, small.

The label of a slice is the label of its study (``patient_overall``), as it was in the
first attempt; that is part of what is audited.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import simplejpeg
from PIL import Image

from csfd_core.errors import StoreError
from csfd_core.evaluation.folds import assign_folds
from csfd_core.reports.leakage.config import AuditConfig
from csfd_core.store import paths
from csfd_core.store.standing import usable_studies
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import OVERALL

Images = npt.NDArray[np.uint8]  # (N, side, side)

CODE_VERSION: Final = "2"  # raised when the same inputs must be audited again
_TEST_SHARE: Final = 1 / 3  # of the studies at most, where not all can take part
_READERS: Final = 4  # each holds the JPEGs of one study


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AuditData:
    """The stream of slices: a table and an image for each of its rows."""

    slices: pd.DataFrame  # columns as in ``protocols``
    images: Images

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Label of each slice, shape (N,)."""
        return self.slices["label"].to_numpy(dtype=np.int64)


def choose_studies(stores: Stores, config: AuditConfig) -> pd.DataFrame:
    """Choose the studies of an audit: labelled, not quarantined, with slices.

    Returns:
        Columns ``study_uid``, ``patient``, ``fold``, ``is_test``, ``label`` and
        ``content_hash`` (of the slices as they are stored), sorted by study.

    Raises:
        StoreError: If there is no such study.
    """
    studies = stores.metadata.read_studies()
    stored = {
        e.name.removesuffix(".parquet") for e in stores.root.entries(paths.SLICES)
    }
    usable = usable_studies(studies)
    usable = usable[usable[OVERALL].notna() & usable["study_uid"].isin(stored)]
    if usable.empty:
        raise StoreError(
            "The store has no labelled study with slices. Give labels (train.csv) and "
            "materialize slice_store and metadata_table first."
        )
    table = assign_folds(usable)
    table["label"] = usable[OVERALL].to_numpy(dtype=np.int64)
    chosen = cap_studies(table, config.most_studies)
    with ThreadPoolExecutor(_READERS) as pool:
        notes = list(pool.map(stores.slices.read_note, chosen["study_uid"]))
    chosen["content_hash"] = [note.content_hash for note in notes if note]
    return chosen


def cap_studies(studies: pd.DataFrame, most: int) -> pd.DataFrame:
    """Choose at most so many studies, whole patients, by a digest of the patient.

    Locked patients come first, up to a third of the studies, so that the honest test
    set stays large enough to measure something. More studies in the store change the
    choice only where a new patient's digest comes before.

    Args:
        studies: With the columns ``study_uid``, ``patient`` and ``is_test``.
        most: Studies at most.

    Returns:
        The chosen rows, sorted by study.
    """
    if len(studies) > most:
        tests = studies["is_test"]
        locked = _first_patients(studies[tests], max(1, round(most * _TEST_SHARE)))
        others = _first_patients(studies[~tests], most - len(locked))
        studies = studies[studies["study_uid"].isin({*locked, *others})]
    return studies.sort_values("study_uid", ignore_index=True)


def audit_inputs(studies: pd.DataFrame, config: AuditConfig, data_kind: str) -> str:
    """Return the identity of all that an audit rests on.

    Args:
        studies: From ``choose_studies``.
        config: Settings of the audit.
        data_kind: What the report says of the data.
    """
    columns = ["study_uid", "patient", "fold", "is_test", "label", "content_hash"]
    facts = {
        "code": CODE_VERSION,
        "config": config.to_note(),
        "data_kind": data_kind,
        "studies": studies[columns].to_numpy().tolist(),
    }
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_slices(
    stores: Stores, studies: pd.DataFrame, config: AuditConfig
) -> AuditData:
    """Read evenly spaced slices of each study, reduced while they are decoded.

    Args:
        stores: Where the slices are.
        studies: From ``choose_studies``.
        config: How many slices of each study, and how large.

    Raises:
        StoreError: If a slice cannot be decoded.
    """

    def read(study_uid: str) -> tuple[npt.NDArray[np.intp], Images]:
        jpegs = stores.slices.read_table(study_uid).column("jpeg")
        indices = evenly_spaced(len(jpegs), config.slices_per_study)
        planes = [
            _read_small(jpegs[int(index)].as_py(), config.side, study_uid)
            for index in indices
        ]
        return indices, np.stack(planes)

    with ThreadPoolExecutor(_READERS) as pool:
        samples = list(pool.map(read, studies["study_uid"]))
    counts = [len(indices) for indices, _ in samples]
    names = ["study_uid", "patient", "fold", "is_test", "label"]
    slices = studies[names].loc[studies.index.repeat(counts)].reset_index(drop=True)
    slices["slice_index"] = np.concatenate([indices for indices, _ in samples])
    return AuditData(
        slices=slices, images=np.concatenate([planes for _, planes in samples])
    )


def evenly_spaced(count: int, wanted: int) -> npt.NDArray[np.intp]:
    """Return the middles of ``wanted`` equal parts of ``count``; all where too few."""
    wanted = min(count, wanted)
    middles = (np.arange(wanted) + 0.5) * count / wanted
    return middles.astype(np.intp)


def _first_patients(studies: pd.DataFrame, most: int) -> list[str]:
    """Return the studies of the first patients by digest that there is room for."""
    groups: dict[str, list[str]] = {}
    for study_uid, patient in zip(
        studies["study_uid"], studies["patient"], strict=True
    ):
        groups.setdefault(str(patient), []).append(str(study_uid))
    chosen: list[str] = []
    for patient in sorted(groups, key=_digest):
        if len(chosen) + len(groups[patient]) <= most:
            chosen += groups[patient]
    return chosen


def _digest(patient: str) -> str:
    return hashlib.sha256(f"csfd leakage audit:{patient}".encode()).hexdigest()


def _read_small(jpeg: bytes, side: int, study_uid: str) -> Images:
    """Decode at the smallest scale that is large enough, and resize to a square."""
    try:
        grey = simplejpeg.decode_jpeg(
            jpeg, colorspace="GRAY", fastdct=True, min_height=side, min_width=side
        )
    except ValueError as error:
        raise StoreError(
            f"A slice of {study_uid} is no readable JPEG. Convert the study again."
        ) from error
    small = Image.fromarray(grey[:, :, 0]).resize((side, side), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.uint8)
