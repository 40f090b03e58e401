"""Levels after cleaning, and what is flagged for a person to look at."""

import numpy as np
import numpy.typing as npt
import pytest

from csfd_core.segmentation.config import CLASSES
from csfd_core.segmentation.postprocess import (
    ScanGrid,
    clean_levels,
    is_plausible_volume,
    review,
)

GRID = ScanGrid(first_mm=(20.0, 0.0, 0.0), step_mm=1.5, depth_mm=220.0)
Labels = npt.NDArray[np.uint8]


def column(order: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7)) -> Labels:
    """Blocks of 8 x 14 x 14 voxels (C2: 16 deep), one below the other, 3 apart."""
    labels = np.zeros((90, 24, 24), dtype=np.uint8)
    for place, level in enumerate(order):
        depth = 19 if level != 2 else 21
        labels[5 + 11 * place : 13 + 11 * place, 5:depth, 5:19] = level
    return labels


def sure(labels: Labels, confidence: float = 0.9) -> npt.NDArray[np.float32]:
    rest = (1 - confidence) / (CLASSES - 1)
    values = np.full((*labels.shape, CLASSES), rest, dtype=np.float32)
    np.put_along_axis(values, labels[..., None].astype(np.intp), confidence, axis=-1)
    return values


def test_a_good_column_is_left_as_it_is_and_not_flagged() -> None:
    labels = column()
    cleaned = clean_levels(sure(labels), 1.5)
    np.testing.assert_array_equal(cleaned, labels)
    found = review(cleaned, sure(labels), GRID)
    assert found.flags == ()
    assert [level.level for level in found.levels] == [f"C{i}" for i in range(1, 8)]
    assert found.levels[0].volume_ml == pytest.approx(8 * 14 * 14 * 3.375 / 1000, 0.01)
    assert found.confidence == pytest.approx(0.9, abs=1e-4)


def test_far_stray_parts_go_and_touching_ones_join_their_neighbour() -> None:
    labels = column()
    far, touching = labels.copy(), labels.copy()
    far[80:84, 1:4, 1:4] = 2
    np.testing.assert_array_equal(clean_levels(sure(far), 1.5), labels)
    touching[38:41, 8:11, 8:11] = 7  # inside C4
    np.testing.assert_array_equal(clean_levels(sure(touching), 1.5), labels)


def test_a_fragment_beside_its_vertebra_stays() -> None:
    labels = column()
    labels[38:46, 20:23, 5:19] = 4  # a fragment of C4, one voxel away
    np.testing.assert_array_equal(clean_levels(sure(labels), 1.5), labels)


def test_specks_are_no_vertebrae() -> None:
    labels = np.zeros((40, 24, 24), dtype=np.uint8)
    labels[10:12, 10:12, 10:12] = 3
    cleaned = clean_levels(sure(labels), 1.5)
    assert not cleaned.any()
    found = review(cleaned, sure(labels), GRID)
    assert found.flags == ("No cervical vertebra was found.",)
    assert found.confidence == 0


def test_swapped_levels_are_flagged_and_not_relabelled() -> None:
    labels = column((1, 2, 4, 3, 5, 6, 7))
    cleaned = clean_levels(sure(labels), 1.5)
    np.testing.assert_array_equal(cleaned, labels)
    assert "C4 does not lie below C3." in review(cleaned, sure(labels), GRID).flags


def test_a_gap_is_flagged() -> None:
    labels = column()
    labels[labels == 4] = 0
    flags = review(labels, sure(labels), GRID).flags
    assert "C4 is missing between its neighbours." in flags


def test_levels_at_the_end_of_the_scan_are_cut_and_nothing_is_missing_there() -> None:
    labels = column()
    labels[labels > 5] = 0
    end_mm = 20.0 + 1.5 * 56  # C5 ends at voxel 56
    found = review(
        labels,
        sure(labels),
        ScanGrid(first_mm=GRID.first_mm, step_mm=1.5, depth_mm=end_mm),
    )
    assert [level.is_cut for level in found.levels] == [False] * 4 + [True]
    assert found.flags == ()
    open_ended = review(labels, sure(labels), GRID).flags
    assert open_ended == ("Nothing was found below C5, though the scan goes on.",)


def test_a_scan_that_shows_neither_end_of_the_neck_is_flagged() -> None:
    labels = column((3, 4, 5))
    within = ScanGrid(first_mm=(0.0, 0.0, 0.0), step_mm=1.5, depth_mm=44.0)
    (flag,) = review(labels[5:35], sure(labels)[5:35], within).flags
    assert flag.startswith("The scan begins at C3 and ends at C5:")
    top = ScanGrid(first_mm=(0.0, 0.0, 0.0), step_mm=1.5, depth_mm=300.0)
    assert "neither end" not in " ".join(
        review(labels[5:35], sure(labels)[5:35], top).flags
    )


def test_unsure_and_implausible_levels_are_flagged() -> None:
    labels = column()
    labels[41:46][labels[41:46] == 4] = 0
    labels[38:41, 10:19][labels[38:41, 10:19] == 4] = 0
    flags = review(labels, sure(labels, 0.4), GRID).flags
    assert any(flag.startswith("C4 has 0.") for flag in flags)
    assert "C2 is uncertain (40 %)." in flags


@pytest.mark.parametrize(
    ("volume_ml", "is_cut", "expected"),
    [
        (1.9, False, False),
        (1.9, True, True),  # the rest of it lies outside of the scan
        (2.0, False, True),
        (45.0, False, True),
        (45.1, False, False),
        (45.1, True, False),
    ],
)
def test_a_vertebra_has_2_to_45_ml_or_less_where_it_is_cut(
    volume_ml: float, is_cut: bool, expected: bool
) -> None:
    assert is_plausible_volume(volume_ml, is_cut=is_cut) is expected


def test_a_squeezed_level_is_flagged_as_a_possible_shift() -> None:
    labels = column()
    labels[42:46][labels[42:46] == 4] = 0
    flags = review(labels, sure(labels), GRID).flags
    assert flags == ("C4 is small beside the other levels; they may be shifted.",)
