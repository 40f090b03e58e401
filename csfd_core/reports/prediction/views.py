"""Planes of a study as a page shows them: true to millimetres, with their directions.

Every plane is shown as radiologists look at it: the patient's right at the left of an
axial plane, the front at the left of a sagittal one. What is drawn on a plane is told
in percent of its sides, so that the page can lay it over the picture at any size.
"""

import io
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from csfd_core.crops.cutting import TurnedScan
from csfd_core.crops.study import MaskedStudy
from csfd_core.inference.evidence import Evidence
from csfd_core.reports.render import data_uri

Vector = npt.NDArray[np.float64]
Kind = Literal["axial", "sagittal"]

# Of the turned axes (feet, back, left): which is looked along, runs down, runs right.
AXES: Final[dict[Kind, tuple[int, int, int]]] = {
    "axial": (0, 1, 2),
    "sagittal": (2, 0, 1),
}
_LETTERS: Final = (("L", "R"), ("P", "A"), ("H", "F"))  # along x, y and z of LPS
_SECOND_LETTER: Final = 0.17  # sine of 10 degrees
_WIDTH_PX: Final = 640
_QUALITY: Final = 88


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A part of a plane, in mm from the middle of its first voxel, to pixel edges."""

    top: float
    bottom: float
    left: float
    right: float

    @property
    def width_mm(self) -> float:
        """From left to right."""
        return self.right - self.left

    @property
    def height_mm(self) -> float:
        """From top to bottom."""
        return self.bottom - self.top


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A rectangle on a view, in percent of its sides."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A plane with its directions: letters of DICOM, as A for anterior."""

    source: str  # a data URI
    field: Field
    top: str
    right: str
    bottom: str
    left: str

    @property
    def ratio(self) -> str:
        """Width to height, as CSS has it."""
        return f"{self.field.width_mm:.3f} / {self.field.height_mm:.3f}"

    def share_across(self, mm: float) -> float:
        """Return where something lies from left to right, in percent."""
        return round(100 * (mm - self.field.left) / self.field.width_mm, 2)

    def share_down(self, mm: float) -> float:
        """Return where something lies from top to bottom, in percent."""
        return round(100 * (mm - self.field.top) / self.field.height_mm, 2)

    def mark(self, box: Field) -> Mark:
        """Return a rectangle, cut where it leaves the view."""
        left, right = (
            min(max(self.share_across(mm), 0), 100) for mm in (box.left, box.right)
        )
        top, bottom = (
            min(max(self.share_down(mm), 0), 100) for mm in (box.top, box.bottom)
        )
        return Mark(
            left=left,
            top=top,
            width=round(right - left, 2),
            height=round(bottom - top, 2),
        )


class Planes:
    """The planes of one study."""

    def __init__(self, study: MaskedStudy) -> None:
        """Take the study."""
        affine = study.geometry.affine()
        self.scan = TurnedScan.of(study.grey, study.mask, affine)
        self._spacing = np.array(self.scan.spacing_mm)
        self._to_mm = self.scan.lps_to_mm @ affine

    def to_mm(self, voxel: Vector) -> Vector:
        """Return the mm along the turned axes of a place (slice, row, column)."""
        return np.asarray(self._to_mm[:3, :3] @ voxel + self._to_mm[:3, 3])

    def to_lps(self, place_mm: Vector) -> Vector:
        """Return the LPS mm of a place in mm along the turned axes."""
        to_lps = np.linalg.inv(self.scan.lps_to_mm)
        return np.asarray(to_lps[:3, :3] @ place_mm + to_lps[:3, 3])

    def whole(self, kind: Kind) -> Field:
        """Return all of a plane, to the outer faces of its voxels."""
        _, down, across = AXES[kind]
        low = -self._spacing / 2
        high = low + np.array(self.scan.grey.shape) * self._spacing
        return Field(
            top=float(low[down]),
            bottom=float(high[down]),
            left=float(low[across]),
            right=float(high[across]),
        )

    def box_of(self, evidence: Evidence, kind: Kind) -> Field:
        """Return the box of an evidence as a plane shows it."""
        corners = np.array([self.to_mm(evidence.lower), self.to_mm(evidence.upper)])
        low, high = corners.min(axis=0), corners.max(axis=0)
        _, down, across = AXES[kind]
        return Field(
            top=float(low[down]),
            bottom=float(high[down]),
            left=float(low[across]),
            right=float(high[across]),
        )

    def around(self, place_mm: Vector, kind: Kind, side_mm: float) -> Field:
        """Return a square around a place, moved and cut to lie within the scan."""
        _, down, across = AXES[kind]
        whole = self.whole(kind)
        top, bottom = _within(whole.top, whole.bottom, place_mm[down], side_mm)
        left, right = _within(whole.left, whole.right, place_mm[across], side_mm)
        return Field(top=top, bottom=bottom, left=left, right=right)

    def view(self, kind: Kind, at_mm: float, field: Field) -> View:
        """Return a part of the plane nearest to a position along its normal."""
        along, down, across = AXES[kind]
        count = self.scan.grey.shape[along]
        index = int(np.clip(np.rint(at_mm / self._spacing[along]), 0, count - 1))
        plane = self.scan.grey.take(index, axis=along)
        rows, columns = self._spacing[down], self._spacing[across]
        box = (  # in pixels of the plane, from its outer corner
            field.left / columns + 0.5,
            field.top / rows + 0.5,
            field.right / columns + 0.5,
            field.bottom / rows + 0.5,
        )
        height = max(1, round(_WIDTH_PX * field.height_mm / field.width_mm))
        picture = Image.fromarray(np.ascontiguousarray(plane)).resize(
            (_WIDTH_PX, height), Image.Resampling.BICUBIC, box=box
        )
        directions: Vector = np.asarray(np.linalg.inv(self.scan.lps_to_mm)[:3, :3])
        to_bottom, to_right = directions[:, down], directions[:, across]
        return View(
            source=_jpeg(picture),
            field=field,
            top=letters(-to_bottom),
            right=letters(to_right),
            bottom=letters(to_bottom),
            left=letters(-to_right),
        )


def _within(low: float, high: float, middle: float, side: float) -> tuple[float, float]:
    side = min(side, high - low)
    start = float(min(max(middle - side / 2, low), high - side))
    return start, start + side


def letters(direction: Vector) -> str:
    """Return the letters of a direction in LPS, the strongest first, as in DICOM."""
    unit = direction / np.linalg.norm(direction)
    order = np.argsort(-np.abs(unit))
    strong = [axis for axis in order if abs(unit[axis]) > _SECOND_LETTER]
    return "".join(_LETTERS[axis][int(unit[axis] < 0)] for axis in strong)


def _jpeg(picture: Image.Image) -> str:
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=_QUALITY, optimize=True)
    return data_uri(sink.getvalue(), "image/jpeg")
