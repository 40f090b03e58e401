"""The head on the features of a backbone: from slices to one vertebra."""

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from csfd_core.classification.config import ClassifierConfig

if TYPE_CHECKING:
    import keras

_LARGEST_WEIGHT: Final = 20.0


def build_head(slices: int, depth: int, config: ClassifierConfig) -> "keras.Model":
    """Build the head.

    Args:
        slices: K, of a vertebra.
        depth: D, features of a slice.
        config: Width and dropout.

    Returns:
        A model from (N, K, D) to a dictionary of logits: ``vertebra`` (N, 1) and
        ``slices`` (N, K, 1).
    """
    import keras

    layers = keras.layers
    inputs = keras.Input((slices, depth))
    values = layers.Normalization(axis=-1, name="scale")(inputs)
    values = layers.Dropout(config.dropout)(values)
    values = layers.Dense(config.hidden, activation="relu")(values)
    values = layers.Dropout(config.dropout)(values)
    logits = layers.Dense(1, name="slices", dtype="float32")(values)
    attention = layers.Softmax(axis=1)(logits)
    pooled = layers.Dot(axes=1)([attention, logits])
    vertebra = layers.Flatten(name="vertebra")(pooled)
    return keras.Model(inputs, {"vertebra": vertebra, "slices": logits}, name="head")


def positive_weight(labels: npt.NDArray[np.floating]) -> float:
    """Return how much more a fractured vertebra counts: the root of the imbalance.

    The full imbalance makes few examples too loud; the prior is corrected afterwards.
    """
    positives = float((labels == 1).sum())
    if not positives:
        return 1.0
    return min(float(np.sqrt((len(labels) - positives) / positives)), _LARGEST_WEIGHT)
