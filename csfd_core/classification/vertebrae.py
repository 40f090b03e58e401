"""Reads the crops of the manifest's vertebrae, study by study, as arrays."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from csfd_core.store.crops import CropStore

Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vertebra:
    """The crops of one vertebra.

    Attributes:
        images: Grey levels (K, channels, side, side).
        masks: 255 where the vertebra is, (K, side, side).
        heights_mm: Of the middle of each slice, rising towards the feet, (K,).
        boxes: Of each slice, the outer edges of fracture boxes in pixels, shape (n, 4):
            row, column, row, column. ``None`` where nobody drew boxes.
    """

    images: Grey
    masks: Grey
    heights_mm: npt.NDArray[np.float64]
    boxes: tuple[npt.NDArray[np.float32], ...] | None


def read_vertebrae(
    crops: CropStore, rows: pd.DataFrame
) -> Iterator[tuple[Any, Vertebra]]:
    """Yield each row's label in the frame's index, and its crops; study by study.

    Args:
        crops: The store.
        rows: With the columns ``study_uid`` and ``level``, as in the manifest.
    """
    for study_uid, of_study in rows.groupby("study_uid", sort=False):
        uid = str(study_uid)
        facts = crops.read_facts(uid).to_pandas()
        pixels = {name: (images, masks) for name, images, masks in crops.levels(uid)}
        for index, level in zip(of_study.index, of_study["level"], strict=True):
            images, masks = pixels[level]
            of_level = facts[facts["level"] == level]
            vertebra = Vertebra(
                images=images,
                masks=masks,
                heights_mm=of_level["z_mm"].to_numpy(dtype=float),
                boxes=_to_boxes(of_level["boxes"]),
            )
            yield index, vertebra


def _to_boxes(column: pd.Series) -> tuple[npt.NDArray[np.float32], ...] | None:
    if column.isna().any():
        return None
    return tuple(np.reshape(np.asarray(b, dtype=np.float32), (-1, 4)) for b in column)
