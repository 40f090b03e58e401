"""From probabilities to levels that make sense, and what to say where they do not.

Works on the networks' grid, axes (feet, back, left). A column that contradicts anatomy
is flagged for a person to look at; it is never relabelled silently.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from csfd_core.segmentation.config import CLASSES
from csfd_core.store.notes import LevelNote
from csfd_core.text import percent
from csfd_core.vocabulary import LEVEL_NAMES, RELATIVE_VOLUMES

Float = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]

_SMALLEST_ML: Final = 0.15  # less than this is no vertebra, not even a part of one
_NEAR_SHARE: Final = 0.12  # of the largest component: a fragment or an arch
_NEAR_MM: Final = 6.0
_EDGE_MM: Final = 2.5
_SURE: Final = 0.6
# Whole adult vertebrae lie well within; a level outside is flagged.
_PLAUSIBLE_ML: Final = (2.0, 45.0)
_SQUEEZED: Final = 0.68  # of the volume that the other levels let expect
_TALLEST_STEP_MM: Final = 45.0  # between the middles of neighbours


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelFinding:
    """One level that was found."""

    level: str
    volume_ml: float
    confidence: float  # mean probability of its voxels, 0..1
    centre_zyx_mm: tuple[float, float, float]  # from the first voxel of the scan
    is_cut: bool  # it reaches the first or last slice

    def to_note(self) -> LevelNote:
        """Return what is kept of it."""
        z, y, x = (round(value, 2) for value in self.centre_zyx_mm)
        return LevelNote(
            volume_ml=self.volume_ml,
            confidence=self.confidence,
            is_cut=self.is_cut,
            centre_zyx_mm=(z, y, x),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What was found in a study, and what a person should look at."""

    levels: tuple[LevelFinding, ...]
    flags: tuple[str, ...]  # sentences; empty: nothing contradicts anatomy

    @property
    def confidence(self) -> float:
        """The least of all levels; 0 where nothing was found."""
        return min((level.confidence for level in self.levels), default=0.0)

    def notes(self) -> dict[str, LevelNote]:
        """Return what is kept of each level."""
        return {level.level: level.to_note() for level in self.levels}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanGrid:
    """Where the grid lies in the scan."""

    first_mm: tuple[float, float, float]  # of its first voxel
    step_mm: float
    depth_mm: float  # from the first to the last slice of the scan


def clean_levels(probability: Float, step_mm: float) -> Labels:
    """Return the labels of a grid: one body of voxels per level.

    Stray parts of a level that touch another one become part of it, others nothing.

    Args:
        probability: Shape (Z, Y, X, C); it is not changed.
        step_mm: Voxel size.
    """
    labels: Labels = probability.argmax(axis=-1).astype(np.uint8)
    cleaned = np.zeros_like(labels)
    strays: list[tuple[npt.NDArray[np.bool_], tuple[slice, ...]]] = []
    for level in range(1, CLASSES):
        parts, count = ndimage.label(labels == level)
        if not count:
            continue
        sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        if sizes.max() * step_mm**3 / 1000 < _SMALLEST_ML:
            continue
        largest = int(sizes.argmax()) + 1
        boxes = ndimage.find_objects(parts)
        reach = max(1, round(_NEAR_MM / step_mm))
        home = _grown(boxes[largest - 1], reach, labels.shape)
        distance = ndimage.distance_transform_edt(parts[home] != largest) * step_mm
        for part in range(1, count + 1):
            inside = parts == part
            close = inside[home] & (distance <= _NEAR_MM)
            is_large = sizes[part - 1] >= _NEAR_SHARE * sizes[largest - 1]
            if part == largest or (is_large and close.any()):
                cleaned[inside] = level
            else:
                strays.append((inside, _grown(boxes[part - 1], 1, labels.shape)))
    for inside, box in strays:
        ring = ndimage.binary_dilation(inside[box]) & ~inside[box]
        neighbours = np.bincount(cleaned[box][ring], minlength=CLASSES)[1:]
        if neighbours.any():
            cleaned[inside] = int(neighbours.argmax()) + 1
    return cleaned


def review(labels: Labels, probability: Float, grid: ScanGrid) -> Review:
    """Measure each level and say what contradicts anatomy."""
    levels = [
        _measure(labels, probability, level, grid)
        for level in range(1, CLASSES)
        if (labels == level).any()
    ]
    return Review(levels=tuple(levels), flags=tuple(_contradictions(levels)))


def _measure(
    labels: Labels, probability: Float, level: int, grid: ScanGrid
) -> LevelFinding:
    where = np.argwhere(labels == level)
    centre = where.mean(axis=0) * grid.step_mm + np.array(grid.first_mm)
    top = grid.first_mm[0] + float(where[:, 0].min()) * grid.step_mm
    end = grid.first_mm[0] + float(where[:, 0].max()) * grid.step_mm
    sure = probability[where[:, 0], where[:, 1], where[:, 2], level]
    return LevelFinding(
        level=LEVEL_NAMES[level - 1],
        volume_ml=round(float(len(where) * grid.step_mm**3 / 1000), 3),
        confidence=round(float(sure.mean()), 4),
        centre_zyx_mm=(float(centre[0]), float(centre[1]), float(centre[2])),
        is_cut=bool(top < _EDGE_MM or end > grid.depth_mm - _EDGE_MM),
    )


def _contradictions(levels: Sequence[LevelFinding]) -> list[str]:
    if not levels:
        return ["No cervical vertebra was found."]
    return [
        *_wrong_steps(levels),
        *_wrong_levels(levels),
        *_wrong_shares(levels),
        *_wrong_ends(levels),
        *_without_ends(levels),
    ]


def _wrong_steps(levels: Sequence[LevelFinding]) -> list[str]:
    flags = []
    for upper, lower in zip(levels, levels[1:], strict=False):
        gap_mm = lower.centre_zyx_mm[0] - upper.centre_zyx_mm[0]
        missing = _between(upper.level, lower.level)
        if gap_mm <= 0:
            flags.append(f"{lower.level} does not lie below {upper.level}.")
        elif missing:
            flags.append(f"{missing} is missing between its neighbours.")
        elif gap_mm > _TALLEST_STEP_MM:
            flags.append(f"{upper.level} and {lower.level} are {gap_mm:.0f} mm apart.")
    return flags


def _wrong_levels(levels: Sequence[LevelFinding]) -> list[str]:
    flags = []
    for level in levels:
        if not is_plausible_volume(level.volume_ml, is_cut=level.is_cut):
            flags.append(f"{level.level} has {level.volume_ml:.1f} ml.")
        if level.confidence < _SURE:
            flags.append(f"{level.level} is uncertain ({percent(level.confidence)}).")
    return flags


def is_plausible_volume(volume_ml: float, *, is_cut: bool) -> bool:
    """Say whether a vertebra can have this volume; one that is cut may have less."""
    low, high = _PLAUSIBLE_ML
    return volume_ml <= high and (is_cut or volume_ml >= low)


def _wrong_shares(levels: Sequence[LevelFinding]) -> list[str]:
    """Find levels squeezed between others: what a shift by one looks like."""
    whole = [level for level in levels if not level.is_cut]
    sizes = [level.volume_ml / RELATIVE_VOLUMES[level.level] for level in whole]
    usual = float(np.median(sizes)) if sizes else 0.0
    return [
        f"{level.level} is small beside the other levels; they may be shifted."
        for level, size in zip(whole, sizes, strict=True)
        if size < _SQUEEZED * usual
    ]


def _wrong_ends(levels: Sequence[LevelFinding]) -> list[str]:
    flags = []
    first, last = levels[0], levels[-1]
    if first.level != LEVEL_NAMES[0] and not first.is_cut:
        flags.append(f"Nothing was found above {first.level}, though the scan goes on.")
    if last.level != LEVEL_NAMES[-1] and not last.is_cut:
        flags.append(f"Nothing was found below {last.level}, though the scan goes on.")
    return flags


def _without_ends(levels: Sequence[LevelFinding]) -> list[str]:
    """Find columns of which neither end can be seen, where levels cannot be counted."""
    first, last = levels[0], levels[-1]
    if first.is_cut and last.is_cut:
        return [
            f"The scan begins at {first.level} and ends at {last.level}: with neither "
            "end of the neck in view, levels may be shifted."
        ]
    return []


def _between(upper: str, lower: str) -> str:
    first, last = LEVEL_NAMES.index(upper), LEVEL_NAMES.index(lower)
    return ", ".join(LEVEL_NAMES[first + 1 : last])


def _grown(
    box: tuple[slice, ...], reach: int, shape: tuple[int, ...]
) -> tuple[slice, ...]:
    return tuple(
        slice(max(part.start - reach, 0), min(part.stop + reach, size))
        for part, size in zip(box, shape, strict=True)
    )
