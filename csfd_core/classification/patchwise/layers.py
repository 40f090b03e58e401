"""The convolutions that all networks for patches are made of."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import keras

STEP: Final = 4  # pixels from one place to the next: two poolings


def convolutions(values: Any, filters: Sequence[int]) -> Any:  # noqa: ANN401 - tensors
    """Return features of every fourth pixel, each seen with the 30 pixels around it.

    Args:
        values: Shape (N, H, W, channels).
        filters: Width of each of three resolutions; 30 pixels hold for three.
    """
    from keras import layers

    for depth, width in enumerate(filters):
        for _ in range(2 if depth else 1):
            values = layers.Conv2D(width, 3, padding="same", use_bias=False)(values)
            values = layers.BatchNormalization(momentum=0.9)(values)
            values = layers.ReLU()(values)
        if 2**depth < STEP:
            values = layers.MaxPooling2D(2)(values)
    return values


def folded(model: "keras.Model") -> Callable[[Any], Any]:
    """Return what computes a trained network of convolutions, in fewer passes.

    What normalizes the output of a convolution becomes part of its kernel, so that
    TensorFlow makes one pass of convolution, bias and ReLU. Kernels are read at each
    call: a network that is trained on is computed as it is then.

    Args:
        model: One layer after the other.
    """
    import keras

    if model.compute_dtype != "float32":  # where it runs on a GPU
        return lambda values: model(values, training=False)
    layers = [layer for layer in model.layers if layer.weights or _acts(layer, keras)]

    def compute(values: Any) -> Any:  # noqa: ANN401 - tensors
        for layer, following in zip(layers, [*layers[1:], None], strict=True):
            if isinstance(following, keras.layers.BatchNormalization):
                values = _normalized(layer, following, values)
            elif not isinstance(layer, keras.layers.BatchNormalization):
                values = layer(values, training=False)
        return values

    return compute


def _acts(layer: "keras.Layer", keras: Any) -> bool:  # noqa: ANN401 - the module
    return not isinstance(layer, keras.layers.InputLayer | keras.layers.Dropout)


def _normalized(
    convolution: "keras.Layer", normalization: "keras.Layer", values: Any
) -> Any:  # noqa: ANN401 - tensors
    """Convolve and normalize: Ioffe and Szegedy (2015), section 3.1, for inference."""
    import tensorflow as tf

    spread = tf.math.rsqrt(
        tf.convert_to_tensor(normalization.moving_variance) + normalization.epsilon
    )
    scale = spread * tf.convert_to_tensor(normalization.gamma)
    mean = tf.convert_to_tensor(normalization.moving_mean)
    shift = tf.convert_to_tensor(normalization.beta) - mean * scale
    kernel = tf.convert_to_tensor(convolution.kernel) * scale
    convolved = tf.nn.conv2d(values, kernel, convolution.strides, "SAME")
    return tf.nn.bias_add(convolved, shift)
