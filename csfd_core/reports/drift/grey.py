"""Histograms of the grey levels of studies, kept in the store.

A few slices stand for a study. Reading them takes whole groups of slices out of a large
file, so each histogram is computed once. It lies among the cached features, named after
the study and the content of its slices: a change gives a new file, and whoever takes a
study out of the store takes this out as well.
"""

import hashlib
import io
from collections.abc import Iterable
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from csfd_core.runtime.executors import completed
from csfd_core.runtime.study_map import StudyMap, Work
from csfd_core.store import paths
from csfd_core.store.notes import SliceNote
from csfd_core.store.stores import Stores

SLICES: Final = 5  # of a study, evenly spaced; more change a histogram by little
LEVELS: Final = 256
AIR: Final = 8  # levels below are -444 HU and less, and what JPEG leaves beside them
_FORMAT: Final = 1

Counts = npt.NDArray[np.int64]


def read_grey_levels(stores: Stores, study_uids: Iterable[str]) -> pd.DataFrame:
    """Return the share of the pixels of each study that have each grey level.

    Args:
        stores: Where the slices are; what is computed is kept there.
        study_uids: Those without slices in the store are left out.

    Returns:
        One row per study (index ``study_uid``), columns 0 to 255; rows sum to 1. Level
        0 is -500 HU and less, 255 is 1300 HU and more.

    Raises:
        StoreError: If a slice cannot be decoded.
    """
    uids = list(study_uids)
    counts: dict[str, Counts | None] = {}
    with StudyMap().open(Work.READING, len(uids)) as executor:
        for uid, stored in completed(executor, partial(_stored_counts, stores), uids):
            counts[uid] = stored.result()
    new = [uid for uid in uids if counts[uid] is None]
    if new:
        folder = stores.root.folder
        with StudyMap.read().open(Work.READING, len(new), store=folder) as executor:
            for uid, made in completed(executor, partial(_count, stores), new):
                counts[uid] = made.result()
    counted = {uid: counts[uid] for uid in uids}
    shares = {uid: n / n.sum() for uid, n in counted.items() if n is not None}
    index = pd.Index(list(shares), name="study_uid", dtype=object)
    rows = np.stack(list(shares.values())) if shares else np.empty((0, LEVELS))
    return pd.DataFrame(rows, index=index)


def mean_grey(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean grey level of each row of shares, shape (N, 256) to (N,)."""
    return np.asarray(shares @ np.arange(shares.shape[1]), dtype=np.float64)


def tissue_shares(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the shares of grey levels among the pixels that are no air.

    How much air around the neck is in the picture follows from the field of view and
    says nothing of how tissue looks.

    Args:
        shares: Of all pixels, shape (N, 256).

    Returns:
        Shape (M, 256): 0 for air, rows sum to 1; studies without tissue are left out.
    """
    tissue = shares.copy()
    tissue[:, :AIR] = 0
    total = tissue.sum(axis=1, keepdims=True)
    has_tissue = total[:, 0] > 0
    return np.asarray(tissue[has_tissue] / total[has_tissue], dtype=np.float64)


def median_of_tissue(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the median grey level of the pixels that are no air, NaN without any.

    Args:
        shares: Of all pixels, shape (N, 256).
    """
    inside = np.cumsum(shares[:, AIR:], axis=1)
    total = inside[:, -1:]
    medians = AIR + (inside < total / 2).sum(axis=1)
    return np.where(total[:, 0] > 0, medians, np.nan)


def _stored_counts(stores: Stores, study_uid: str) -> Counts | None:
    """Return how many pixels have each level, shape (256,), if that was counted."""
    note = stores.slices.read_note(study_uid)
    path = "" if note is None else _path(note)
    content = stores.root.read_if_there(path) if path else None
    if content is None:
        return None
    with np.load(io.BytesIO(content)) as archive:
        return np.asarray(archive["counts"], dtype=np.int64)


def _count(stores: Stores, study_uid: str) -> Counts | None:
    """Count how many pixels have each level, and keep it; ``None`` without slices."""
    note = stores.slices.read_note(study_uid)
    if note is None:
        return None
    depth = note.shape_zyx[0]
    indices = np.unique(((np.arange(SLICES) + 0.5) / SLICES * depth).astype(int))
    counts = np.zeros(LEVELS, dtype=np.int64)
    for index in indices:
        pixels = stores.slices.read_volume(study_uid, int(index), int(index) + 1)
        counts += np.bincount(pixels.ravel(), minlength=LEVELS)
    sink = io.BytesIO()
    np.savez_compressed(sink, counts=counts)
    stores.root.write(_path(note), sink.getvalue())
    return counts


def _path(note: SliceNote) -> str:
    facts = [_FORMAT, SLICES, note.content_hash, note.conversion.model_dump()]
    content = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    return paths.of_study(paths.GREY_LEVELS, note.study_uid, f"-{content}.npz")
