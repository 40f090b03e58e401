"""Whether a scan shows more than one neck.

The locator marks every spine that it sees. Two that stand side by side, at the same
height, are two patients, or one pasted beside the other: no level of them is told from
those of the neighbour, so nothing is told at all.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from csfd_core.dicom.grids import Float

TWO_NECKS: Final = (
    "Two necks lie side by side in the scan, so none of them is judged: give each a "
    "study of its own."
)
_LIKELY_SPINE: Final = 0.5  # probability of spine
_TALL_MM: Final = 60.0  # a body that is lower is no neck
_APART_MM: Final = 70.0  # between the middles of two necks
_BESIDE: Final = 0.5  # of the shorter one's height lies beside the other


def shows_two_necks(spine: Float, step_mm: float) -> bool:
    """Say whether two separate bodies of likely spine stand side by side.

    Args:
        spine: Probability of spine, axes (feet, back, left).
        step_mm: Voxel size.
    """
    parts, _ = ndimage.label(spine > _LIKELY_SPINE, structure=np.ones((3, 3, 3)))
    tall = [
        (box[0], _middle(parts, index, box))
        for index, box in enumerate(ndimage.find_objects(parts), start=1)
        if (box[0].stop - box[0].start) * step_mm >= _TALL_MM
    ]
    for index, (rows, middle) in enumerate(tall):
        for other, beside in tall[:index]:
            shared = min(rows.stop, other.stop) - max(rows.start, other.start)
            shorter = min(rows.stop - rows.start, other.stop - other.start)
            apart_mm = float(np.linalg.norm(middle - beside)) * step_mm
            if shared >= _BESIDE * shorter and apart_mm >= _APART_MM:
                return True
    return False


def _middle(
    parts: npt.NDArray[np.signedinteger], index: int, box: tuple[slice, ...]
) -> npt.NDArray[np.float64]:
    """Return where the middle of a body lies across the neck, in voxels."""
    middle = np.argwhere(parts[box] == index)[:, 1:].mean(axis=0)
    return np.asarray(middle + np.array([box[1].start, box[2].start]))
