"""A vertebra as a volume of even voxels, made of its crops.

Slices and their neighbours together sample the vertebra about as densely as scanners
do; between them it is interpolated. What lies across the slices, as a break of the dens
does, is then seen on reformats.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from csfd_core.classification.classifier import CropShape
from csfd_core.classification.vertebrae import Grey, Vertebra

Float = npt.NDArray[np.float32]
_INSIDE: Final = 127.5  # of an interpolated mask


@dataclass(frozen=True, slots=True, kw_only=True)
class VertebraVolume:
    """Grey levels and mask, axes (feet, back, left), voxels as large as a crop's pixel.

    Attributes:
        grey: Shape (Z, side, side).
        mask: 255 where the vertebra is, the same shape.
        planes: Of each slice of the crops, its place along the first axis in voxels.
    """

    grey: Grey
    mask: Grey
    planes: npt.NDArray[np.float64]

    @classmethod
    def of(cls, vertebra: Vertebra, shape: CropShape) -> "VertebraVolume":
        """Interpolate between the crops of a vertebra.

        Args:
            vertebra: With the heights of its slices.
            shape: Millimetres of its pixels and from a slice to its neighbours.
        """
        slices, channels, *plane = vertebra.images.shape
        steps = (np.arange(channels) - channels // 2) * shape.neighbour_mm
        heights = (vertebra.heights_mm[:, None] + steps).ravel()
        order = np.argsort(heights, kind="stable")
        images = vertebra.images.reshape(slices * channels, *plane)
        low, high = heights[order[0]], heights[order[-1]]
        count = int((high - low) / shape.pixel_mm + 1e-6) + 1
        wanted = low + np.arange(count) * shape.pixel_mm
        grey = _between(images[order], heights[order], wanted)
        inside = _between(vertebra.masks, vertebra.heights_mm, wanted) >= _INSIDE
        return cls(
            grey=np.rint(grey).astype(np.uint8),
            mask=np.where(inside, 255, 0).astype(np.uint8),
            planes=(vertebra.heights_mm - low) / shape.pixel_mm,
        )


def _between(planes: Grey, at: npt.NDArray[np.float64], wanted: Float) -> Float:
    """Interpolate planes (N, rows, columns) at rising places; the ends go on."""
    if len(planes) == 1:
        return planes.repeat(len(wanted), axis=0).astype(np.float32)
    above = np.clip(np.searchsorted(at, wanted, side="right") - 1, 0, len(at) - 2)
    gaps = np.maximum(at[above + 1] - at[above], 1e-6)
    share = np.clip((wanted - at[above]) / gaps, 0, 1).astype(np.float32)
    share = share[:, None, None]
    return np.asarray(planes[above] * (1 - share) + planes[above + 1] * share)
