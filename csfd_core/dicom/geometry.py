"""Order of the slices of a volume and its place in the patient.

Frame: LPS (x towards the patient's left, y posterior, z superior), millimetres, as in
DICOM PS3.3 C.7.6.2. Volumes have the axis order (Z, H, W) = (slice from head to feet,
row, column).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from csfd_core.dicom.headers import SliceHeader

# By how much a slice may lie off an even grid. A tenth of the spacing is what scanners
# do; positions with one decimal are off by up to 0.05 mm.
_OFF_GRID: Final = 0.1
_OFF_GRID_MM: Final = 0.06
_ROUNDED: Final = 1e-5  # of a step; less is the arithmetic's


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeGeometry:
    """Where the voxels of an ordered stack of slices lie.

    ``affine_lps`` maps voxel indices (slice, row, column, 1) to LPS millimetres.
    """

    shape_zyx: tuple[int, int, int]
    spacing_zyx_mm: tuple[float, float, float]
    affine_lps: tuple[tuple[float, ...], ...]
    z_extent_mm: float
    z_descending: bool  # z falls as the instance number rises

    def affine(self) -> npt.NDArray[np.float64]:
        """Return the affine, shape ``(4, 4)``."""
        return np.array(self.affine_lps, dtype=np.float64)


def slice_normal(header: SliceHeader) -> npt.NDArray[np.float64]:
    """Return the unit normal of a slice, pointing towards the head.

    Raises:
        ValueError: If the header has no usable orientation.
    """
    if header.orientation is None:
        raise ValueError("A slice has no ImageOrientationPatient.")
    row, column = np.reshape(header.orientation, (2, 3))
    normal = np.cross(row, column)
    length = float(np.linalg.norm(normal))
    if length < 1e-3:
        raise ValueError("A slice has a degenerate orientation.")
    normal = normal / length
    # Towards the head; in a plane that holds the z axis, along the larger component.
    leading = 2 if abs(normal[2]) > 1e-3 else int(np.argmax(np.abs(normal)))
    return np.asarray(normal if normal[leading] > 0 else -normal)


def positions_along_normal_mm(
    headers: Sequence[SliceHeader],
) -> npt.NDArray[np.float64]:
    """Return the position of each slice along the first slice's normal, in mm.

    For plain axial slices this is z of ImagePositionPatient.
    """
    normal = slice_normal(headers[0])
    points = np.array([header.position_mm for header in headers], dtype=np.float64)
    return np.asarray(points @ normal)


def order_head_to_feet(headers: Sequence[SliceHeader]) -> list[SliceHeader]:
    """Sort slices along their normal, the one nearest the head first.

    File names and instance numbers do not matter, except that the latter break ties.
    """
    positions = positions_along_normal_mm(headers)
    numbers = [header.instance_number or 0 for header in headers]
    order = np.lexsort((np.array(numbers), -positions))
    return [headers[index] for index in order]


def is_even(positions_mm: npt.NDArray[np.float64]) -> bool:
    """Say whether sorted positions lie on an even grid, as one affine needs it.

    Judged by the distance from the grid that fits best, not gap by gap: rounded
    positions make uneven gaps, and small differences of gaps add up to large ones of
    places.
    """
    count = len(positions_mm)
    if count < 3:
        return True
    numbers = np.arange(count)
    step, start = np.polyfit(numbers, positions_mm, 1)
    off = np.abs(positions_mm - (start + step * numbers))
    gaps = np.abs(np.diff(positions_mm))
    # A gap of nothing is a repeated position, however fine the grid.
    return bool(
        off.max() <= max(_OFF_GRID * abs(step), _OFF_GRID_MM)
        and gaps.min() > abs(step) / 2
    )


def off_line_mm(ordered: Sequence[SliceHeader]) -> npt.NDArray[np.float64]:
    """Return how far each slice lies beside the line from the first to the last.

    In the plane of the slices, in mm; zero for a straight stack, sheared or not.
    """
    points = np.array([header.position_mm for header in ordered], dtype=np.float64)
    along = points @ slice_normal(ordered[0])
    span = along[-1] - along[0]
    share = (along - along[0]) / span if span else np.zeros(len(along))
    line = points[0] + share[:, None] * (points[-1] - points[0])
    return np.asarray(np.linalg.norm(points - line, axis=1))


def _step_mm(ordered: Sequence[SliceHeader]) -> npt.NDArray[np.float64]:
    """Return the vector from one slice to the next, shape ``(3,)``.

    Where positions are rounded, the one that fits all of them best is nearer to the
    truth than that between the first and the last.
    """
    points = np.array([header.position_mm for header in ordered], dtype=np.float64)
    count = len(points)
    if count < 2:
        return np.zeros(3)
    ends = np.asarray((points[-1] - points[0]) / (count - 1))
    if not is_even(positions_along_normal_mm(ordered)):
        return ends
    numbers = np.arange(count) - (count - 1) / 2
    fitted = numbers @ points / (numbers @ numbers)
    is_rounded = np.linalg.norm(fitted - ends) > _ROUNDED * np.linalg.norm(ends)
    return np.asarray(fitted if is_rounded else ends)


def build_geometry(ordered: Sequence[SliceHeader]) -> VolumeGeometry:
    """Describe a stack that is ordered head to feet and has passed its checks.

    Source of the affine: DICOM PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1.

    Raises:
        ValueError: If spacing, orientation or position is missing.
    """
    first, last = ordered[0], ordered[-1]
    if not (first.pixel_spacing_mm and first.position_mm and last.position_mm):
        raise ValueError("A slice has no position or no pixel spacing.")
    if not (first.rows and first.columns and first.orientation):
        raise ValueError("A slice has no size or no orientation.")
    row_spacing, column_spacing = first.pixel_spacing_mm
    along_row, along_column = np.reshape(first.orientation, (2, 3))
    step = _step_mm(ordered)
    extent = step * (len(ordered) - 1)
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = along_column * row_spacing
    affine[:3, 2] = along_row * column_spacing
    affine[:3, 3] = first.position_mm
    return VolumeGeometry(
        shape_zyx=(len(ordered), first.rows, first.columns),
        spacing_zyx_mm=(float(np.linalg.norm(step)), row_spacing, column_spacing),
        affine_lps=tuple(tuple(float(v) for v in row) for row in affine),
        z_extent_mm=float(np.linalg.norm(extent)),
        z_descending=(first.instance_number or 0) < (last.instance_number or 0),
    )
