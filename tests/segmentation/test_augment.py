"""What domain randomization does to a labelled volume."""

import numpy as np
import numpy.typing as npt

from csfd_core.segmentation.augment import cut_field_of_view

HEIGHT = 12  # voxels of each level
FIRST = 20  # voxels of scan above C1


def column(levels: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Levels below each other, C1 first, thoracic ones below C7, and some scan."""
    labels = np.zeros((FIRST + levels * HEIGHT + 20, 9, 9), dtype=np.uint8)
    for level in range(1, levels + 1):
        start = FIRST + (level - 1) * HEIGHT
        labels[start : start + HEIGHT, 3:6, 3:6] = level
    return np.ones(labels.shape, dtype=np.float32), labels


def ends(levels: int) -> list[tuple[int, int]]:
    """First and last level that is left of many draws; 0 where there is none."""
    grey, labels = column(levels)
    found = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        seen, kept = cut_field_of_view(grey, labels, rng, 1.5)
        assert not kept[seen == 0].any()
        named = np.unique(kept[kept > 0])
        found.append((int(named.min()), int(named.max())) if named.size else (0, 0))
    return found


def test_scans_end_within_the_cervical_column_whatever_lies_below_it() -> None:
    """Were thoracic levels part of the height, no scan would ever end above C7."""
    for levels in (7, 11):
        found = ends(levels)
        above_c7 = np.mean([last < 7 for _, last in found])
        below_c1 = np.mean([first > 1 for first, _ in found])
        assert 0.2 < above_c7 < 0.5
        assert 0.15 < below_c1 < 0.5


def test_some_of_the_neck_is_always_left() -> None:
    for first, last in ends(11):
        assert first > 0
        assert min(last, 7) - first >= 1
