"""Voxel grids, and the frames of bones within them.

World coordinates are those of DICOM: x to the patient's left, y to the back, z to the
head, in mm. A bone is drawn in its own frame with the same three directions.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float64]
Box = tuple[slice, slice, slice]  # of voxels, axes z, y, x
Bounds = tuple[Vector, Vector]  # lower and upper corner, x y z

_CORNERS: Final = np.array(
    [[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)], dtype=np.float64
)


@dataclass(frozen=True, slots=True)
class Grid:
    """Centres of the voxels of an axial volume along its three axes, in mm."""

    x_mm: Float  # shape (W,), rising
    y_mm: Float  # shape (H,), rising
    z_mm: Float  # shape (Z,), rising or falling
    spacing_zyx_mm: tuple[float, float, float]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return the counts (Z, H, W)."""
        return self.z_mm.size, self.y_mm.size, self.x_mm.size

    @property
    def voxel_mm(self) -> float:
        """Return the width over which an edge is blurred by the voxel size."""
        return float(np.prod(self.spacing_zyx_mm) ** (1 / 3))

    def box_of(self, lower: Vector, upper: Vector) -> Box:
        """Return the voxels within a box of world coordinates (x, y, z)."""
        return (
            _span(self.z_mm, lower[2], upper[2]),
            _span(self.y_mm, lower[1], upper[1]),
            _span(self.x_mm, lower[0], upper[0]),
        )


def _span(axis: Float, lower: float, upper: float) -> slice:
    if axis.size > 1 and axis[1] < axis[0]:
        stop, start = axis.size - np.searchsorted(axis[::-1], (lower, upper))
        return slice(int(start), int(stop))
    start, stop = np.searchsorted(axis, (lower, upper))
    return slice(int(start), int(stop))


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a bone lies: world = centre + scale * rotation @ local."""

    centre: Vector  # mm, x y z
    rotation: Vector  # shape (3, 3); columns are the local axes
    scale: float = 1.0

    def to_world(self, point: tuple[float, float, float] | Vector) -> Vector:
        """Return the world position of a local point (x, y, z)."""
        moved = self.rotation @ np.asarray(point, dtype=np.float64)
        return np.asarray(self.centre + self.scale * moved, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class LocalGrid:
    """Local coordinates of the voxels in a box around a bone, shape (z, y, x) each."""

    grid: Grid
    frame: Frame
    box: Box
    x: Float
    y: Float
    z: Float

    def within(self, bounds: Bounds) -> Box:
        """Return the part of the box, as indices into it, that holds local bounds."""
        inner = _world_box(self.grid, self.frame, bounds)
        return relative(inner, self.box)


def rotation_of(pitch: float, roll: float, yaw: float) -> Vector:
    """Return the rotation of a bone from three angles in radians.

    Args:
        pitch: Forward lean of the upper side.
        roll: Lean of the upper side to the patient's left.
        yaw: Turn about the long axis.
    """
    cp, sp, cr, sr = np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    cy, sy = np.cos(yaw), np.sin(yaw)
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_y = np.array([[cr, 0, sr], [0, 1, 0], [-sr, 0, cr]])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x, dtype=np.float64)


def local_grid(grid: Grid, frame: Frame, bounds: Bounds) -> LocalGrid | None:
    """Return the voxels that hold local ``bounds``; None if the volume has none."""
    box = _world_box(grid, frame, bounds)
    if any(s.stop <= s.start for s in box):
        return None
    inverse = (frame.rotation.T / frame.scale).astype(np.float32)
    centre = frame.centre.astype(np.float32)
    z = (grid.z_mm[box[0]] - centre[2])[:, None, None]
    y = (grid.y_mm[box[1]] - centre[1])[:, None]
    x = grid.x_mm[box[2]] - centre[0]
    axes = [
        (inverse[i, 0] * x + inverse[i, 1] * y) + inverse[i, 2] * z for i in range(3)
    ]
    return LocalGrid(grid, frame, box, axes[0], axes[1], axes[2])


def _world_box(grid: Grid, frame: Frame, bounds: Bounds) -> Box:
    lower, upper = bounds
    corners = lower + _CORNERS * (upper - lower)
    world = frame.centre + frame.scale * corners @ frame.rotation.T
    return grid.box_of(world.min(axis=0), world.max(axis=0))


def intersect(first: Box, second: Box) -> Box | None:
    """Return the voxels in both boxes; None if they are apart."""
    spans = []
    for a, b in zip(first, second, strict=True):
        start, stop = max(a.start, b.start), min(a.stop, b.stop)
        if stop <= start:
            return None
        spans.append(slice(start, stop))
    return spans[0], spans[1], spans[2]


def relative(inner: Box, outer: Box) -> Box:
    """Return the part of ``inner`` within ``outer`` as indices into ``outer``."""
    spans = []
    for i, o in zip(inner, outer, strict=True):
        start = min(max(i.start, o.start), o.stop)
        stop = max(min(i.stop, o.stop), start)
        spans.append(slice(start - o.start, stop - o.start))
    return spans[0], spans[1], spans[2]
