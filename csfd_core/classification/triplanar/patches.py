"""Patches in three planes through a place, which the triplanar CNN learns from."""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from csfd_core.classification.classifier import CropShape
from csfd_core.classification.patchwise.pool import (
    Float,
    PatchCentre,
    VertebraPool,
    box_middles,
)
from csfd_core.classification.triplanar.volume import VertebraVolume
from csfd_core.classification.vertebrae import Vertebra

GREY_MIDDLE: Final = 0.3  # of the bone window: soft tissue
GREY_WIDTH: Final = 0.2
OFFSETS: Final = (-2, 0, 2)  # voxels from a plane to its neighbours, as channels
CHANNELS: Final = len(OFFSETS) + 1  # the mask is the last
# Axes of the volume along rows and columns of a plane, and across it.
PLANES: Final = {"axial": (1, 2, 0), "sagittal": (0, 1, 2), "coronal": (0, 2, 1)}
_NEAR: Final = 2  # voxels: bone may lie so far outside of its mask
_JITTER: Final = 2.0  # voxels around the middle of a box, or any other place
_TURN_RAD: Final = 0.22  # deviation, about any axis
_STRETCH: Final = 0.15


class TriplanarPool(VertebraPool[VertebraVolume]):
    """Volumes in memory, and the places to draw patches around."""

    def __init__(self, size_px: int, mined_share: float, shape: CropShape) -> None:
        """Start empty."""
        super().__init__(size_px, mined_share)
        self._shape = shape
        frames = [_frame(size_px, *axes) for axes in PLANES.values()]
        self._grey_at = np.concatenate([grey for grey, _ in frames], axis=1)
        self._mask_at = np.concatenate([mask for _, mask in frames], axis=1)

    def add(self, vertebra: Vertebra, label: int) -> None:
        """Make a volume of a vertebra, and list its boxes and its bone."""
        volume = VertebraVolume.of(vertebra, self._shape)
        boxed = box_middles(vertebra)
        if boxed is not None:
            boxed = [(volume.planes[crop], row, col) for crop, row, col in boxed]
        near = ndimage.iterate_structure(ndimage.generate_binary_structure(3, 1), _NEAR)
        self._list(volume, volume.mask, label, near, boxed)

    def cut(self, centres: Sequence[PatchCentre], rng: np.random.Generator) -> Float:
        """Cut patches: moved, turned in space, stretched, half of them mirrored.

        A neck is as good as its mirror image here: no label tells left from right.

        Returns:
            Shape (N, 3, side, side, channels): axial, sagittal and coronal, the mask
            last.
        """
        side = self.size_px
        patches = np.empty((len(centres), 3, side, side, CHANNELS), dtype=np.float32)
        for patch, centre in zip(patches, centres, strict=True):
            volume = self.vertebrae[centre.vertebra]
            turn = _draw_turn(rng)
            middle = np.array([centre.plane, centre.row, centre.column])
            middle = (middle + rng.uniform(-_JITTER, _JITTER, 3))[:, None]
            grey = _sample(volume.grey, turn @ self._grey_at + middle, order=1)
            grey *= np.float32(rng.uniform(0.75, 1.3) / 255)
            grey += np.float32(rng.uniform(-0.05, 0.05))
            noise = rng.standard_normal(grey.shape, dtype=np.float32)
            grey += noise * np.float32(rng.uniform(0, 0.025))
            mask = _sample(volume.mask, turn @ self._mask_at + middle, order=0)
            shape = (3, side, side, len(OFFSETS))
            patch[..., :-1] = (grey.reshape(shape) - GREY_MIDDLE) / GREY_WIDTH
            patch[..., -1] = mask.reshape(shape[:-1]) / 255
        return patches


def _frame(
    side: int, row_axis: int, column_axis: int, across: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the voxels of a patch around 0: of its channels, and of its mask."""
    reach = np.arange(side) - (side - 1) / 2
    mask = np.zeros((3, side, side))
    mask[row_axis], mask[column_axis] = reach[:, None], reach[None, :]
    grey = np.repeat(mask[..., None], len(OFFSETS), axis=-1)
    grey[across] += OFFSETS
    return grey.reshape(3, -1), mask.reshape(3, -1)


def _draw_turn(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw a rotation with a stretch, half of them with a mirror, shape (3, 3)."""
    axis = rng.normal(0, 1, 3)
    x, y, z = axis / np.linalg.norm(axis)
    angle = rng.normal(0, _TURN_RAD)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    # Rodrigues' formula.
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    turn = turn * np.exp(rng.uniform(-_STRETCH, _STRETCH))
    if rng.random() < 0.5:
        turn[:, 2] *= -1
    return np.asarray(turn)


def _sample(
    volume: npt.NDArray[np.uint8], at: npt.NDArray[np.float64], order: Literal[0, 1]
) -> Float:
    """Return the values at voxels (3, N); beyond the edges they go on."""
    values = np.empty(at.shape[1], dtype=np.float32)
    ndimage.map_coordinates(volume, at, output=values, order=order, mode="nearest")
    return values
