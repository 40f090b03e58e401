"""Boxes around vertebrae: the same in any grid; cut and paste back change nothing."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from csfd_core.crops.boxes import boxes_of_levels, cut, paste, span_of

Labels = npt.NDArray[np.uint8]
Affine = npt.NDArray[np.float64]
masks = arrays(np.uint8, (5, 6, 7), elements=st.integers(0, 9))
# Rows to the back, columns to the left, slices to the feet, as in most CT studies.
AFFINE = np.array(
    [[0, 0, 0.5, -40.0], [0, 0.75, 0, -120.0], [-2.0, 0, 0, 300.0], [0, 0, 0, 1]]
)


def flipped(mask: Labels, affine: Affine, axis: int) -> tuple[Labels, Affine]:
    """The same voxels stored the other way round."""
    turned = affine.copy()
    turned[:3, axis] = -affine[:3, axis]
    turned[:3, 3] = affine[:3, 3] + affine[:3, axis] * (mask.shape[axis] - 1)
    return np.flip(mask, axis), turned


def divided(
    mask: Labels, affine: Affine, axis: int, parts: int
) -> tuple[Labels, Affine]:
    """The same body in voxels that are thinner along one axis."""
    finer = affine.copy()
    finer[:3, axis] = affine[:3, axis] / parts
    finer[:3, 3] = affine[:3, 3] - affine[:3, axis] * (0.5 - 0.5 / parts)
    return np.repeat(mask, parts, axis), finer


@settings(deadline=None, max_examples=80)
@given(masks, st.integers(0, 2), st.integers(1, 4), st.permutations(range(3)))
def test_boxes_do_not_depend_on_how_the_grid_is_stored(
    mask: Labels, axis: int, parts: int, order: list[int]
) -> None:
    expected = boxes_of_levels(mask, AFFINE)
    assert boxes_of_levels(*flipped(mask, AFFINE, axis)) == expected
    finer = boxes_of_levels(*divided(mask, AFFINE, axis, parts))
    for box, other in zip(finer, expected, strict=True):
        assert box.level == other.level
        assert box.lower_lps_mm == pytest.approx(other.lower_lps_mm, abs=1e-4)
        assert box.upper_lps_mm == pytest.approx(other.upper_lps_mm, abs=1e-4)
    moved = AFFINE[:, [*order, 3]]
    assert boxes_of_levels(mask.transpose(order), moved) == expected


@settings(deadline=None, max_examples=80)
@given(masks, st.booleans())
def test_cut_and_pasted_back_the_mask_is_the_same(
    mask: Labels, is_flipped: bool
) -> None:
    affine = AFFINE
    if is_flipped:
        mask, affine = flipped(mask, AFFINE, 0)
    pasted = np.zeros_like(mask)
    for box in boxes_of_levels(mask, affine):
        span = span_of(box, affine, mask.shape)
        label = int(box.level[1])
        paste(pasted, np.asarray(cut(mask, span), dtype=np.uint8), span, label)
    np.testing.assert_array_equal(pasted, np.where(mask <= 7, mask, 0))


def test_box_reaches_to_the_faces_of_its_voxels() -> None:
    mask = np.zeros((5, 6, 7), dtype=np.uint8)
    mask[1:3, 2, 4] = 3
    (box,) = boxes_of_levels(mask, AFFINE)
    assert box.level == "C3"
    assert box.lower_lps_mm == pytest.approx((-38.25, -118.875, 295.0))
    assert box.upper_lps_mm == pytest.approx((-37.75, -118.125, 299.0))
    assert box.size_lps_mm.tolist() == pytest.approx([0.5, 0.75, 4.0])
    assert box.grown(1.0).size_lps_mm.tolist() == pytest.approx([2.5, 2.75, 6.0])


def test_margin_beyond_the_scan_is_left_out_of_the_span() -> None:
    mask = np.zeros((5, 6, 7), dtype=np.uint8)
    mask[0, 0, 0] = 1
    (box,) = boxes_of_levels(mask, AFFINE)
    span = span_of(box.grown(100.0), AFFINE, mask.shape)
    assert [(part.start, part.stop) for part in span] == [(0, 5), (0, 6), (0, 7)]


def test_thoracic_vertebrae_have_no_box() -> None:
    assert boxes_of_levels(np.full((3, 3, 3), 8, dtype=np.uint8), AFFINE) == []
