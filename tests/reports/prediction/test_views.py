"""Planes of a study: what lies where on them, and which way they look."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from csfd_core.crops.study import MaskedStudy
from csfd_core.dicom.geometry import VolumeGeometry
from csfd_core.inference.evidence import Evidence
from csfd_core.reports.prediction.views import (
    AXES,
    Kind,
    Planes,
    View,
    letters,
)

SHAPE = (40, 90, 80)
SPACING = (2.0, 0.8, 0.6)
# A dense block: slices, rows and columns.
LOW, HIGH = (12, 50, 20), (18, 60, 35)


def axis(x: float, y: float, z: float) -> npt.NDArray[np.float64]:
    return np.array([x, y, z], dtype=float) / np.linalg.norm([x, y, z])


def study(columns_to: Sequence[float], rows_to: Sequence[float]) -> MaskedStudy:
    """A stack from head to feet.

    Args:
        columns_to: Where the columns of the array run to, as the index rises, in LPS.
        rows_to: Where its rows do.
    """
    right, down = axis(*columns_to), axis(*rows_to)
    normal = np.cross(right, down)
    normal *= -np.sign(normal[2])  # to the feet
    affine = np.eye(4)
    affine[:3, :3] = (np.array([normal, down, right]) * np.array(SPACING)[:, None]).T
    affine[:3, 3] = (-20, -60, 90)
    grey = np.full(SHAPE, 60, dtype=np.uint8)
    grey[tuple(slice(a, b) for a, b in zip(LOW, HIGH, strict=True))] = 250
    geometry = VolumeGeometry(
        shape_zyx=SHAPE,
        spacing_zyx_mm=SPACING,
        affine_lps=tuple(tuple(row) for row in affine.tolist()),
        z_extent_mm=78.0,
        z_descending=True,
    )
    return MaskedStudy(
        grey=grey, mask=np.zeros_like(grey), geometry=geometry, levels={}
    )


EVIDENCE = Evidence(
    peak_zyx=np.array([14.0, 55.0, 27.0]),
    lower=np.array(LOW) - 0.5,
    upper=np.array(HIGH) - 0.5,
    peak=1.0,
)
STUDIES: dict[str, Any] = {
    "as usual": ((1, 0, 0), (0, 1, 0)),
    "prone": ((-1, 0, 0), (0, -1, 0)),
    "columns to the right": ((-1, 0, 0), (0, 1, 0)),
    "tilted": ((1, 0, 0), (0, 0.94, 0.34)),
}


def pixels(view: View) -> npt.NDArray[np.uint8]:
    content = base64.b64decode(view.source.partition("base64,")[2])
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("kind", list(AXES))
@pytest.mark.parametrize("name", STUDIES)
def test_a_mark_lies_on_what_it_marks(name: str, kind: Kind) -> None:
    planes = Planes(study(*STUDIES[name]))
    place = planes.to_mm(EVIDENCE.peak_zyx)
    view = planes.view(kind, place[AXES[kind][0]], planes.around(place, kind, 40.0))
    mark = view.mark(planes.box_of(EVIDENCE, kind))
    seen = pixels(view)
    rows, columns = np.nonzero(seen > 155)  # between the block and what is around it
    height, width = seen.shape
    edges = [
        columns.min() / width,
        rows.min() / height,
        (columns.max() + 1) / width,
        (rows.max() + 1) / height,
    ]
    told = [mark.left, mark.top, mark.left + mark.width, mark.top + mark.height]
    assert 100 * np.array(edges) == pytest.approx(told, abs=0.7)
    ratio = view.field.width_mm / view.field.height_mm
    assert width / height == pytest.approx(ratio, abs=0.01)


@pytest.mark.parametrize("name", ["as usual", "prone", "columns to the right"])
def test_the_patients_right_is_at_the_left_and_the_front_on_top(name: str) -> None:
    planes = Planes(study(*STUDIES[name]))
    place = planes.to_mm(EVIDENCE.peak_zyx)
    axial = planes.view("axial", place[0], planes.whole("axial"))
    assert [axial.top, axial.right, axial.bottom, axial.left] == ["A", "L", "P", "R"]
    sagittal = planes.view("sagittal", place[2], planes.whole("sagittal"))
    found = [sagittal.top, sagittal.right, sagittal.bottom, sagittal.left]
    assert found == ["H", "P", "F", "A"]
    # What the letters say is so: the block lies where LPS has it.
    lps = planes.to_lps(place)
    middle = planes.to_lps(
        (np.array(planes.scan.grey.shape) - 1) / 2 * planes.scan.spacing_mm
    )
    rows, columns = np.nonzero(pixels(axial) > 155)
    height, width = pixels(axial).shape
    assert (columns.mean() > width / 2) == (lps[0] > middle[0])
    assert (rows.mean() > height / 2) == (lps[1] > middle[1])


def test_a_tilted_plane_has_two_letters() -> None:
    planes = Planes(study(*STUDIES["tilted"]))
    axial = planes.view("axial", 0.0, planes.whole("axial"))
    assert (axial.bottom, axial.top) == ("PH", "AF")
    assert (axial.left, axial.right) == ("R", "L")


def test_letters_are_those_of_dicom() -> None:
    assert letters(np.array([1.0, 0, 0])) == "L"
    assert letters(np.array([0.0, 0, -2.0])) == "F"
    assert letters(np.array([-0.5, 0.8, 0.1])) == "PR"


def test_a_field_at_the_edge_is_moved_into_the_scan() -> None:
    planes = Planes(study(*STUDIES["as usual"]))
    whole = planes.whole("axial")
    assert whole.width_mm == pytest.approx(80 * 0.6)
    assert whole.height_mm == pytest.approx(90 * 0.8)
    field = planes.around(np.array([10.0, 1.0, 47.0]), "axial", 30.0)
    assert (field.top, field.right) == pytest.approx((whole.top, whole.right))
    assert (field.width_mm, field.height_mm) == pytest.approx((30, 30))
    large = planes.around(np.array([10.0, 1.0, 47.0]), "axial", 500.0)
    assert (large.width_mm, large.height_mm) == pytest.approx((48, 72))
