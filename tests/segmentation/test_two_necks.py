"""Two necks in one volume: nothing is told of either."""

import numpy as np
import numpy.typing as npt
import pytest

from csfd_core.classification.assessment import Assessment
from csfd_core.segmentation.columns import TWO_NECKS, shows_two_necks

STEP_MM = 6.0
Body = tuple[slice, slice, slice]
NECK: Body = (slice(10, 34), slice(15, 25), slice(8, 18))  # 144 mm high


def spine(*bodies: Body) -> npt.NDArray[np.float32]:
    found = np.full((48, 40, 56), 0.02, dtype=np.float32)
    for body in bodies:
        found[body] = 0.9
    return found


@pytest.mark.parametrize(
    ("beside", "is_two"),
    [
        ((slice(10, 34), slice(15, 25), slice(34, 44)), True),  # left of it
        ((slice(20, 44), slice(15, 25), slice(34, 44)), True),  # and lower
        ((slice(38, 48), slice(15, 25), slice(10, 20)), False),  # the same neck, below
        ((slice(36, 47), slice(15, 25), slice(34, 44)), False),  # beside, but below
        ((slice(10, 18), slice(15, 25), slice(34, 44)), False),  # too low for a neck
        ((slice(10, 34), slice(15, 25), slice(19, 22)), False),  # a part of it
    ],
)
def test_two_tall_bodies_side_by_side_are_two_necks(beside: Body, is_two: bool) -> None:
    assert shows_two_necks(spine(NECK, beside), STEP_MM) is is_two
    assert shows_two_necks(spine(beside, NECK), STEP_MM) is is_two


def test_one_neck_and_none_are_not_two() -> None:
    assert not shows_two_necks(spine(NECK), STEP_MM)
    assert not shows_two_necks(spine(), STEP_MM)


def test_two_necks_are_told_in_one_sentence_and_have_no_numbers() -> None:
    numbers = {"patient_overall": 0.5} | {f"C{level}": 0.5 for level in range(1, 8)}
    found = Assessment.of(numbers, ())
    assert found.needs_eyes([TWO_NECKS]) == (TWO_NECKS,)
    assert set(found.probabilities.values()) == {None}
