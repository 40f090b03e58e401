"""From the slices of a study to isotropic grids, and back.

A study's slices may lie in any orientation. ``Axes`` turns them so that the axes run to
the feet, the back and the patient's left; everything else here is in that order, called
zyx. Distances are in mm from the middle of the first voxel of the turned volume.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from nibabel.orientations import io_orientation

from csfd_core.dicom.geometry import VolumeGeometry

Float = npt.NDArray[np.float32]
Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Axes:
    """How to turn an array (slice, row, column) to (feet, back, left)."""

    order: tuple[int, int, int]  # which axis of the slices each turned axis is
    flipped: tuple[bool, bool, bool]  # of the turned axes

    @classmethod
    def of(cls, affine_lps: npt.NDArray[np.float64]) -> "Axes":
        """Choose, for each direction, the axis of the slices that runs most along it.

        Args:
            affine_lps: Maps (slice, row, column, 1) to LPS mm, shape (4, 4).
        """
        turned = _TO_FEET_BACK_LEFT @ affine_lps
        orientation = io_orientation(turned)  # type: ignore[no-untyped-call]  # no types
        axes = [int(axis) for axis in np.argsort(orientation[:, 0])]
        flipped = [bool(orientation[axis, 1] < 0) for axis in axes]
        return cls((axes[0], axes[1], axes[2]), (flipped[0], flipped[1], flipped[2]))

    def turn(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Return a view (slice, row, column) as (feet, back, left)."""
        turned = values.transpose(self.order)
        return turned[tuple(slice(None, None, -1 if f else 1) for f in self.flipped)]

    def turn_back(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Undo ``turn``."""
        flipped = values[tuple(slice(None, None, -1 if f else 1) for f in self.flipped)]
        return flipped.transpose([self.order.index(i) for i in range(3)])

    def pick(self, values: tuple[float, ...]) -> Triple:
        """Reorder one number per axis of the slices."""
        z, y, x = (values[axis] for axis in self.order)
        return z, y, x

    @property
    def is_mirrored(self) -> bool:
        """Whether an axis of the slices runs to the head, the front or the right."""
        return any(self.flipped)


# From LPS: z rises to the head, y to the back, x to the left.
_TO_FEET_BACK_LEFT: Final = np.array(
    [[0, 0, -1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced:
    """A turned study whose voxels were averaged, and the full grid it stands for."""

    grey: npt.NDArray[np.uint8]  # (Z, Y, X)
    factors: Triple  # full voxels in one of these, per axis
    full_shape: tuple[int, int, int]
    full_spacing_mm: Triple
    axes: Axes

    def middles_mm(self, axis: int) -> npt.NDArray[np.float64]:
        """Return where the voxels of ``grey`` lie along an axis."""
        factor, step = self.factors[axis], self.full_spacing_mm[axis]
        count = self.grey.shape[axis]
        return np.asarray(((np.arange(count) + 0.5) * factor - 0.5) * step)

    @property
    def extent_mm(self) -> Triple:
        """Distance from the first to the last full voxel along each axis."""
        z, y, x = (
            (n - 1) * mm
            for n, mm in zip(self.full_shape, self.full_spacing_mm, strict=True)
        )
        return z, y, x


def reduced_axes(geometry: VolumeGeometry) -> tuple[Axes, Triple, tuple[int, int, int]]:
    """Return how a study turns, and its spacing and shape in turned order."""
    axes = Axes.of(geometry.affine())
    spacing = axes.pick(geometry.spacing_zyx_mm)
    z, y, x = (geometry.shape_zyx[axis] for axis in axes.order)
    return axes, spacing, (z, y, x)


def grid_points_mm(
    centre_mm: float, count: int, step_mm: float
) -> npt.NDArray[np.float64]:
    """Return the positions of a grid along one axis."""
    return np.asarray(centre_mm + (np.arange(count) - (count - 1) / 2) * step_mm)


def resample(
    volume: Reduced, centre_mm: Triple, shape: tuple[int, int, int], step_mm: float
) -> Float:
    """Return grey levels 0..1 on a grid around a point; air outside the scan.

    Where the grid is coarser than the volume, voxels are averaged over its cells.
    """
    grey = volume.grey
    weights = []
    for axis in range(3):
        at = grid_points_mm(centre_mm[axis], shape[axis], step_mm)
        weights.append(resampling_weights(volume.middles_mm(axis), at, step_mm))
    # Only the voxels that matter, before anything is turned into floats.
    spans = [_span_of(matrix) for matrix in weights]
    cut = grey[tuple(spans)].astype(np.float32)
    z, y, x = (
        matrix[:, span].astype(np.float32)
        for matrix, span in zip(weights, spans, strict=True)
    )
    by_z = np.tensordot(z, cut, axes=(1, 0))
    by_y = np.matmul(y, by_z)
    return np.asarray(np.matmul(by_y, x.T) / np.float32(255), dtype=np.float32)


def resampling_weights(
    source: npt.NDArray[np.floating], wanted: npt.NDArray[np.floating], step_mm: float
) -> npt.NDArray[np.float64]:
    """Return the matrix (wanted, source) that resamples one axis.

    Linear interpolation between positions; the mean over cells of ``step_mm`` where
    those hold several positions. Rows outside the source are zero.
    """
    gap = float(np.median(np.diff(source))) if source.size > 1 else step_mm
    width = max(step_mm if step_mm > 1.4 * gap else gap, gap)
    distance = np.abs(wanted[:, None] - source[None, :])
    if width > gap:  # share of each cell that a source voxel covers
        weights = np.clip((width + gap) / 2 - distance, 0, gap) / width
    else:
        weights = np.clip(1 - distance / gap, 0, None)
    sums = weights.sum(axis=1, keepdims=True)
    inside = (wanted > source[0] - gap) & (wanted < source[-1] + gap)
    usable = inside[:, None] & (sums > 1e-6)
    return np.asarray(np.where(usable, weights / np.maximum(sums, 1e-6), 0.0))


def _span_of(matrix: npt.NDArray[np.float64]) -> slice:
    used = np.flatnonzero(matrix.any(axis=0))
    return slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 1)
