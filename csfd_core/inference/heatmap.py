"""What a classifier looked at, as a NIfTI that viewers lay over the CT.

``<study_uid>_heatmap.nii.gz`` has the grid of the slices and values of 0 to 255: how
much a place speaks for a fracture, from nothing to all. Places outside of the crops
are 0.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from csfd_core.crops.boxes import corners_of
from csfd_core.dicom.geometry import VolumeGeometry
from csfd_core.inference.evidence import LevelHeat
from csfd_core.inference.judgement import JudgedScan
from csfd_core.inference.segment import write_nifti

HEATMAP: Final = "_heatmap.nii.gz"  # ending of the file's name


def write_heatmap(judged: JudgedScan) -> None:
    """Write the heatmap of a study beside its JSON.

    Raises:
        SettingsError: If it cannot be written.
    """
    geometry = judged.study.geometry
    heat = heat_volume(judged.judgement.heats, geometry)
    write_nifti(judged.out / f"{judged.name}{HEATMAP}", heat, geometry)


def heat_volume(
    heats: Iterable[LevelHeat], geometry: VolumeGeometry
) -> npt.NDArray[np.uint8]:
    """Bring the heat of each vertebra to the grid of the slices, (slice, row, column).

    Between the pixels of the crops it is interpolated; where the crops of two vertebrae
    overlap, the stronger one counts.
    """
    volume = np.zeros(geometry.shape_zyx, dtype=np.uint8)
    for level_heat in heats:
        to_crop = np.linalg.inv(level_heat.affine_lps) @ geometry.affine()
        low, high = np.full(3, -0.5), np.array(level_heat.heat.shape) - 0.5
        to_voxels = np.linalg.inv(to_crop)
        edges = corners_of(low, high) @ to_voxels[:3, :3].T + to_voxels[:3, 3]
        first = np.maximum(np.ceil(edges.min(axis=0)), 0).astype(int)
        stop = np.minimum(np.floor(edges.max(axis=0)) + 1, volume.shape).astype(int)
        if (stop <= first).any():
            continue
        part = ndimage.affine_transform(
            level_heat.heat,
            to_crop[:3, :3],
            to_crop[:3, :3] @ first + to_crop[:3, 3],
            output_shape=tuple(stop - first),
            order=1,
            mode="nearest",  # up to the edges of the outermost pixels
        )
        z, y, x = (slice(a, b) for a, b in zip(first, stop, strict=True))
        grey = np.rint(np.clip(part, 0, 1) * 255).astype(np.uint8)
        np.maximum(volume[z, y, x], grey, out=volume[z, y, x])
    return volume
