"""Choices, colours and cuts behind the pictures."""

import numpy as np
import pytest
from support.dicom_studies import neck_mask
from support.eda_source import MASKED

from csfd_core.reports.eda.images import midline_column, read_images
from csfd_core.reports.eda.pictures import around, random_masked_slices, random_slices
from csfd_core.reports.eda.sampling import ranked
from csfd_core.reports.palette import (
    ink_on,
    label_name,
    level_colour,
    overlay,
    paint,
    to_rgb,
)
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_COLOURS, LEVEL_NAMES


def test_choice_of_studies_is_fixed_and_stable() -> None:
    names = [f"1.2.{i}" for i in range(20)]
    order = ranked(names, "film")
    assert order == ranked(reversed(names), "film")
    assert order != ranked(names, "slices")
    more = [name for name in ranked([*names, "1.3"], "film") if name != "1.3"]
    assert more == order


@pytest.mark.parametrize("count", [1, 5, 12, 400])
def test_random_slices_go_from_top_to_bottom(count: int) -> None:
    indices = random_slices(count, MASKED)
    assert len(indices) == min(count, 12)
    assert indices == sorted(set(indices))
    assert 0 <= indices[0] <= indices[-1] < count
    assert indices == random_slices(count, MASKED)


def test_overlay_changes_the_mask_only() -> None:
    grey = np.arange(16, dtype=np.uint8).reshape(4, 4) * 10
    mask = np.zeros((4, 4), dtype=np.uint8)
    mask[1, 2] = 3
    mixed = overlay(grey, mask, 0.5)
    expected = np.rint(0.5 * 60 + 0.5 * np.array(to_rgb(LEVEL_COLOURS["C3"])))
    assert mixed[1, 2].tolist() == expected.tolist()
    outside = mask == 0
    for channel in range(3):
        np.testing.assert_array_equal(mixed[outside][:, channel], grey[outside])


def test_every_level_has_its_colour_in_a_painted_mask() -> None:
    painted = paint(np.arange(20, dtype=np.uint8)[None])
    assert painted[0, 0].tolist() == [0, 0, 0]
    for label, name in enumerate(LEVEL_NAMES, start=1):
        assert tuple(painted[0, label].tolist()) == to_rgb(LEVEL_COLOURS[name])
    assert label_name(8) == "T1"
    assert label_name(19) == "T12"


@pytest.mark.parametrize("name", [*LEVEL_NAMES, "T1"])
def test_names_stand_out_from_their_colour(name: str) -> None:
    def luminance(rgb: tuple[int, int, int]) -> float:
        parts = np.array(rgb) / 255
        curved = ((parts + 0.055) / 1.055) ** 2.4
        linear = np.where(parts <= 0.04045, parts / 12.92, curved)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    colour = level_colour(name)
    ink = 1.0 if ink_on(colour) == "white" else 0.0
    pair = sorted([ink, luminance(to_rgb(colour))])
    assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5  # WCAG 2.2, 1.4.3


def test_cut_holds_the_whole_mask_and_lies_within_the_image() -> None:
    for place in ((0, 0), (60, 60), (30, 5)):
        mask = np.zeros((64, 64), dtype=np.uint8)
        mask[place[0] : place[0] + 4, place[1] : place[1] + 3] = 1
        rows, columns = around(mask)
        assert mask[rows, columns].sum() == mask.sum()
        assert mask[rows, columns].shape == (48, 48)


def test_side_view_goes_through_the_vertebrae() -> None:
    mask = neck_mask()
    column = midline_column(mask)
    assert set(np.unique(mask[:, :, column])) == set(range(8))
    assert midline_column(np.zeros((2, 4, 6), dtype=np.uint8)) == 3


def test_images_come_with_their_millimetres(stores: Stores) -> None:
    images = read_images(stores, MASKED)
    assert images.extent_mm == pytest.approx(46)
    assert images.z_mm[0] == 100
    assert images.rows_to_back
    assert images.mask is not None
    np.testing.assert_array_equal(images.mask, neck_mask())


def test_random_masked_slices_show_vertebrae(stores: Stores) -> None:
    slices = random_masked_slices(stores, [MASKED], 4)
    assert len(slices) == 4
    assert all(shown.mask.any() for shown in slices)
    assert len({shown.z_mm for shown in slices}) == 4
