"""Patches that the basic CNN learns from: places with a fracture, and without.

A vertebra has some thousand places and at most a few of them are broken. Patches around
the fracture boxes teach where to look; patches of bone without a fracture teach what is
none. After the first epoch, part of the latter are *mined*: places that the network
itself takes for broken in vertebrae that are not (Felzenszwalb et al. 2010, hard
negative mining). Later, the place that it finds the most suspicious in each fractured
vertebra without boxes joins the former.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from csfd_core.classification.vertebrae import Grey, Vertebra

Float = npt.NDArray[np.float32]
Suspects = Callable[[Sequence[Vertebra]], list[npt.NDArray[np.float64]]]

_GREY_MIDDLE: Final = 0.3  # of the bone window: soft tissue
_GREY_WIDTH: Final = 0.2
_JITTER_PX: Final = 2.0  # around the middle of a box, or any other place
_NEAR_PX: Final = 2  # bone may lie so far outside of its mask
_BONE_PLACES: Final = 4000  # kept of a vertebra; moved at random, they cover it
_TURN_RAD: Final = 0.5
_STRETCH: Final = 0.15
_NOISE_ROWS: Final = 10_000  # drawn once: drawing takes longer than cutting
_MINED_VERTEBRAE: Final = 200  # looked at after an epoch
_PLACES_EACH: Final = 6


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the crops of the pool."""

    vertebra: int
    crop: int
    row: float
    column: float


@dataclass(slots=True)
class PatchPool:
    """Vertebrae in memory, and the places to draw patches from.

    Attributes:
        size_px: Side of a patch.
        mined_share: Of the patches without a fracture, how many are mined.
        vertebrae: The pool.
        fractured: Which of them are fractured and show bone.
        whole: Which of them are not fractured and show bone.
    """

    size_px: int
    mined_share: float
    vertebrae: list[Vertebra] = field(default_factory=list)
    fractured: list[int] = field(default_factory=list)
    whole: list[int] = field(default_factory=list)
    boxed: list[Place] = field(default_factory=list)
    suspected: list[Place] = field(default_factory=list)  # fractured, without boxes
    mined: list[Place] = field(default_factory=list)
    _planes: list[Grey] = field(default_factory=list)  # (K, side, side, channels + 1)
    _bone: list[npt.NDArray[np.int32]] = field(default_factory=list)
    _noise: Float = field(init=False)  # (rows, side * (channels + 1))

    def add(self, vertebra: Vertebra, label: int) -> None:
        """Take a copy of a vertebra, and list its boxes and its bone.

        Args:
            vertebra: May be a part of its study's memory, which is not held.
            label: 1 where it is fractured.
        """
        index = len(self.vertebrae)
        if not index:
            self._noise = self._draw_noise(vertebra.images.shape[1])
        images, masks = vertebra.images, vertebra.masks
        planes = np.concatenate([images, masks[:, None]], axis=1)
        planes = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
        in_memory = replace(
            vertebra,
            images=planes[..., :-1].transpose(0, 3, 1, 2),
            masks=planes[..., -1],
        )
        self.vertebrae.append(in_memory)
        self._planes.append(planes)
        self.boxed += _boxed_places(index, in_memory)
        near = np.ones((1, 2 * _NEAR_PX + 1, 2 * _NEAR_PX + 1), dtype=bool)
        bone = np.flatnonzero(ndimage.binary_dilation(masks > 0, near))
        kept = np.random.default_rng(index).permutation(bone)[:_BONE_PLACES]
        self._bone.append(kept.astype(np.int32))
        if bone.size:
            (self.fractured if label == 1 else self.whole).append(index)

    @property
    def can_train(self) -> bool:
        """Whether there are both kinds of places."""
        return bool(self.fractured) and bool(self.whole)

    def batch(self, size: int, rng: np.random.Generator) -> tuple[Float, Float]:
        """Draw patches, half of them with a fracture.

        Returns:
            Patches (size, side, side, channels + 1), the mask last, and labels (size,).
        """
        positives = size // 2
        places = self._fractured_places(positives, rng)
        places += self._whole_places(size - positives, rng)
        labels = np.zeros(size, dtype=np.float32)
        labels[:positives] = 1
        return self._vary(self._cut(places, rng), rng), labels

    def mine(
        self, suspects: Suspects, rng: np.random.Generator, *, trusted: bool
    ) -> None:
        """Look for places that are taken for fractures, and for those without boxes.

        Args:
            suspects: Returns the most suspicious places of each vertebra, most first,
                shape (n, 3): crop, row, column.
            rng: Chooses the vertebrae to look at.
            trusted: Whether the network knows enough to say where an unboxed fracture
                lies; too early, it would be taught its own errors.
        """
        chosen = rng.permutation(self.whole)[:_MINED_VERTEBRAE].tolist()
        self.mined = self._places(chosen, suspects, _PLACES_EACH)
        if not trusted and self.boxed:
            return
        unboxed = [i for i in self.fractured if self.vertebrae[i].boxes is None]
        self.suspected = self._places(unboxed, suspects, 1)

    def _places(self, chosen: list[int], suspects: Suspects, most: int) -> list[Place]:
        found = suspects([self.vertebrae[index] for index in chosen])
        return [
            Place(index, int(crop), float(row), float(column))
            for index, places in zip(chosen, found, strict=True)
            for crop, row, column in places[:most]
        ]

    def _fractured_places(self, count: int, rng: np.random.Generator) -> list[Place]:
        fractured = [*self.boxed, *self.suspected]
        if not fractured:
            # Nobody drew boxes: anywhere in a fractured vertebra, at first.
            return self._bone_places(self.fractured, count, rng)
        return [fractured[index] for index in rng.integers(len(fractured), size=count)]

    def _whole_places(self, count: int, rng: np.random.Generator) -> list[Place]:
        share = self.mined_share if self.mined else 0.0
        mined = int(rng.binomial(count, share))
        chosen = rng.integers(len(self.mined), size=mined) if mined else ()
        places = [self.mined[index] for index in chosen]
        return places + self._bone_places(self.whole, count - mined, rng)

    def _bone_places(
        self, among: Sequence[int], count: int, rng: np.random.Generator
    ) -> list[Place]:
        places = []
        chosen = rng.integers(len(among), size=count)
        for at, share in zip(chosen, rng.random(count), strict=True):
            index = among[at]
            bone = self._bone[index]
            _, height, width = self.vertebrae[index].masks.shape
            line, column = divmod(int(bone[int(share * bone.size)]), width)
            crop, row = divmod(line, height)
            places.append(Place(index, crop, float(row), float(column)))
        return places

    def _cut(self, places: Sequence[Place], rng: np.random.Generator) -> Grey:
        """Cut patches: turned, stretched, mirrored, half of them as seen from the feet.

        A neck is as good as its mirror image here: no label tells left from right.
        """
        import cv2  # takes a while, and listing the classifiers does not need it

        count, side = len(places), self.size_px
        turns = rng.uniform(-_TURN_RAD, _TURN_RAD, count)
        stretches = np.exp(rng.uniform(-_STRETCH, _STRETCH, count))
        sides = rng.choice((-1, 1), count)
        sine, cosine = np.sin(turns) * stretches, np.cos(turns) * stretches
        # From column and row of the patch to those of the plane, (N, 2, 2).
        matrices = np.array([[cosine * sides, sine], [-sine * sides, cosine]])
        matrices = matrices.transpose(2, 0, 1)
        middles = np.array([(place.column, place.row) for place in places])
        middles += rng.uniform(-_JITTER_PX, _JITTER_PX, middles.shape)
        offsets = middles - matrices @ np.full(2, (side - 1) / 2)
        maps = np.concatenate([matrices, offsets[..., None]], axis=2)
        patches = np.empty((count, side, side, self._depth), dtype=np.uint8)
        last = self._depth - 2  # channel of grey levels; the mask stays where it is
        turn = [*np.ravel([(c, last - c) for c in range(last + 1)]), last + 1, last + 1]
        from_feet = rng.random(count) < 0.5
        for patch, place, to_plane in zip(patches, places, maps, strict=True):
            cv2.warpAffine(
                self._planes[place.vertebra][place.crop],
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


def _boxed_places(index: int, vertebra: Vertebra) -> list[Place]:
    side = vertebra.masks.shape[-1]
    places = []
    for crop, boxes in enumerate(vertebra.boxes or ()):
        for row0, column0, row1, column1 in boxes:
            row, column = (row0 + row1) / 2, (column0 + column1) / 2
            if 0 <= row < side and 0 <= column < side:
                places.append(Place(index, crop, float(row), float(column)))
    return places
