"""Overlap and surface distances against closed forms and another implementation."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree

from csfd_core.evaluation.segmentation_metrics import (
    dice_score,
    level_scores,
    surface_scores_mm,
    swap_rate,
)

Mask = npt.NDArray[np.bool_]
masks = arrays(np.bool_, (6, 7, 8), elements=st.booleans())


def cube(low: int, high: int, size: int = 24) -> Mask:
    mask = np.zeros((size, size, size), dtype=np.bool_)
    mask[low:high, low:high, low:high] = True
    return mask


def brute_force(
    first: Mask, second: Mask, spacing: tuple[float, float, float]
) -> tuple[float, float]:
    """Distances between surface points by nearest neighbours, not by a map."""
    points = []
    for mask in (first, second):
        padded = np.pad(mask, 1)
        edge = padded & ~binary_erosion(padded)
        points.append((np.argwhere(edge) - 1) * np.array(spacing))
    there = cKDTree(points[1]).query(points[0])[0]
    back = cKDTree(points[0]).query(points[1])[0]
    average = np.concatenate([there, back]).mean()
    return float(average), float(max(np.percentile(there, 95), np.percentile(back, 95)))


@settings(deadline=None, max_examples=60)
@given(masks, masks)
def test_dice_is_symmetric_and_between_zero_and_one(first: Mask, second: Mask) -> None:
    score = dice_score(first, second)
    if not (first.any() or second.any()):
        assert math.isnan(score)
        return
    assert score == dice_score(second, first)
    assert 0 <= score <= 1
    assert (score == 1) == bool((first == second).all())


@settings(deadline=None, max_examples=60)
@given(masks, masks, st.tuples(*[st.floats(0.3, 3.0)] * 3))
def test_surface_distances_agree_with_nearest_neighbours(
    first: Mask, second: Mask, spacing: tuple[float, float, float]
) -> None:
    found = surface_scores_mm(first, second, spacing)
    if not (first.any() and second.any()):
        assert all(math.isnan(value) for value in found)
        return
    assert found == pytest.approx(brute_force(first, second, spacing), abs=1e-6)
    assert found == pytest.approx(surface_scores_mm(second, first, spacing))


def test_dice_of_a_shifted_cube() -> None:
    first, second = cube(4, 14), np.roll(cube(4, 14), 3, axis=0)
    assert dice_score(first, second) == pytest.approx(0.7)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 0.5, 0.7)])
def test_hausdorff_of_planes_is_their_distance(
    spacing: tuple[float, float, float],
) -> None:
    first = np.zeros((20, 9, 9), dtype=np.bool_)
    second = first.copy()
    first[4], second[11] = True, True
    assert surface_scores_mm(first, second, spacing) == pytest.approx(
        (7 * spacing[0],) * 2
    )


def test_nested_cubes_have_known_distances() -> None:
    # Every face of the inner cube lies 2 voxels within the outer one.
    average, hd95 = surface_scores_mm(cube(4, 20), cube(6, 18), (1.0, 1.0, 1.0))
    assert average == pytest.approx(brute_force(cube(4, 20), cube(6, 18), (1, 1, 1))[0])
    assert 2.0 <= average <= 2 * math.sqrt(3)
    assert 2.0 <= hd95 <= 2 * math.sqrt(3)


def test_equal_masks_have_no_distance() -> None:
    assert surface_scores_mm(cube(3, 9), cube(3, 9), (1.0, 1.0, 1.0)) == (0.0, 0.0)


def test_levels_shifted_by_one_are_swapped_and_others_not() -> None:
    given_mask = np.zeros((35, 6, 6), dtype=np.uint8)
    for level in range(1, 8):
        given_mask[5 * (level - 1) : 5 * level] = level
    right = level_scores(given_mask, given_mask, (1.0, 1.0, 1.0))
    assert swap_rate(right) == 0
    shifted = np.where(given_mask == 3, 4, given_mask)
    scores = level_scores(shifted, given_mask, (1.0, 1.0, 1.0))
    assert [score.level for score in scores if score.is_swapped] == ["C3"]
    assert swap_rate(scores) == pytest.approx(1 / 7)


def test_missed_level_scores_zero_and_is_no_swap() -> None:
    given_mask = np.zeros((8, 8, 8), dtype=np.uint8)
    given_mask[2:6, 2:6, 2:6] = 5
    (score,) = level_scores(np.zeros_like(given_mask), given_mask, (1.0, 1.0, 1.0))
    assert (score.level, score.dice_score, score.is_swapped) == ("C5", 0.0, False)
    assert math.isnan(score.hd95_mm)


def test_thoracic_labels_are_no_levels() -> None:
    mask = np.full((4, 4, 4), 8, dtype=np.uint8)
    assert level_scores(mask, mask, (1.0, 1.0, 1.0)) == []
