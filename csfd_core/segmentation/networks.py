"""The networks. Keras is imported when one is built, never when this module is."""

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from csfd_core.runtime.compute import computing
from csfd_core.segmentation.bundle import ModelBundle
from csfd_core.segmentation.config import ModelConfig, NetworkConfig

if TYPE_CHECKING:
    import keras

_FINE_FILTERS: Final = 10


def build_model(config: ModelConfig) -> "keras.Model":
    """Build both networks as one model, so that they train and are kept together.

    Inputs and outputs are dictionaries with the keys ``locator`` and ``segmenter``:
    grey levels 0..1 (and coordinates) in, logits out, shape (N, Z, Y, X, channels).
    """
    import keras

    inputs, outputs = {}, {}
    for name, network in (("locator", config.locator), ("segmenter", config.segmenter)):
        shape = (*network.shape_zyx, network.channels)
        inputs[name] = keras.Input(shape, name=name)
        outputs[name] = build_unet(network, f"{name}_unet")(inputs[name])
    return keras.Model(inputs, outputs, name="vertebrae")


def open_keras_model(
    bundle: ModelBundle,
) -> tuple["keras.Model", dict[str, np.ndarray[Any, np.dtype[np.float32]]]]:
    """Return a trained model as Keras knows it, and an example of its input.

    It is of Keras' own layers only and carries no loss, so that it can be saved and
    loaded elsewhere without csfd.
    """
    with computing():
        model = build_model(bundle.config)
        model.set_weights(bundle.weights)
    example = {
        name: np.zeros((1, *network.shape_zyx, network.channels), dtype=np.float32)
        for name, network in (
            ("locator", bundle.config.locator),
            ("segmenter", bundle.config.segmenter),
        )
    }
    return model, example


def build_unet(config: NetworkConfig, name: str) -> "keras.Model":
    """Build one U-Net, normalized per study, for any grid that halves evenly.

    A first convolution with a step of two and a last transposed one make the
    network see and label the fine grid while nearly all work is done on the coarse
    one.
    """
    import keras

    layers = keras.layers
    inputs = keras.Input((None, None, None, config.channels))
    first = config.filters[0]
    values = inputs
    if config.stem == 2:
        values = layers.Conv3D(first, 4, strides=2, padding="same")(values)
    skips = []
    for filters in config.filters[:-1]:
        values = _block(values, filters)
        skips.append(values)
        values = layers.Conv3D(filters, 2, strides=2)(values)
    values = _block(values, config.filters[-1])
    for filters, skip in zip(config.filters[-2::-1], skips[::-1], strict=True):
        values = layers.Conv3DTranspose(filters, 2, strides=2)(values)
        values = _block(layers.Concatenate()([values, skip]), filters)
    if config.stem == 2:
        logits = layers.Conv3DTranspose(
            config.classes, 4, strides=2, padding="same", dtype="float32"
        )(values)
        logits = _sharpen(logits, inputs, config.classes)
    else:
        logits = layers.Conv3D(config.classes, 1, dtype="float32")(values)
    return keras.Model(inputs, logits, name=name)


def _sharpen(logits: Any, inputs: Any, classes: int) -> Any:  # noqa: ANN401 - tensors
    """Let the outlines follow the grey levels of the fine grid.

    What the coarse features say of eight fine voxels at once is blurred; a small
    correction, nothing at first, looks at the voxels themselves.
    """
    import keras

    layers = keras.layers
    both = layers.Concatenate(dtype="float32")(
        [layers.Softmax(dtype="float32")(logits), inputs]
    )
    near = layers.Conv3D(_FINE_FILTERS, 3, padding="same")(both)
    near = layers.LeakyReLU(negative_slope=0.01)(near)
    change = layers.Conv3D(
        classes, 3, padding="same", kernel_initializer="zeros", dtype="float32"
    )(near)
    return layers.Add(dtype="float32")([logits, change])


def _block(values: Any, filters: int) -> Any:  # noqa: ANN401 - a symbolic tensor
    import keras

    for _ in range(2):
        values = keras.layers.Conv3D(filters, 3, padding="same", use_bias=False)(values)
        values = keras.layers.GroupNormalization(groups=-1, epsilon=1e-3)(values)
        values = keras.layers.LeakyReLU(negative_slope=0.01)(values)
    return values
