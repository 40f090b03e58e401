"""Metal beside vertebrae is told by its levels; dense bone is not metal."""

import numpy as np
import pytest

from csfd_core.segmentation.metal import metal_flags

STEP = 1.5


def neck() -> tuple[np.ndarray, np.ndarray]:
    """Seven blocks of 8 x 12 x 12 voxels, three apart, grey as spongy bone."""
    labels = np.zeros((84, 40, 40), dtype=np.uint8)
    for level in range(1, 8):
        start = 3 + 11 * (level - 1)
        labels[start : start + 8, 14:26, 14:26] = level
    return labels, np.where(labels > 0, 0.45, 0.3).astype(np.float32)


def test_a_rod_is_told_at_the_levels_beside_which_it_lies() -> None:
    labels, grey = neck()
    grey[36:66, 26:30, 18:22] = 1.0  # behind C4 to C6, 6 mm thick
    (flag,) = metal_flags(labels, grey, STEP)
    assert flag.startswith("Metal lies at C4, C5 and C6:")


@pytest.mark.parametrize("thick", [1, 2])
def test_a_shell_of_dense_cortex_is_no_metal(thick: int) -> None:
    labels, grey = neck()
    body = labels == 4
    inner = np.zeros_like(body)
    inner[36 + thick : 44 - thick, 14 + thick : 26 - thick, 14 + thick : 26 - thick] = 1
    grey[body & ~inner] = 1.0
    assert metal_flags(labels, grey, STEP) == ()


def test_metal_far_from_the_spine_is_not_told() -> None:
    """Crowns of teeth lie centimetres ahead of it."""
    labels, grey = neck()
    grey[3:12, 0:6, 10:30] = 1.0
    assert metal_flags(labels, grey, STEP) == ()


def test_without_anything_bright_there_is_no_metal() -> None:
    assert metal_flags(*neck(), STEP) == ()
