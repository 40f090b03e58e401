"""Fracture boxes on the crops: at the pixels of what they surround."""

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy import ndimage

from csfd_core.crops.boxes import boxes_of_levels
from csfd_core.crops.cutting import CropConfig, TurnedScan, cut_level
from csfd_core.crops.study import MaskedStudy, StudyFacts, cut_study
from csfd_core.dicom.geometry import VolumeGeometry

CONFIG = CropConfig(slices=5, neighbours=0, side_px=40, pixel_mm=0.5, margin_mm=0.0)
# Slices to the feet, rows to the back, columns to the left; three different spacings.
AFFINE = np.array(
    [[0, 0, 0.6, -21.0], [0, 0.9, 0, -80.0], [-2.0, 0, 0, 150.0], [0, 0, 0, 1]]
)
SHAPE = (14, 40, 50)
# What is broken is bright: slices 5 and 6, rows 18 and 19, columns 27 to 31.
BROKEN = (slice(5, 7), slice(18, 20), slice(27, 32))
Affine = npt.NDArray[np.float64]
Flips = tuple[bool, bool, bool]


def make_volumes() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    grey, mask = np.zeros((2, *SHAPE), dtype=np.uint8)
    grey[BROKEN] = 200
    mask[3:11, 14:26, 20:36] = 5
    return grey, mask


def make_boxes(flips: Flips = (False,) * 3) -> pd.DataFrame:
    """The boxes of the broken part as the table has them: x, y of the first pixel."""
    rows = []
    for index in (5, 6):
        x, y = 27, 18
        if flips[2]:
            x = SHAPE[2] - 32
        if flips[1]:
            y = SHAPE[1] - 20
        at = SHAPE[0] - 1 - index if flips[0] else index
        rows.append({"x": x, "y": y, "width": 5, "height": 2, "slice_index": at})
    return pd.DataFrame(rows)


def cut_rows(
    boxes: pd.DataFrame | None, label: int | None = 1, flips: Flips = (False,) * 3
) -> list[dict]:
    grey, mask = make_volumes()
    affine = AFFINE.copy()
    for axis in np.flatnonzero(flips):
        affine[:3, 3] += affine[:3, axis] * (SHAPE[axis] - 1)
        affine[:3, axis] *= -1
    axes = np.flatnonzero(flips)
    study = MaskedStudy(
        grey=np.flip(grey, axes),
        mask=np.flip(mask, axes),
        geometry=VolumeGeometry(
            shape_zyx=SHAPE,
            spacing_zyx_mm=(2.0, 0.9, 0.6),
            affine_lps=tuple(tuple(row) for row in affine.tolist()),
            z_extent_mm=26.0,
            z_descending=True,
        ),
        levels={},
    )
    facts = StudyFacts(labels={"C5": label}, boxes=boxes, fold=0, is_test=False)
    return cut_study(study, facts, CONFIG)


@pytest.mark.parametrize(
    "flips",
    [
        (False, False, False),
        (True, False, False),
        (False, True, False),
        (False, False, True),
        (True, True, True),
    ],
    ids=["as it is", "slices", "rows", "columns", "all"],
)
def test_a_box_lies_on_the_bright_pixels_of_the_crop(flips: Flips) -> None:
    rows = cut_rows(make_boxes(flips), flips=flips)
    marked = [row["crop_index"] for row in rows if row["boxes"]]
    brightest = max(int(np.frombuffer(r["image"], np.uint8).max()) for r in rows)
    seen = [
        row["crop_index"]
        for row in rows
        if np.frombuffer(row["image"], np.uint8).max() == brightest
    ]
    assert brightest > 150
    assert set(seen) <= set(marked)
    image = np.frombuffer(rows[seen[0]]["image"], np.uint8).reshape(40, 40)
    row0, column0, row1, column1 = np.array(rows[seen[0]]["boxes"][:4])
    centre = ndimage.center_of_mass(image.astype(float))
    assert (row0 + row1) / 2 == pytest.approx(centre[0], abs=0.3)
    assert (column0 + column1) / 2 == pytest.approx(centre[1], abs=0.3)
    # Two rows of 0.9 mm and five columns of 0.6 mm in pixels of 0.5 mm.
    assert row1 - row0 == pytest.approx(3.6, abs=0.02)
    assert column1 - column0 == pytest.approx(6.0, abs=0.02)
    bright = image > 100
    edges = np.array([np.arange(40) - 0.5, np.arange(40) + 0.5])
    inside_rows = (edges[1] > row0) & (edges[0] < row1)
    inside_columns = (edges[1] > column0) & (edges[0] < column1)
    assert not bright[~inside_rows].any()
    assert not bright[:, ~inside_columns].any()


def test_boxes_do_not_depend_on_how_the_study_is_stored() -> None:
    expected = [row["boxes"] for row in cut_rows(make_boxes())]
    for flips in ((True, False, False), (False, True, True), (True, True, True)):
        found = [row["boxes"] for row in cut_rows(make_boxes(flips), flips=flips)]
        for one, other in zip(found, expected, strict=True):
            # The same boxes; their order follows the slices, which are turned.
            pairs = [sorted(np.reshape(b, (-1, 4)).tolist()) for b in (one, other)]
            assert np.array(pairs[0]) == pytest.approx(np.array(pairs[1]), abs=0.02)


def test_order_of_the_boxes_in_the_table_does_not_matter() -> None:
    boxes = make_boxes()
    turned = cut_rows(boxes[::-1].reset_index(drop=True))
    for row, other in zip(turned, cut_rows(boxes), strict=True):
        pairs = [sorted(np.reshape(r["boxes"], (-1, 4)).tolist()) for r in (row, other)]
        assert pairs[0] == pairs[1]


def test_a_slice_is_labelled_where_a_box_lies_on_it() -> None:
    rows = cut_rows(make_boxes())
    # Slices 3.2 mm apart from the upper face of the mask, 5 mm below the first voxel;
    # the boxes are 10 and 12 mm below it.
    grey, mask = make_volumes()
    scan = TurnedScan.of(grey, mask, AFFINE)
    crop = cut_level(scan, boxes_of_levels(mask, AFFINE)[0], CONFIG)
    assert crop.middles_mm.tolist() == pytest.approx([6.6, 9.8, 13.0, 16.2, 19.4])
    assert [len(row["boxes"]) // 4 for row in rows] == [0, 1, 1, 0, 0]
    assert [row["slice_label"] for row in rows] == [0, 1, 1, 0, 0]


def test_boxes_are_unknown_where_nobody_drew_any() -> None:
    assert [row["boxes"] for row in cut_rows(None)] == [None] * 5
    assert [row["slice_label"] for row in cut_rows(None)] == [None] * 5
    assert [row["boxes"] for row in cut_rows(make_boxes(), label=None)] == [None] * 5


def test_a_whole_vertebra_has_no_boxes_without_anybody_looking() -> None:
    rows = cut_rows(None, label=0)
    assert [row["boxes"] for row in rows] == [[]] * 5
    assert [row["slice_label"] for row in rows] == [0] * 5


def test_a_box_of_the_next_vertebra_says_nothing_of_this_one() -> None:
    boxes = make_boxes().assign(x=2)
    assert [row["boxes"] for row in cut_rows(boxes)] == [None] * 5
    assert [row["slice_label"] for row in cut_rows(boxes)] == [None] * 5
