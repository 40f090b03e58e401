"""The convolutions that all networks for patches are made of."""

from collections.abc import Sequence
from typing import Any, Final

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
