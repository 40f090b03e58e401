"""Where each vertebra lies: boxes in millimetres of the patient, and voxels of a grid.

Boxes are in LPS mm along the patient's own axes. They do not depend on the order of the
slices, on their spacing or on the directions of rows and columns.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from csfd_core.vocabulary import LEVELS

Affine = npt.NDArray[np.float64]
Span = tuple[slice, slice, slice]


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelBox:
    """The box around one vertebra, to the outer faces of its voxels."""

    level: str
    lower_lps_mm: tuple[float, float, float]
    upper_lps_mm: tuple[float, float, float]

    @property
    def centre_lps_mm(self) -> npt.NDArray[np.float64]:
        """Return the middle of the box."""
        both = np.array([self.lower_lps_mm, self.upper_lps_mm])
        return np.asarray(both.mean(axis=0))

    @property
    def size_lps_mm(self) -> npt.NDArray[np.float64]:
        """Return the extent to the left, back and head."""
        return np.subtract(self.upper_lps_mm, self.lower_lps_mm)

    def grown(self, margin_mm: float) -> "LevelBox":
        """Return the box with a margin on every side."""
        low = (value - margin_mm for value in self.lower_lps_mm)
        high = (value + margin_mm for value in self.upper_lps_mm)
        return LevelBox(
            level=self.level,
            lower_lps_mm=_triple(np.array(list(low))),
            upper_lps_mm=_triple(np.array(list(high))),
        )


def boxes_of_levels(mask: npt.NDArray[np.integer], affine: Affine) -> list[LevelBox]:
    """Return the box of each of C1 to C7 that a mask shows, head to feet.

    Args:
        mask: Labels, shape (slice, row, column).
        affine: Maps (slice, row, column, 1) to LPS mm, shape (4, 4).
    """
    spans = ndimage.find_objects(mask, max_label=int(LEVELS[-1]))
    boxes = []
    for level, span in zip(LEVELS, spans, strict=True):
        if span is None:
            continue
        low = [part.start - 0.5 for part in span]
        high = [part.stop - 0.5 for part in span]
        corners = corners_of(np.array(low), np.array(high)) @ affine[:3, :3].T
        corners = corners + affine[:3, 3]
        boxes.append(
            LevelBox(
                level=level.name,
                lower_lps_mm=_triple(corners.min(axis=0)),
                upper_lps_mm=_triple(corners.max(axis=0)),
            )
        )
    return boxes


def span_of(box: LevelBox, affine: Affine, shape: tuple[int, ...]) -> Span:
    """Return the voxels of a grid that a box touches."""
    inverse = np.linalg.inv(affine)
    corners = corners_of(np.array(box.lower_lps_mm), np.array(box.upper_lps_mm))
    at = corners @ inverse[:3, :3].T + inverse[:3, 3]
    low = np.floor(at.min(axis=0) + 0.5 + 1e-6).astype(int)
    high = np.ceil(at.max(axis=0) + 0.5 - 1e-6).astype(int)
    spans = [
        slice(int(np.clip(a, 0, n)), int(np.clip(b, 0, n)))
        for a, b, n in zip(low, high, shape, strict=True)
    ]
    return spans[0], spans[1], spans[2]


def cut(volume: npt.NDArray[np.generic], span: Span) -> npt.NDArray[np.generic]:
    """Return a copy of the voxels of a span."""
    return volume[span].copy()


def paste(
    volume: npt.NDArray[np.integer],
    part: npt.NDArray[np.integer],
    span: Span,
    label: int,
) -> None:
    """Write one label of a part that was cut out back to where it came from."""
    volume[span][part == label] = label


def corners_of(
    low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the eight corners of a box, shape (8, 3)."""
    picks = np.array([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)])
    return np.asarray(low + picks * (high - low))


def _triple(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (round(float(value), 6) for value in values)
    return x, y, z
