"""A trained model as it is kept: ``model.json`` and ``weights.npz`` under one location.

The weights are plain arrays in half precision, which costs no accuracy here and halves
the size; nothing in the files is code, so a model from elsewhere can be opened safely.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from csfd_core.errors import StoreError
from csfd_core.segmentation.config import FORMAT, ModelConfig
from csfd_core.store.locations import Location

CARD: Final = "model.json"
WEIGHTS: Final = "weights.npz"
BUILTIN: Final = "builtin"

Weights = Sequence[npt.NDArray[np.floating]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBundle:
    """Configuration, weights in the order of ``keras.Model.get_weights``, and facts."""

    config: ModelConfig
    weights: Weights
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Identity of the weights, as recorded by who trained them."""
        return str(self.facts.get("model_id", "unnamed"))


def write_bundle(location: Location, bundle: ModelBundle) -> int:
    """Write a model, its card last; return the size in bytes."""
    sink = io.BytesIO()
    arrays = {
        f"{index:03d}": np.asarray(value, dtype=np.float16)
        for index, value in enumerate(bundle.weights)
    }
    np.savez(sink, **arrays)  # type: ignore[arg-type]  # a savez option is no array
    card = {"config": bundle.config.to_note(), "facts": dict(bundle.facts)}
    text = (json.dumps(card, indent=2, sort_keys=True) + "\n").encode()
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
        card = json.loads(location.read(CARD))
        if card["config"]["format"] != FORMAT:
            raise ValueError(card["config"]["format"])
        config = ModelConfig.from_note(card["config"])
        with np.load(io.BytesIO(location.read(WEIGHTS)), allow_pickle=False) as arrays:
            weights = [arrays[key].astype(np.float32) for key in sorted(arrays.files)]
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{location} holds no segmentation model of this csfd. Train it again."
        ) from error
    return ModelBundle(config=config, weights=weights, facts=card["facts"])


def read_card(location: Location) -> dict[str, Any] | None:
    """Return the facts of a model without its weights, ``None`` where there is none."""
    if not location.exists(CARD):
        return None
    return dict(json.loads(location.read(CARD))["facts"])


def builtin_location() -> Location:
    """Return where the model that comes with csfd lies."""
    return Location(Path(str(files("csfd_core.segmentation") / "builtin")))
