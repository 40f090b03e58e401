"""Writing the mask of a phantom volume as NIfTI, lying otherwise than the DICOM."""

from pathlib import Path
from typing import Final

import nibabel as nib
import numpy as np
import numpy.typing as npt

from csfd_core.phantom.volume import PhantomVolume

# Axis of the (Z, H, W) array along which a code lies, and whether LPS coordinates rise
# towards it.
_AXES: Final = {
    "L": (2, True),
    "R": (2, False),
    "P": (1, True),
    "A": (1, False),
    "S": (0, True),
    "I": (0, False),
}


def write_mask(volume: PhantomVolume, orientation: str, path: Path) -> int:
    """Write the mask as uint8 NIfTI-1; return its size in bytes.

    Args:
        volume: Its mask and geometry.
        orientation: Direction of the three stored axes, as nibabel's ``aff2axcodes``.
        path: File to write, ``*.nii``.
    """
    data, affine = orient_mask(volume, orientation)
    # nibabel has no type hints.
    image = nib.Nifti1Image(data, affine)  # type: ignore[no-untyped-call]
    image.header.set_slope_inter(1, 0)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")  # type: ignore[no-untyped-call]
    nib.save(image, path)
    return path.stat().st_size


def orient_mask(
    volume: PhantomVolume, orientation: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Return mask and affine (voxel to RAS mm) with axes in the given directions."""
    order, to_ras = [], np.array([-1.0, -1.0, 1.0])
    data = volume.mask
    first = np.array(volume.first_position_mm)
    gap, row_mm, column_mm = volume.spacing_zyx_mm
    steps = np.array([volume.z_step_mm, row_mm, column_mm])
    rotation = np.zeros((3, 3))
    for stored_axis, code in enumerate(orientation):
        axis, rising = _AXES[code]
        order.append(axis)
        world = 2 - axis
        if (steps[axis] > 0) != rising:
            data = np.flip(data, axis)
            first[world] += steps[axis] * (data.shape[axis] - 1)
            steps[axis] = -steps[axis]
        rotation[world, stored_axis] = steps[axis]
    affine = np.eye(4)
    affine[:3, :3] = to_ras[:, None] * rotation
    affine[:3, 3] = to_ras * first
    return np.ascontiguousarray(data.transpose(order)), affine
