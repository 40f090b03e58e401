"""What every classifier can do, whatever network is inside."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage

from csfd_core.classification.config import ClassifierConfig
from csfd_core.classification.validation import Logits
from csfd_core.classification.vertebrae import Vertebra
from csfd_core.learning.checkpoint import Checkpoint, Weights
from csfd_core.learning.loop import OnEpoch, Trained
from csfd_core.store.crops import CropStore
from csfd_core.store.locations import Location

if TYPE_CHECKING:
    import keras

T = TypeVar("T")
Heat = npt.NDArray[np.float32]  # 0..1, (K, side, side)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """What to learn from and what to stop by.

    Attributes:
        crops: The crop store.
        training: Rows of the manifest.
        validation: Rows of the manifest, of other patients.
        checkpoint: For the state of the training.
    """

    crops: CropStore
    training: pd.DataFrame
    validation: pd.DataFrame
    checkpoint: Checkpoint

    @property
    def validation_labels(self) -> npt.NDArray[np.int64]:
        """Labels of the validation vertebrae, 0 or 1, shape (N,)."""
        return self.validation["label"].to_numpy(dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class CropShape:
    """Size of the crops that a classifier sees."""

    slices: int
    channels: int
    side_px: int
    pixel_mm: float
    neighbour_mm: float  # from a slice to its next neighbour

    @classmethod
    def of(cls, crop: Mapping[str, Any]) -> "CropShape":
        """Read the settings of the crops, as noted with them."""
        channels = 2 * int(crop["neighbours"]) + 1
        return cls(
            slices=int(crop["slices"]),
            channels=channels,
            side_px=int(crop["side_px"]),
            pixel_mm=float(crop["pixel_mm"]),
            neighbour_mm=float(crop["neighbour_mm"]),
        )


class Classifier(ABC):
    """A network that says how likely a vertebra is fractured.

    Nothing heavy happens before ``train``, ``logits`` or ``heat`` is called.
    """

    needs_start: ClassVar[bool] = False  # what it started from is not kept with it

    def __init__(self, config: ClassifierConfig, shape: CropShape, root: Location):
        """Take the settings.

        Args:
            config: How it is trained.
            shape: Of the crops.
            root: The store, for what may be computed once and kept.
        """
        self.config = config
        self.shape = shape
        self.root = root

    @abstractmethod
    def start(self) -> dict[str, Any]:
        """Say what the network starts from: recorded, and part of its identity.

        Raises:
            SettingsError: If the weights that it should start from cannot be used.
        """

    @abstractmethod
    def train(self, data: TrainingSet, on_epoch: OnEpoch | None = None) -> Trained:
        """Train; afterwards the best weights are in use."""

    @abstractmethod
    def stored_logits(self, crops: CropStore, rows: pd.DataFrame) -> Logits:
        """Return the logits (N,) of vertebrae in a store, in the order of the rows."""

    @abstractmethod
    def logits(self, vertebrae: Sequence[Vertebra]) -> Logits:
        """Return the logits (N,) of vertebrae in memory."""

    @abstractmethod
    def heat(self, vertebra: Vertebra) -> Heat:
        """Return where a fracture is suspected, 0..1, (K, side, side)."""

    def look(self, vertebrae: Sequence[Vertebra]) -> tuple[Logits, list[Heat]]:
        """Return ``logits`` and the ``heat`` of each vertebra."""
        return self.logits(vertebrae), [self.heat(each) for each in vertebrae]

    @abstractmethod
    def get_weights(self) -> Weights:
        """Return what has to be kept of the network."""

    @abstractmethod
    def set_weights(self, weights: Weights) -> None:
        """Use weights that ``get_weights`` gave.

        Raises:
            StoreError: If they belong to another network.
        """

    @abstractmethod
    def keras_model(self) -> tuple["keras.Model", npt.NDArray[np.float32]]:
        """Return what was trained, as a Keras model, and an example of its input."""

    @property
    @abstractmethod
    def parameters(self) -> int:
        """Number of weights of the whole network."""


def in_batches(items: Iterable[T], size: int) -> Iterable[list[T]]:
    """Yield lists of at most ``size`` items."""
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def require_same_shapes(now: Weights, given: Weights, name: str) -> None:
    """Require that weights fit a network.

    Raises:
        StoreError: If not, naming the first layer that differs.
    """
    from csfd_core.errors import StoreError

    if len(now) != len(given):
        raise StoreError(
            f"The weights of {name} belong to another network: it has {len(now)} "
            f"arrays, the file {len(given)}. Train it again."
        )
    for index, (array, other) in enumerate(zip(now, given, strict=True)):
        if array.shape != other.shape:
            raise StoreError(
                f"The weights of {name} belong to another network: array {index} has "
                f"the shape {array.shape}, in the file {other.shape}. Train it again."
            )


def enlarged(maps: npt.NDArray[np.float32], side_px: int) -> npt.NDArray[np.float32]:
    """Interpolate maps of coarse cells linearly, (K, n, n) to pixels (K, side, side).

    The middle of a cell stays where it is: in the middle of the pixels that it covers.
    """
    scale = (1, side_px / maps.shape[1], side_px / maps.shape[2])
    fine = ndimage.zoom(
        maps.astype(np.float32), scale, order=1, mode="nearest", grid_mode=True
    )
    return np.asarray(fine, dtype=np.float32)
