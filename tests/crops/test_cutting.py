"""Crops: fixed millimetres, any orientation, labels of slices, storage."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy import ndimage

from csfd_core.crops.boxes import boxes_of_levels
from csfd_core.crops.cutting import CropConfig, TurnedScan, cut_level
from csfd_core.crops.study import (
    MaskedStudy,
    StudyFacts,
    cut_study,
    visible_shares,
)
from csfd_core.dicom.geometry import VolumeGeometry
from csfd_core.store.crops import CropStore
from csfd_core.store.locations import Location
from csfd_core.store.notes import CropNote, LevelNote

CONFIG = CropConfig(slices=4, neighbours=1, neighbour_mm=2.0, side_px=24, pixel_mm=1.0)
AFFINE = np.array(
    [[0, 0, 0.8, -30.0], [0, 0.8, 0, -90.0], [-1.5, 0, 0, 200.0], [0, 0, 0, 1]]
)
Grey = npt.NDArray[np.uint8]


def make_study() -> tuple[Grey, Grey]:
    """A grey ramp from head to feet, and a ball-shaped C4 off the middle."""
    z, y, x = np.mgrid[:40, :60, :70]
    grey = (z * 6).astype(np.uint8)
    ball = ((z - 18) * 1.5) ** 2 + ((y - 33) * 0.8) ** 2 + ((x - 25) * 0.8) ** 2 < 81
    return grey, (ball * 4).astype(np.uint8)


def geometry() -> VolumeGeometry:
    return VolumeGeometry(
        shape_zyx=(40, 60, 70),
        spacing_zyx_mm=(1.5, 0.8, 0.8),
        affine_lps=tuple(tuple(row) for row in AFFINE.tolist()),
        z_extent_mm=58.5,
        z_descending=True,
    )


def test_crop_is_centred_on_the_vertebra_and_keeps_its_size() -> None:
    grey, mask = make_study()
    scan = TurnedScan.of(grey, mask, AFFINE)
    (box,) = boxes_of_levels(mask, AFFINE)
    crop = cut_level(scan, box, CONFIG)
    assert crop.images.shape == (4, 3, 24, 24)
    assert crop.masks.shape == (4, 24, 24)
    rows, columns = np.nonzero(crop.masks[1])
    assert rows.mean() == pytest.approx(11.5, abs=0.6)
    assert columns.mean() == pytest.approx(11.5, abs=0.6)
    # A ball of radius 9 mm, cut 3.75 mm above its middle: pi * (81 - 3.75**2) mm2.
    assert (crop.masks[1] > 0).sum() == pytest.approx(np.pi * (81 - 14.1), rel=0.08)


def test_neighbours_lie_above_and_below_in_millimetres() -> None:
    grey, mask = make_study()
    scan = TurnedScan.of(grey, mask, AFFINE)
    crop = cut_level(scan, boxes_of_levels(mask, AFFINE)[0], CONFIG)
    middle = crop.images[:, 1, 12, 12].astype(float)
    # The ramp rises by 6 in 1.5 mm: 4 per mm, 8 from a slice to its neighbour.
    assert middle == pytest.approx(crop.middles_mm * 4, abs=1)
    assert crop.images[:, 2, 12, 12] - middle == pytest.approx(8, abs=1)
    assert middle - crop.images[:, 0, 12, 12] == pytest.approx(8, abs=1)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_crops_do_not_depend_on_the_direction_of_an_axis(axis: int) -> None:
    grey, mask = make_study()
    turned = AFFINE.copy()
    turned[:3, axis] = -AFFINE[:3, axis]
    turned[:3, 3] += AFFINE[:3, axis] * (grey.shape[axis] - 1)
    other = TurnedScan.of(np.flip(grey, axis), np.flip(mask, axis), turned)
    (box,) = boxes_of_levels(mask, AFFINE)
    expected = cut_level(TurnedScan.of(grey, mask, AFFINE), box, CONFIG)
    found = cut_level(other, box, CONFIG)
    np.testing.assert_array_equal(found.images, expected.images)
    np.testing.assert_array_equal(found.masks, expected.masks)


def cut_rows(label: int | None, boxes: pd.DataFrame | None) -> list[int | None]:
    grey, mask = make_study()
    study = MaskedStudy(grey=grey, mask=mask, geometry=geometry(), levels={})
    facts = StudyFacts(labels={"C4": label}, boxes=boxes, fold=2, is_test=False)
    return [row["slice_label"] for row in cut_study(study, facts, CONFIG)]


def fracture_box(slice_index: int, x: float = 22.0) -> pd.DataFrame:
    return pd.DataFrame(
        [{"x": x, "y": 30, "width": 6, "height": 6, "slice_index": slice_index}]
    )


def test_slice_labels_follow_the_fracture_boxes() -> None:
    assert cut_rows(1, fracture_box(slice_index=15)) == [0, 1, 0, 0]
    assert cut_rows(1, fracture_box(slice_index=24)) == [0, 0, 0, 1]


def test_box_beside_the_vertebra_marks_nothing() -> None:
    # Nor does it say that this vertebra's own fracture lies nowhere.
    assert cut_rows(1, fracture_box(slice_index=15, x=60.0)) == [None] * 4


def test_slice_labels_are_unknown_where_nobody_drew_boxes() -> None:
    assert cut_rows(1, None) == [None] * 4
    assert cut_rows(None, fracture_box(15)) == [None] * 4
    assert cut_rows(0, None) == [0] * 4


def test_a_cut_vertebra_is_partly_visible() -> None:
    levels = {
        name: LevelNote(
            volume_ml=volume_ml,
            confidence=0.9,
            is_cut=is_cut,
            centre_zyx_mm=(0.0, 0.0, 0.0),
        )
        for name, volume_ml, is_cut in (
            ("C5", 8.3, False),
            ("C6", 9.6, False),
            ("C7", 5.4, True),
        )
    }
    assert visible_shares(levels) == {"C5": 1.0, "C6": 1.0, "C7": 0.5}


def test_crops_come_back_from_the_store(tmp_path: Path) -> None:
    grey, mask = make_study()
    study = MaskedStudy(grey=grey, mask=mask, geometry=geometry(), levels={})
    facts = StudyFacts(labels={"C4": 1}, boxes=None, fold=2, is_test=True)
    rows = cut_study(study, facts, CONFIG)
    store = CropStore(Location(tmp_path))
    note = CropNote(
        study_uid="1.2.3",
        inputs="x",
        crop=CONFIG.to_note(),
        model_id="m",
        standing="unseen",
        levels=("C4",),
    )
    store.write("1.2.3", rows, note)
    images, masks = store.read_level("1.2.3", "C4")
    scan = TurnedScan.of(grey, mask, AFFINE)
    expected = cut_level(scan, boxes_of_levels(mask, AFFINE)[0], CONFIG)
    np.testing.assert_array_equal(images, expected.images)
    np.testing.assert_array_equal(masks, expected.masks)
    facts_table = store.read_facts("1.2.3").to_pydict()
    assert facts_table["fold"] == [2] * 4
    assert facts_table["is_test"] == [True] * 4
    assert facts_table["label"] == [1] * 4
    assert store.read_level("1.2.3", "C1")[0].shape == (0, 3, 24, 24)
    assert store.read_note("1.2.4") is None


def tilted(degrees: float) -> npt.NDArray[np.float64]:
    """The affine of a stack that is tilted about the axis from right to left."""
    sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    affine = AFFINE.copy()
    affine[:3, :3] = [[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]] @ AFFINE[:3, :3]
    return affine


@pytest.mark.parametrize("degrees", [-20.0, 20.0])
def test_crops_of_a_tilted_stack_are_those_of_the_same_voxels(degrees: float) -> None:
    grey, mask = make_study()
    mask[5:30, 20:50, 20:30] = 4  # long from front to back, as vertebrae are
    expected, found = (
        cut_level(
            TurnedScan.of(grey, mask, affine), boxes_of_levels(mask, affine)[0], CONFIG
        )
        for affine in (AFFINE, tilted(degrees))
    )
    assert found.middles_mm == pytest.approx(expected.middles_mm)
    np.testing.assert_array_equal(found.masks, expected.masks)
    np.testing.assert_array_equal(found.images, expected.images)


AFFINES = [AFFINE, tilted(-20.0), AFFINE[:, [1, 2, 0, 3]], AFFINE[:, [2, 0, 1, 3]]]


@pytest.mark.parametrize(
    "affine", AFFINES, ids=["axial", "tilted", "coronal", "sagittal"]
)
@pytest.mark.parametrize("flipped", [(), (0,), (0, 1, 2)])
def test_crops_are_the_scan_at_the_places_of_their_affine(
    affine: npt.NDArray[np.float64], flipped: tuple[int, ...]
) -> None:
    stored = affine.copy()
    mask = np.zeros((40, 60, 70), dtype=np.uint8)
    mask[10:30, 25:40, 15:35] = 4
    for axis in flipped:
        stored[:3, 3] += stored[:3, axis] * (mask.shape[axis] - 1)
        stored[:3, axis] *= -1
    mask = np.flip(mask, flipped)
    grey = np.random.default_rng(0).integers(0, 256, mask.shape).astype(np.uint8)
    (box,) = boxes_of_levels(mask, stored)
    crop = cut_level(TurnedScan.of(grey, mask, stored), box, CONFIG)
    to_voxels = np.linalg.inv(stored) @ crop.affine_lps
    floats = grey.astype(float)
    middle = crop.images[:, 1]
    expected = ndimage.affine_transform(floats, to_voxels, None, middle.shape, order=1)
    inside = ndimage.affine_transform(
        np.ones_like(floats), to_voxels, None, middle.shape, order=1
    )
    is_inside = inside > 1 - 1e-6
    assert is_inside.mean() > 0.5
    assert np.abs(middle - expected)[is_inside].max() < 0.51  # of a grey level
