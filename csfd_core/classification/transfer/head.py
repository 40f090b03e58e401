"""The head on the features of a backbone: from slices to one vertebra."""

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from csfd_core.classification.config import ClassifierConfig

if TYPE_CHECKING:
    import keras

_LARGEST_WEIGHT: Final = 20.0
_SCALE: Final = "scale"
_EPSILON: Final = 1e-20  # random backbones have features as small as 1e-7
_AT_ONCE: Final = 256  # vertebrae
_LEAST_VARIANCE: Final = 0.01  # of the mean one; a feature may be constant in training


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
    # Not Normalization, which does not notice ``set_weights``.
    values = layers.BatchNormalization(
        center=False, scale=False, epsilon=_EPSILON, trainable=False, name=_SCALE
    )(inputs)
    values = layers.Dropout(config.dropout)(values)
    values = layers.Dense(config.hidden, activation="relu")(values)
    values = layers.Dropout(config.dropout)(values)
    logits = layers.Dense(1, name="slices", dtype="float32")(values)
    attention = layers.Softmax(axis=1)(logits)
    pooled = layers.Dot(axes=1)([attention, logits])
    vertebra = layers.Flatten(name="vertebra")(pooled)
    return keras.Model(inputs, {"vertebra": vertebra, "slices": logits}, name="head")


def scale_to(head: "keras.Model", features: npt.NDArray[np.floating]) -> None:
    """Let a head scale its features to mean 0 and deviation 1, as in (N, K, D)."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    for start in range(0, len(features), _AT_ONCE):  # double precision takes room
        part = features[start : start + _AT_ONCE].astype(np.float64)
        scaler.partial_fit(part.reshape(-1, part.shape[-1]))
    variance = np.maximum(scaler.var_, _LEAST_VARIANCE * scaler.var_.mean())
    head.get_layer(_SCALE).set_weights([scaler.mean_, variance])


def positive_weight(labels: npt.NDArray[np.floating]) -> float:
    """Return how much more a fractured vertebra counts: the root of the imbalance.

    The full imbalance makes few examples too loud; the prior is corrected afterwards.
    """
    positives = float((labels == 1).sum())
    if not positives:
        return 1.0
    return min(float(np.sqrt((len(labels) - positives) / positives)), _LARGEST_WEIGHT)


def slice_marks(
    rows: pd.DataFrame, slices: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return labels of slices (N, K), and 1 for vertebrae where these are known (N,).

    Args:
        rows: Of the manifest.
        slices: K, of a vertebra.
    """
    marks = np.zeros((len(rows), slices), dtype=np.float32)
    is_marked = np.asarray(rows["slice_labels"].notna(), dtype=np.float32)
    for index, labels in enumerate(rows["slice_labels"]):
        if is_marked[index]:
            marks[index] = labels
    return marks, is_marked


def compile_model(model: "keras.Model", rate: float) -> "keras.Model":
    """Prepare a network with the outputs of the head for training; return it."""
    import keras

    cross_entropy = keras.losses.BinaryCrossentropy(from_logits=True)
    accuracy = keras.metrics.BinaryAccuracy("accuracy", threshold=0.0)
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=1e-3, clipnorm=1.0),
        loss={"vertebra": cross_entropy, "slices": cross_entropy},
        metrics={"vertebra": [accuracy]},
        jit_compile=False,
    )
    model.optimizer.build(model.trainable_variables)
    return model
