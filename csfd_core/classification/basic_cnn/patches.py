"""Patches of slices that the basic CNN learns from."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from csfd_core.classification.patchwise.pool import (
    Float,
    PatchCentre,
    VertebraPool,
    box_middles,
)
from csfd_core.classification.vertebrae import Grey, Vertebra

_GREY_MIDDLE: Final = 0.3  # of the bone window: soft tissue
_GREY_WIDTH: Final = 0.2
_JITTER_PX: Final = 2.0  # around the middle of a box, or any other place
_NEAR_PX: Final = 2  # bone may lie so far outside of its mask
_TURN_RAD: Final = 0.5
_STRETCH: Final = 0.15
_NOISE_ROWS: Final = 10_000  # drawn once: drawing takes longer than cutting


class PatchPool(VertebraPool[Vertebra]):
    """Vertebrae in memory, and the places to draw patches of slices from."""

    def __init__(self, size_px: int, mined_share: float) -> None:
        """Start empty."""
        super().__init__(size_px, mined_share)
        self._planes: list[Grey] = []  # (K, side, side, channels + 1)
        self._noise: Float = np.empty((0, 0), dtype=np.float32)

    def add(self, vertebra: Vertebra, label: int) -> None:
        """Take a copy of a vertebra, and list its boxes and its bone."""
        if not self.vertebrae:
            self._noise = self._draw_noise(vertebra.images.shape[1])
        images, masks = vertebra.images, vertebra.masks
        planes = np.concatenate([images, masks[:, None]], axis=1)
        planes = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
        in_memory = replace(
            vertebra,
            images=planes[..., :-1].transpose(0, 3, 1, 2),
            masks=planes[..., -1],
        )
        self._planes.append(planes)
        near = np.ones((1, 2 * _NEAR_PX + 1, 2 * _NEAR_PX + 1), dtype=bool)
        self._list(in_memory, in_memory.masks, label, near, box_middles(vertebra))

    def cut(self, centres: Sequence[PatchCentre], rng: np.random.Generator) -> Float:
        """Cut and vary patches, (N, side, side, channels + 1), the mask last."""
        return self._vary(self._cut(centres, rng), rng)

    def _cut(self, centres: Sequence[PatchCentre], rng: np.random.Generator) -> Grey:
        """Cut patches: turned, stretched, mirrored, half of them as seen from the feet.

        A neck is as good as its mirror image here: no label tells left from right.
        """
        import cv2  # takes a while, and listing the classifiers does not need it

        count, side = len(centres), self.size_px
        turns = rng.uniform(-_TURN_RAD, _TURN_RAD, count)
        stretches = np.exp(rng.uniform(-_STRETCH, _STRETCH, count))
        sides = rng.choice((-1, 1), count)
        sine, cosine = np.sin(turns) * stretches, np.cos(turns) * stretches
        # From column and row of the patch to those of the plane, (N, 2, 2).
        matrices = np.array([[cosine * sides, sine], [-sine * sides, cosine]])
        matrices = matrices.transpose(2, 0, 1)
        middles = np.array([(centre.column, centre.row) for centre in centres])
        middles += rng.uniform(-_JITTER_PX, _JITTER_PX, middles.shape)
        offsets = middles - matrices @ np.full(2, (side - 1) / 2)
        maps = np.concatenate([matrices, offsets[..., None]], axis=2)
        patches = np.empty((count, side, side, self._depth), dtype=np.uint8)
        last = self._depth - 2  # channel of grey levels; the mask stays where it is
        turn = [*np.ravel([(c, last - c) for c in range(last + 1)]), last + 1, last + 1]
        from_feet = rng.random(count) < 0.5
        for patch, centre, to_plane in zip(patches, centres, maps, strict=True):
            cv2.warpAffine(
                self._planes[centre.vertebra][int(centre.plane)],
                to_plane,
                (side, side),
                dst=patch,
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
        for index in np.flatnonzero(from_feet):
            cv2.mixChannels([patches[index].copy()], [patches[index]], turn)
        return patches

    def _vary(self, patches: Grey, rng: np.random.Generator) -> Float:
        """Scale patches to the network's input, with other grey levels and noise.

        All channels are worked on at once, since short rows take NumPy long; the mask
        is only scaled.
        """
        count = len(patches)
        gain = rng.uniform(0.75, 1.3, count)[:, None]
        shift = rng.uniform(-0.05, 0.05, count)[:, None]
        noise = (rng.uniform(0, 0.025, count) / _GREY_WIDTH).astype(np.float32)
        starts = rng.integers(len(self._noise) - self.size_px, size=count)
        is_grey = np.arange(self._depth) < self._depth - 1
        scale = np.where(is_grey, gain / 255 / _GREY_WIDTH, 1 / 255)
        offset = np.where(is_grey, (shift - _GREY_MIDDLE * gain) / _GREY_WIDTH, 0)
        flat = patches.reshape(count, self.size_px, -1)
        rows = flat * np.tile(scale, self.size_px)[:, None].astype(np.float32)
        rows += np.tile(offset, self.size_px)[:, None].astype(np.float32)
        for values, size, start in zip(rows, noise, starts, strict=True):
            values += self._noise[start : start + self.size_px] * size
        return np.asarray(rows.reshape(patches.shape), dtype=np.float32)

    def _draw_noise(self, channels: int) -> Float:
        """Return noise of deviation 1 to take parts of; none in the masks."""
        shape = (_NOISE_ROWS, self.size_px, channels + 1)
        noise = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        noise[..., -1] = 0
        return noise.reshape(_NOISE_ROWS, -1)

    @property
    def _depth(self) -> int:
        return int(self._planes[0].shape[-1])


def to_inputs(vertebra: Vertebra) -> Float:
    """Return a vertebra as the basic CNN sees it, (K, side, side, channels + 1)."""
    grey = vertebra.images.transpose(0, 2, 3, 1).astype(np.float32) / 255
    mask = vertebra.masks[..., None].astype(np.float32) / 255
    return np.concatenate([(grey - _GREY_MIDDLE) / _GREY_WIDTH, mask], axis=-1)
