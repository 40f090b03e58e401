"""Metal beside vertebrae: rods, screws, plates, fillings of the spine.

The bone window ends at 1300 HU. Cortex reaches that on single voxels, metal over
millimetres: what stays at the end of the window over three voxels of about 1.5 mm in
every direction is metal, or bone as dense as that. Thinner wires are not seen.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from csfd_core.dicom.grids import Float
from csfd_core.text import join
from csfd_core.vocabulary import LEVEL_NAMES

_BRIGHT: Final = 0.99  # of the window
_BESIDE_MM: Final = 5.0  # from a vertebra
_LEAST_ML: Final = 0.25  # at a level; less is dense cortex


def metal_flags(
    labels: npt.NDArray[np.uint8], grey: Float, step_mm: float
) -> tuple[str, ...]:
    """Say at which levels metal lies, a sentence; nothing where there is none.

    Args:
        labels: 0 none, 1 C1 ... 7 C7, shape (Z, Y, X).
        grey: Grey levels of the bone window, 0..1, on the same grid.
        step_mm: Voxel size.
    """
    bright = grey >= _BRIGHT
    if bright.sum() * step_mm**3 / 1000 < _LEAST_ML:
        return ()
    # Plates of dense cortex, and edges where they meet, are no body that holds a cube.
    solid = ndimage.binary_opening(bright, np.ones((3, 3, 3), dtype=np.bool_))
    reach = max(1, round(_BESIDE_MM / step_mm))
    names = []
    for level, name in enumerate(LEVEL_NAMES, start=1):
        near = ndimage.binary_dilation(labels == level, iterations=reach)
        if (solid & near).sum() * step_mm**3 / 1000 >= _LEAST_ML:
            names.append(name)
    if not names:
        return ()
    return (
        f"Metal lies at {join(names)}: it hides bone, and its streaks may pass for "
        "fractures.",
    )
