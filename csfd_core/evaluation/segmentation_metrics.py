"""How well a mask agrees with a given one: overlap, distance of surfaces, levels.

``*_score`` up is good, ``*_mm`` and ``*_rate`` down is good. A level that both masks
lack has no score (NaN); one that only one of them has scores Dice 0 and no distance.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from csfd_core.vocabulary import LEVEL_NAMES, LEVELS

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.integer]
_SWAP_VOXELS: Final = 20  # a smaller rest of a level at the edge of a scan is not asked


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelScore:
    """Agreement of one level in one study."""

    level: str
    dice_score: float
    surface_distance_mm: float  # average, symmetric
    hd95_mm: float  # 95th percentile Hausdorff distance
    is_swapped: bool  # most of the vertebra carries another level's label


def dice_score(first: Mask, second: Mask) -> float:
    """Return 2|A∩B| / (|A|+|B|); NaN where both are empty."""
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else math.nan


def surface_distances_mm(
    first: Mask, second: Mask, spacing_mm: tuple[float, float, float]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the distance from each surface voxel of one mask to the other's surface.

    A surface voxel has a neighbour through a face that is not of the mask.
    """
    box = _box_of(first | second)
    a, b = _surface(first[box]), _surface(second[box])
    to_b = ndimage.distance_transform_edt(~b, sampling=spacing_mm)
    to_a = ndimage.distance_transform_edt(~a, sampling=spacing_mm)
    return np.asarray(to_b[a]), np.asarray(to_a[b])


def surface_scores_mm(
    first: Mask, second: Mask, spacing_mm: tuple[float, float, float]
) -> tuple[float, float]:
    """Return the average symmetric and the 95th percentile Hausdorff distance.

    The latter is the larger of the percentiles of both directions (as in MONAI). NaN
    where one of the masks is empty.
    """
    if not (first.any() and second.any()):
        return math.nan, math.nan
    there, back = surface_distances_mm(first, second, spacing_mm)
    average = float(np.concatenate([there, back]).mean())
    return average, float(max(np.percentile(there, 95), np.percentile(back, 95)))


def level_scores(
    predicted: Labels, given: Labels, spacing_mm: tuple[float, float, float]
) -> list[LevelScore]:
    """Score each level that one of two masks of the same grid has."""
    scores = []
    for level in LEVELS:
        a, b = predicted == level, given == level
        if not (a.any() or b.any()):
            continue
        average, hd95 = surface_scores_mm(a, b, spacing_mm)
        scores.append(
            LevelScore(
                level=level.name,
                dice_score=dice_score(a, b),
                surface_distance_mm=average,
                hd95_mm=hd95,
                is_swapped=_is_swapped(predicted, b, int(level)),
            )
        )
    return scores


def swap_rate(scores: Sequence[LevelScore]) -> float:
    """Return the share of levels that carry another level's label."""
    return float(np.mean([s.is_swapped for s in scores])) if scores else math.nan


def _is_swapped(predicted: Labels, given: Mask, level: int) -> bool:
    """Say whether another level covers more of a given vertebra than its own."""
    if int(given.sum()) < _SWAP_VOXELS:
        return False
    labels = predicted[given]
    counts = np.bincount(labels[labels <= len(LEVEL_NAMES)], minlength=2)[1:]
    return bool(counts.any() and int(counts.argmax()) + 1 != level)


def _surface(mask: Mask) -> Mask:
    inner = ndimage.binary_erosion(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]
    return np.asarray(mask & ~inner)


def _box_of(mask: Mask) -> tuple[slice, ...]:
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    return tuple(box)
