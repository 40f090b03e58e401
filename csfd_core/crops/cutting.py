"""Crops of one vertebra: K slices across it, each with its neighbours, and its mask.

Every crop is sampled on the same fixed grid in millimetres, centred on the vertebra, so
that a vertebra has the same size in the crops of any scanner.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from csfd_core.crops.boxes import Affine, LevelBox, span_of
from csfd_core.dicom.grids import Axes, Triple, resampling_weights
from csfd_core.vocabulary import LEVEL_NAMES

Grey = npt.NDArray[np.uint8]
_FORMAT: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class CropConfig:
    """How vertebrae are cut out. Crops of another setting are cut again."""

    slices: int = 8  # across the height of the vertebra
    neighbours: int = 1  # on each side, as further channels
    neighbour_mm: float = 2.0  # from a slice to its next neighbour
    side_px: int = 96
    pixel_mm: float = 0.8
    margin_mm: float = 3.0  # above and below the mask

    def __post_init__(self) -> None:
        """Require at least one slice and pixel."""
        if min(self.slices, self.side_px) < 1 or self.neighbours < 0:
            raise ValueError(
                "`slices` and `side_px` must be at least 1, `neighbours` at least 0. "
                f"Received: {self.slices}, {self.side_px}, {self.neighbours}."
            )

    @property
    def channels(self) -> int:
        """Grey-level channels of a crop: the slice and its neighbours."""
        return 2 * self.neighbours + 1

    def to_note(self) -> dict[str, Any]:
        """Return the settings as they are recorded with the crops."""
        return {"format": _FORMAT, **asdict(self)}

    @classmethod
    def from_note(cls, note: Mapping[str, Any]) -> "CropConfig":
        """Return the settings that ``to_note`` gave."""
        return cls(**{name: note[name] for name in cls.__slots__})


CROP_PROFILES: Final = {
    "demo": CropConfig(),
    "full": CropConfig(slices=12, neighbour_mm=1.5, side_px=160, pixel_mm=0.6),
}


@dataclass(frozen=True, slots=True)
class TurnedScan:
    """A study with its mask, axes (feet, back, left), and how to get there from LPS."""

    grey: Grey
    mask: Grey
    spacing_mm: Triple
    lps_to_mm: Affine  # LPS mm to mm along the turned axes, (4, 4)

    @classmethod
    def of(cls, grey: Grey, mask: Grey, affine: Affine) -> "TurnedScan":
        """Turn a study.

        Args:
            grey: Shape (slice, row, column).
            mask: Labels of the same shape.
            affine: Maps (slice, row, column, 1) to LPS mm, shape (4, 4).
        """
        axes = Axes.of(affine)
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        turned = np.eye(4)
        for row, axis in enumerate(axes.order):
            sign = -1.0 if axes.flipped[row] else 1.0
            turned[row, :] = 0
            turned[row, axis] = sign * spacing[axis]
            if axes.flipped[row]:
                turned[row, 3] = (grey.shape[axis] - 1) * spacing[axis]
        z, y, x = axes.pick(tuple(float(v) for v in spacing))
        return cls(
            grey=np.asarray(axes.turn(grey), dtype=np.uint8),
            mask=np.asarray(axes.turn(mask), dtype=np.uint8),
            spacing_mm=(z, y, x),
            lps_to_mm=turned @ np.linalg.inv(affine),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelCrop:
    """One vertebra as the classifiers see it."""

    level: str
    images: Grey  # (K, channels, side, side): rows to the back, columns to the left
    masks: Grey  # (K, side, side): 255 where the vertebra is, 0 elsewhere
    middles_mm: npt.NDArray[np.float64]  # (K,): mm below the first voxel of the scan
    centre_yx_mm: npt.NDArray[np.float64]  # (2,): mm behind and left of that voxel
    affine_lps: Affine  # maps (crop, row, column, 1) to LPS mm, (4, 4)
    box: LevelBox


def affine_of_crops(scan: TurnedScan, box: LevelBox, config: CropConfig) -> Affine:
    """Return the map from (crop, row, column, 1) of a vertebra's crops to LPS mm."""
    low, high = _extent_mm(scan, box)
    height = (high[0] - low[0] + 2 * config.margin_mm) / config.slices
    centre, half = (low + high) / 2, (config.side_px - 1) / 2 * config.pixel_mm
    to_mm = np.diag([height, config.pixel_mm, config.pixel_mm, 1.0])
    to_mm[:3, 3] = low[0] - config.margin_mm + height / 2, *(centre[1:] - half)
    return np.asarray(np.linalg.inv(scan.lps_to_mm) @ to_mm)


def cut_level(scan: TurnedScan, box: LevelBox, config: CropConfig) -> LevelCrop:
    """Cut one vertebra out of a study."""
    low, high = _extent_mm(scan, box)
    top, end = low[0] - config.margin_mm, high[0] + config.margin_mm
    middles = top + (np.arange(config.slices) + 0.5) / config.slices * (end - top)
    steps = np.arange(-config.neighbours, config.neighbours + 1)
    heights = middles[:, None] + steps * config.neighbour_mm
    centre = (low + high) / 2
    half = (np.arange(config.side_px) - (config.side_px - 1) / 2) * config.pixel_mm
    rows, columns = centre[1] + half, centre[2] + half
    planes = _sample(scan.grey, scan.spacing_mm, (heights.ravel(), rows, columns))
    label = LEVEL_NAMES.index(box.level) + 1
    mask = _sample(scan.mask, scan.spacing_mm, (middles, rows, columns), label)
    shape = (config.slices, config.channels, config.side_px, config.side_px)
    return LevelCrop(
        level=box.level,
        images=_to_grey(planes).reshape(shape),
        masks=np.where(mask >= 127.5, 255, 0).astype(np.uint8),
        middles_mm=middles,
        centre_yx_mm=centre[1:],
        affine_lps=affine_of_crops(scan, box, config),
        box=box,
    )


def _extent_mm(
    scan: TurnedScan, box: LevelBox
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the lower and upper corner of a vertebra along the turned axes.

    They are those of its voxels: the box runs along the patient's axes, and the turned
    ones along those of the slices, which are others where the study is oblique.
    """
    spacing = np.array(scan.spacing_mm)
    affine = np.asarray(np.linalg.inv(scan.lps_to_mm) @ np.diag([*spacing, 1.0]))
    around = span_of(box, affine, scan.mask.shape)
    level_mask = scan.mask[around] == LEVEL_NAMES.index(box.level) + 1
    (span,) = ndimage.find_objects(level_mask.astype(np.uint8))
    low = [a.start + part.start - 0.5 for a, part in zip(around, span, strict=True)]
    high = [a.start + part.stop - 0.5 for a, part in zip(around, span, strict=True)]
    return np.array(low) * spacing, np.array(high) * spacing


def _sample(
    volume: Grey,
    spacing_mm: Triple,
    at_mm: tuple[npt.NDArray[np.float64], ...],
    label: int | None = None,
) -> npt.NDArray[np.float32]:
    """Resample a volume at the crossings of three sets of positions.

    Where a label is given, 255 stands for it and 0 for all others.
    """
    matrices, spans = [], []
    for axis, wanted in enumerate(at_mm):
        source = np.arange(volume.shape[axis]) * spacing_mm[axis]
        step = float(wanted[1] - wanted[0]) if axis and wanted.size > 1 else 0.0
        matrix = resampling_weights(source, wanted, step or spacing_mm[axis])
        used = np.flatnonzero(matrix.any(axis=0))
        span = slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 1)
        matrices.append(matrix[:, span].astype(np.float32))
        spans.append(span)
    near = volume[tuple(spans)]
    part = near.astype(np.float32)
    if label is not None:
        part = np.where(near == label, np.float32(255), np.float32(0))
    planes = np.tensordot(matrices[0], part, axes=(1, 0))
    return np.asarray(np.matmul(np.matmul(matrices[1], planes), matrices[2].T))


def _to_grey(planes: npt.NDArray[np.float32]) -> Grey:
    return np.asarray(np.rint(np.clip(planes, 0, 255)), dtype=np.uint8)
