"""A trained model as it is kept: ``model.json`` and its weights under one location.

In a store the card is written last and names the file of the weights, which no other
training has (``learning.training_files``); elsewhere it is ``weights.npz``.

The weights are plain arrays in half precision, which costs no accuracy here and halves
the size; nothing in the files is code, so a model from elsewhere can be opened safely.
"""

import io
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np

from csfd_core.errors import StoreError
from csfd_core.learning.checkpoint import Weights, read_arrays
from csfd_core.learning.training_files import keep_training
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


def write_bundle(location: Location, bundle: ModelBundle) -> None:
    """Write a model where it is read by nobody yet, its card last."""
    location.write(bundle.card.file_name(WEIGHTS), weights_file(bundle.weights))
    location.write(CARD, bundle.card.to_json())


def replace_bundle(location: Location, bundle: ModelBundle) -> ModelBundle:
    """Write a model in place of the one before; return it with its card as written.

    Whoever reads meanwhile has one or the other, whole.
    """
    files = {WEIGHTS: weights_file(bundle.weights)}
    return replace(bundle, card=keep_training(location, CARD, bundle.card, files))


def weights_file(weights: Weights) -> bytes:
    """Return the file of weights."""
    sink = io.BytesIO()
    arrays = {
        f"{index:03d}": np.asarray(value, dtype=np.float16)
        for index, value in enumerate(weights)
    }
    np.savez(sink, **arrays)  # type: ignore[arg-type]  # a savez option is no array
    return sink.getvalue()


def read_bundle(
    location: Location, card: SegmentationCard | None = None
) -> ModelBundle:
    """Read a model.

    Args:
        location: Where it lies.
        card: That was read of it; ``None``: that of its newest training.

    Raises:
        SourceError: If it is absent, or two trainings have replaced it since the card
            was read.
        StoreError: If its files are no model of this csfd.
    """
    try:
        card = card or SegmentationCard.from_json(location.read(CARD))
    except (KeyError, TypeError, ValueError, StoreError) as error:
        raise StoreError(
            f"{location} holds no segmentation model of this csfd. {error}"
        ) from error
    name = card.file_name(WEIGHTS)
    weights = read_arrays(location.read(name), f"{location}/{name}")
    return ModelBundle(card=card, weights=weights)


def read_card(location: Location, **fields: Any) -> SegmentationCard | None:  # noqa: ANN401
    """Return the card of a model without its weights, ``None`` where there is none.

    Args:
        location: Where the model lies.
        fields: That follow from there, for older cards that lack them.

    Raises:
        StoreError: If it is of a newer csfd, or no card.
    """
    content = location.read_if_there(CARD)
    if content is None:
        return None
    return SegmentationCard.from_json(content, **fields)


def builtin_location() -> Location:
    """Return where the model that comes with csfd lies."""
    return Location(Path(str(files("csfd_core.segmentation") / "builtin")))
