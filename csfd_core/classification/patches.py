"""Patches that the basic CNN learns from: places with a fracture, and without.

A vertebra has some thousand places and at most a few of them are broken. Patches around
the fracture boxes teach where to look; patches of bone without a fracture teach what is
none. After the first epoch, part of the latter are *mined*: places that the network
itself takes for broken in vertebrae that are not (Felzenszwalb et al. 2010, hard
negative mining). Later, the place that it finds the most suspicious in each fractured
vertebra without boxes joins the former.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from csfd_core.classification.crops import Grey, Vertebra

Float = npt.NDArray[np.float32]
Suspects = Callable[[Sequence[Vertebra]], list[npt.NDArray[np.float64]]]

_GREY_MIDDLE: Final = 0.3  # of the bone window: soft tissue
_GREY_WIDTH: Final = 0.2
_JITTER_PX: Final = 2.0  # around the middle of a box
_NEAR_PX: Final = 2  # bone may lie so far outside of its mask
_TURN_RAD: Final = 0.5
_STRETCH: Final = 0.15
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
        vertebrae: The pool.
        labels: 1 where the vertebra is fractured.
        size_px: Side of a patch.
        mined_share: Of the patches without a fracture, how many are mined.
    """

    vertebrae: Sequence[Vertebra]
    labels: npt.NDArray[np.integer]
    size_px: int
    mined_share: float
    boxed: list[Place] = field(default_factory=list)
    suspected: list[Place] = field(default_factory=list)  # fractured, without boxes
    mined: list[Place] = field(default_factory=list)
    _bone: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """List the boxes and the bone of the pool."""
        for index, vertebra in enumerate(self.vertebrae):
            self.boxed += _boxed_places(index, vertebra)
            near = np.ones((1, 2 * _NEAR_PX + 1, 2 * _NEAR_PX + 1), dtype=bool)
            bone = ndimage.binary_dilation(vertebra.masks > 0, near)
            self._bone[index] = np.flatnonzero(bone)

    @property
    def can_train(self) -> bool:
        """Whether there are both kinds of places."""
        return bool(self._fractured()) and bool(self._whole())

    def batch(self, size: int, rng: np.random.Generator) -> tuple[Float, Float]:
        """Draw patches, half of them with a fracture.

        Returns:
            Patches (size, side, side, channels + 1), the mask last, and labels (size,).
        """
        positives = size // 2
        places = [self._fractured_place(rng) for _ in range(positives)]
        places += [self._whole_place(rng) for _ in range(size - positives)]
        patches = [self._cut(place, rng) for place in places]
        labels = np.zeros(size, dtype=np.float32)
        labels[:positives] = 1
        return np.stack(patches), labels

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
        whole = self._whole()
        chosen = rng.permutation(whole)[:_MINED_VERTEBRAE].tolist()
        self.mined = self._places(chosen, suspects, _PLACES_EACH)
        if not trusted and self.boxed:
            return
        unboxed = [
            index
            for index in np.flatnonzero(self.labels == 1).tolist()
            if self.vertebrae[index].boxes is None
        ]
        self.suspected = self._places(unboxed, suspects, 1)

    def _places(self, chosen: list[int], suspects: Suspects, most: int) -> list[Place]:
        found = suspects([self.vertebrae[index] for index in chosen])
        return [
            Place(index, int(crop), float(row), float(column))
            for index, places in zip(chosen, found, strict=True)
            for crop, row, column in places[:most]
        ]

    def _whole(self) -> list[int]:
        return [
            index
            for index in np.flatnonzero(self.labels == 0).tolist()
            if self._bone[index].size
        ]

    def _fractured(self) -> list[int]:
        return [
            index
            for index in np.flatnonzero(self.labels == 1).tolist()
            if self._bone[index].size
        ]

    def _fractured_place(self, rng: np.random.Generator) -> Place:
        known = [*self.boxed, *self.suspected]
        if not known:  # nobody drew boxes: anywhere in a fractured vertebra, at first
            return self._bone_place(self._fractured(), rng)
        place = known[int(rng.integers(len(known)))]
        return _moved(place, rng, _JITTER_PX)

    def _whole_place(self, rng: np.random.Generator) -> Place:
        if self.mined and rng.random() < self.mined_share:
            place = self.mined[int(rng.integers(len(self.mined)))]
            return _moved(place, rng, _JITTER_PX)
        return self._bone_place(self._whole(), rng)

    def _bone_place(self, among: list[int], rng: np.random.Generator) -> Place:
        index = among[int(rng.integers(len(among)))]
        bone = self._bone[index]
        shape = self.vertebrae[index].masks.shape
        at = np.unravel_index(bone[int(rng.integers(bone.size))], shape)
        place = Place(index, int(at[0]), float(at[1]), float(at[2]))
        return _moved(place, rng, _JITTER_PX)

    def _cut(self, place: Place, rng: np.random.Generator) -> Float:
        """Cut a patch, turned, stretched, mirrored, with other grey levels and noise.

        A neck is as good as its mirror image here: no label tells left from right.
        """
        vertebra = self.vertebrae[place.vertebra]
        turn = float(rng.uniform(-_TURN_RAD, _TURN_RAD))
        stretch = float(np.exp(rng.uniform(-_STRETCH, _STRETCH)))
        sine, cosine = np.sin(turn) * stretch, np.cos(turn) * stretch
        matrix = np.array([[cosine, -sine], [sine, cosine]], dtype=np.float64)
        matrix[:, 1] *= rng.choice((-1, 1))
        middle = np.full(2, (self.size_px - 1) / 2)
        offset = np.array([place.row, place.column]) - matrix @ middle
        shape = (self.size_px, self.size_px)

        def sample(plane: Grey) -> Float:
            found = ndimage.affine_transform(
                plane.astype(np.float32), matrix, offset, shape, order=1, mode="nearest"
            )
            return np.asarray(found, dtype=np.float32)

        planes = [sample(plane) for plane in vertebra.images[place.crop]]
        grey = np.stack(planes, axis=-1) / 255 - _GREY_MIDDLE
        grey *= rng.uniform(0.75, 1.3)
        grey += rng.uniform(-0.05, 0.05)
        noise = rng.standard_normal(grey.shape, dtype=np.float32)
        grey += noise * rng.uniform(0, 0.025)
        if rng.random() < 0.5:  # as seen from the feet
            grey = grey[..., ::-1]
        mask = sample(vertebra.masks[place.crop])[..., None] / 255
        return np.concatenate([grey / _GREY_WIDTH, mask], axis=-1, dtype=np.float32)


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


def _moved(place: Place, rng: np.random.Generator, reach: float) -> Place:
    row, column = rng.uniform(-reach, reach, size=2)
    return Place(
        place.vertebra, place.crop, place.row + float(row), place.column + float(column)
    )
