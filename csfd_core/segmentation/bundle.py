"""A trained model as it is kept: ``model.json`` and ``weights.npz`` under one location.

The weights are plain arrays in half precision, which costs no accuracy here and halves
the size; nothing in the files is code, so a model from elsewhere can be opened safely.
"""

import io
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np

from csfd_core.errors import StoreError
from csfd_core.learning.checkpoint import Weights, read_arrays
from csfd_core.segmentation.card import SegmentationCard
from csfd_core.segmentation.config import ModelConfig
from csfd_core.store.locations import Location

CARD: Final = "model.json"
WEIGHTS: Final = "weights.npz"
BUILTIN: Final = "builtin"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBundle:
    """A model: its card, and weights in the order of ``keras.Model.get_weights``."""

    card: SegmentationCard
    weights: Weights

    @property
    def config(self) -> ModelConfig:
        """The networks that the weights belong to."""
        return self.card.networks

    @property
    def name(self) -> str:
        """Identity of the weights, as recorded by who trained them."""
        return self.card.model_id


def write_bundle(location: Location, bundle: ModelBundle) -> int:
    """Write a model, its card last; return the size in bytes."""
    sink = io.BytesIO()
    arrays = {
        f"{index:03d}": np.asarray(value, dtype=np.float16)
        for index, value in enumerate(bundle.weights)
    }
    np.savez(sink, **arrays)  # type: ignore[arg-type]  # a savez option is no array
    text = bundle.card.to_json()
    location.write(WEIGHTS, sink.getvalue())
    location.write(CARD, text)
    return len(sink.getvalue()) + len(text)


def read_bundle(location: Location) -> ModelBundle:
    """Read a model.

    Raises:
        SourceError: If it is absent.
        StoreError: If its files are no model of this csfd.
    """
    try:
        card = SegmentationCard.from_json(location.read(CARD))
    except (KeyError, TypeError, ValueError, StoreError) as error:
        raise StoreError(
            f"{location} holds no segmentation model of this csfd. {error}"
        ) from error
    weights = read_arrays(location.read(WEIGHTS), f"{location}/{WEIGHTS}")
    return ModelBundle(card=card, weights=weights)


def read_card(location: Location, **fields: Any) -> SegmentationCard | None:  # noqa: ANN401
    """Return the card of a model without its weights, ``None`` where there is none.

    Args:
        location: Where the model lies.
        fields: That follow from there, for older cards that lack them.

    Raises:
        StoreError: If it is of a newer csfd, or no card.
    """
    if not location.exists(CARD):
        return None
    return SegmentationCard.from_json(location.read(CARD), **fields)


def builtin_location() -> Location:
    """Return where the model that comes with csfd lies."""
    return Location(Path(str(files("csfd_core.segmentation") / "builtin")))
