"""Places that networks for patches learn from: with a fracture, and without.

A vertebra has some thousand places and at most a few of them are broken. Places in the
middle of fracture boxes teach where to look; places of bone without a fracture teach
what is none. After the first epoch, part of the latter are *mined*: places that the
network itself takes for broken in vertebrae that are not (Felzenszwalb et al. 2010,
hard negative mining). Later, the place that it finds the most suspicious in each
fractured vertebra without boxes joins the former.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from csfd_core.classification.vertebrae import Vertebra

Float = npt.NDArray[np.float32]
T = TypeVar("T")  # a vertebra as the network looks at it
Suspects = Callable[[Sequence[T]], list[npt.NDArray[np.float64]]]

_BONE_VOXELS: Final = 4000  # kept of a vertebra; moved at random, they cover it
_MINED_VERTEBRAE: Final = 200  # looked at after an epoch
_MINED_EACH: Final = 6


@dataclass(frozen=True, slots=True)
class PatchCentre:
    """A place in a vertebra of the pool, in voxels of what the network looks at."""

    vertebra: int
    plane: float
    row: float
    column: float


class VertebraPool(ABC, Generic[T]):
    """Vertebrae in memory, and the places to draw patches from.

    Attributes:
        size_px: Side of a patch.
        mined_share: Of the patches without a fracture, how many are mined.
        vertebrae: The pool.
        fractured: Which of them are fractured and show bone.
        whole: Which of them are not fractured and show bone.
        boxed: In the middle of fracture boxes.
        suspected: In fractured vertebrae without boxes.
        mined: In whole vertebrae, taken for broken.
    """

    def __init__(self, size_px: int, mined_share: float) -> None:
        """Start empty."""
        self.size_px = size_px
        self.mined_share = mined_share
        self.vertebrae: list[T] = []
        self.fractured: list[int] = []
        self.whole: list[int] = []
        self.boxed: list[PatchCentre] = []
        self.suspected: list[PatchCentre] = []
        self.mined: list[PatchCentre] = []
        self._unboxed: list[int] = []
        self._bone: list[npt.NDArray[np.int32]] = []  # as flat indices
        self._shapes: list[tuple[int, ...]] = []  # (planes, rows, columns)

    @abstractmethod
    def add(self, vertebra: Vertebra, label: int) -> None:
        """Take a copy of a vertebra, and list its boxes and its bone.

        Args:
            vertebra: May be a part of its study's memory, which is not held.
            label: 1 where it is fractured.
        """

    @abstractmethod
    def cut(self, centres: Sequence[PatchCentre], rng: np.random.Generator) -> Float:
        """Cut and vary the patches around places, as the network takes them."""

    @property
    def can_train(self) -> bool:
        """Whether there are both kinds of places."""
        return bool(self.fractured) and bool(self.whole)

    def batch(self, size: int, rng: np.random.Generator) -> tuple[Float, Float]:
        """Draw patches, half of them with a fracture.

        Returns:
            Patches, N first, and labels (size,).
        """
        positives = size // 2
        centres = self._fractured_centres(positives, rng)
        centres += self._whole_centres(size - positives, rng)
        labels = np.zeros(size, dtype=np.float32)
        labels[:positives] = 1
        return self.cut(centres, rng), labels

    def mine(
        self, suspects: Suspects[T], rng: np.random.Generator, *, trusted: bool
    ) -> None:
        """Look for places that are taken for fractures, and for those without boxes.

        Args:
            suspects: Returns the most suspicious places of each vertebra, most first,
                shape (n, 3): plane, row, column.
            rng: Chooses the vertebrae to look at.
            trusted: Whether the network knows enough to say where an unboxed fracture
                lies; too early, it would be taught its own errors.
        """
        chosen = rng.permutation(self.whole)[:_MINED_VERTEBRAE].tolist()
        self.mined = self._suspected(chosen, suspects, _MINED_EACH)
        if not trusted and self.boxed:
            return
        self.suspected = self._suspected(self._unboxed, suspects, 1)

    def _list(
        self,
        vertebra: T,
        masks: npt.NDArray[np.uint8],
        label: int,
        near: npt.NDArray[np.bool_],
        boxed: Sequence[tuple[float, float, float]] | None,
    ) -> None:
        """List a vertebra.

        Args:
            vertebra: As the network looks at it.
            masks: Of it, (planes, rows, columns).
            label: 1 where it is fractured.
            near: What counts as bone around the mask, for a dilation.
            boxed: Middles of its fracture boxes; ``None``: nobody drew any.
        """
        index = len(self.vertebrae)
        self.vertebrae.append(vertebra)
        self._shapes.append(masks.shape)
        self.boxed += [PatchCentre(index, *at) for at in boxed or ()]
        bone = np.flatnonzero(ndimage.binary_dilation(masks > 0, near))
        sample = np.random.default_rng(index).permutation(bone)[:_BONE_VOXELS]
        self._bone.append(sample.astype(np.int32))
        if bone.size:
            (self.fractured if label == 1 else self.whole).append(index)
            if label == 1 and boxed is None:
                self._unboxed.append(index)

    def _suspected(
        self, chosen: Sequence[int], suspects: Suspects[T], most: int
    ) -> list[PatchCentre]:
        by_vertebra = suspects([self.vertebrae[index] for index in chosen])
        return [
            PatchCentre(index, float(plane), float(row), float(column))
            for index, positions in zip(chosen, by_vertebra, strict=True)
            for plane, row, column in positions[:most]
        ]

    def _fractured_centres(
        self, count: int, rng: np.random.Generator
    ) -> list[PatchCentre]:
        fractured = [*self.boxed, *self.suspected]
        if not fractured:
            # Nobody drew boxes: anywhere in a fractured vertebra, at first.
            return self._bone_centres(self.fractured, count, rng)
        return [fractured[index] for index in rng.integers(len(fractured), size=count)]

    def _whole_centres(self, count: int, rng: np.random.Generator) -> list[PatchCentre]:
        share = self.mined_share if self.mined else 0.0
        mined = int(rng.binomial(count, share))
        chosen = rng.integers(len(self.mined), size=mined) if mined else ()
        centres = [self.mined[index] for index in chosen]
        return centres + self._bone_centres(self.whole, count - mined, rng)

    def _bone_centres(
        self, among: Sequence[int], count: int, rng: np.random.Generator
    ) -> list[PatchCentre]:
        centres = []
        chosen = rng.integers(len(among), size=count)
        for at, share in zip(chosen, rng.random(count), strict=True):
            index = among[at]
            bone = self._bone[index]
            _, height, width = self._shapes[index]
            line, column = divmod(int(bone[int(share * bone.size)]), width)
            plane, row = divmod(line, height)
            centres.append(PatchCentre(index, float(plane), float(row), float(column)))
        return centres


def box_middles(vertebra: Vertebra) -> list[tuple[int, float, float]] | None:
    """Return the middles of fracture boxes within the crops: crop, row and column.

    ``None`` where nobody drew boxes.
    """
    if vertebra.boxes is None:
        return None
    side = vertebra.masks.shape[-1]
    middles = []
    for crop, boxes in enumerate(vertebra.boxes):
        for row0, column0, row1, column1 in boxes:
            row, column = (row0 + row1) / 2, (column0 + column1) / 2
            if 0 <= row < side and 0 <= column < side:
                middles.append((crop, float(row), float(column)))
    return middles
