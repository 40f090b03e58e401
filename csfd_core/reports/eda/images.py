"""The images of one study as figures and films need them: volume, mask, millimetres."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from csfd_core.store.parquet import read_parquet
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVELS


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyImages:
    """Grey levels and labels of a study, shape (Z, H, W), head to feet.

    ``z_mm`` has the position of each slice, shape (Z,); ``rows_to_back`` tells whether
    rows run from the front of the patient to the back.
    """

    study_uid: str
    volume: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8] | None
    z_mm: npt.NDArray[np.float64]
    spacing_zyx_mm: tuple[float, float, float]
    rows_to_back: bool

    @property
    def extent_mm(self) -> float:
        """Distance from the first to the last slice."""
        return (len(self.volume) - 1) * self.spacing_zyx_mm[0]


def read_images(stores: Stores, study_uid: str) -> StudyImages:
    """Read the slices of a study and its mask, where it has one.

    Raises:
        StoreError: If what is stored does not fit together.
    """
    path = stores.slices.path(study_uid)
    table, note = read_parquet(stores.root, path, ["z_mm"])
    has_mask = stores.masks.read_note(study_uid) is not None
    return StudyImages(
        study_uid=study_uid,
        volume=stores.slices.read_volume(study_uid),
        mask=stores.masks.read_volume(study_uid) if has_mask else None,
        z_mm=np.asarray(table.column("z_mm"), dtype=np.float64),
        spacing_zyx_mm=tuple(note["spacing_zyx_mm"]),
        rows_to_back=note["affine_lps"][1][1] > 0,
    )


def stored_studies(stores: Stores, ordered: Iterable[str], count: int) -> list[str]:
    """Return the first ``count`` of some studies that have slices in the store."""
    stored: list[str] = []
    for study_uid in ordered:
        if len(stored) == count:
            break
        if stores.slices.read_note(study_uid) is not None:
            stored.append(study_uid)
    return stored


def cervical_slices(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return the indices of the slices that show any of C1 to C7."""
    is_cervical = (mask >= LEVELS[0]) & (mask <= LEVELS[-1])
    return np.flatnonzero(is_cervical.any(axis=(1, 2)))


def midline_column(mask: npt.NDArray[np.uint8]) -> int:
    """Return the column of the sagittal plane through the middle of C1 to C7."""
    is_cervical = (mask >= LEVELS[0]) & (mask <= LEVELS[-1])
    weight = is_cervical.sum(axis=(0, 1))
    if not weight.any():
        return int(mask.shape[2]) // 2
    return int(np.searchsorted(np.cumsum(weight), weight.sum() / 2))


def side_view(volume: npt.NDArray[np.uint8], column: int) -> npt.NDArray[np.uint8]:
    """Return the sagittal plane of a volume, shape (Z, H)."""
    return np.ascontiguousarray(volume[:, :, column])
