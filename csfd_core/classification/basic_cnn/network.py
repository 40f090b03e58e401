"""The basic CNN: small, from scratch, fully convolutional.

It judges every place of a slice by the 30 pixels around it. It learns from patches,
where fractures are half of all, and is then used on whole crops: the vertebra's logit
is the mean of its most suspicious places, and the places are the heatmap. Each place is
judged as it is, in the mirror and as seen from the feet, and these views are averaged.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from csfd_core.classification.basic_cnn.patches import PatchPool, to_inputs
from csfd_core.classification.classifier import (
    enlarged,
    in_batches,
    require_same_shapes,
)
from csfd_core.classification.patchwise.classifier import (
    NOWHERE,
    TOGETHER,
    PatchClassifier,
    most_suspicious,
)
from csfd_core.classification.patchwise.layers import STEP, convolutions
from csfd_core.classification.vertebrae import Grey, Vertebra
from csfd_core.learning.checkpoint import Weights
from csfd_core.runtime.compute import computing, predict_in_batches

if TYPE_CHECKING:
    import keras

NAME: Final = "basic_cnn"
_CENTRE: Final = 4  # places on a side, in the middle of a patch, that are judged
_TOP_LOGITS: Final = 4  # of these, whose mean is the logit of a patch
_NEAR_PX: Final = 4  # places so far from the mask count
_PIXELS: Final = 1 << 20  # more are not judged at once


class BasicCnn(PatchClassifier[Vertebra]):
    """See the module."""

    name = NAME

    def open_pool(self) -> PatchPool:
        """Return an empty pool of slices."""
        return PatchPool(self.config.patch_px, self.config.mined_share)

    def spread_out(
        self, chances: npt.NDArray[np.float32], vertebra: Vertebra
    ) -> npt.NDArray[np.float32]:
        """Interpolate between the places of each slice."""
        return np.clip(enlarged(chances, chances.shape[1] * STEP), 0, 1)

    def suspects(self, vertebrae: Sequence[Vertebra]) -> list[npt.NDArray[np.float64]]:
        """Return the most suspicious places: crop, row and column, shape (n, 3)."""
        suspected: list[npt.NDArray[np.float64]] = []
        for batch in in_batches(vertebrae, TOGETHER):
            for logits in self.judge(batch, all_views=False):
                at = most_suspicious(logits).astype(float)
                at[:, 1:] = (at[:, 1:] + 0.5) * STEP - 0.5
                suspected.append(at)
        return suspected

    def get_weights(self) -> Weights:
        """Return all weights."""
        weights: Weights = self._network.get_weights()
        return weights

    def set_weights(self, weights: Weights) -> None:
        """Use weights that were kept."""
        require_same_shapes(self._network.get_weights(), weights, NAME)
        self._network.set_weights(weights)

    def keras_model(self) -> tuple["keras.Model", npt.NDArray[np.float32]]:
        """Return the network for slices, and a grey patch."""
        side = self.config.patch_px
        shape = (1, side, side, self.shape.channels + 1)
        return self._network, np.zeros(shape, dtype=np.float32)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return int(self._network.count_params())

    @cached_property
    def _network(self) -> "keras.Model":
        """The network for slices of any size: (N, H, W, C) to logits (N, H/4, W/4)."""
        with computing(self.config.mixed_precision):
            import keras

            return _build(self.config.filters, self.shape.channels + 1, keras)

    def patch_model(self) -> "keras.Model":
        """Return the network with the pooling of patches."""
        import keras

        side = self.config.patch_px
        inputs = keras.Input((side, side, self.shape.channels + 1))
        logits = self._network(inputs)
        edge = max(0, (int(logits.shape[1]) - _CENTRE) // 2)
        centre = keras.layers.Cropping2D(edge)(logits)
        outputs = _top_mean(keras)(keras.layers.Flatten()(centre))
        return keras.Model(inputs, outputs)

    def judge(
        self, vertebrae: Sequence[Vertebra], *, all_views: bool
    ) -> list[npt.NDArray[np.float32]]:
        """Return the logits of all places, (K, side / 4, side / 4) each.

        All four views take four times as long as one.
        """
        inputs = np.concatenate([to_inputs(vertebra) for vertebra in vertebrae])
        slices = self.shape.slices
        together = slices * min(
            TOGETHER, max(1, _PIXELS // inputs[:slices, ..., 0].size)
        )

        def judge(inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            return predict_in_batches(self._network, inputs, together)[..., 0]

        judged = _mean_of_views(inputs, judge) if all_views else judge(inputs)
        near = np.concatenate([_near(vertebra.masks) for vertebra in vertebrae])
        logits = np.where(near, judged, NOWHERE)
        return list(logits.reshape(len(vertebrae), -1, *logits.shape[1:]))


def _build(filters: Sequence[int], channels: int, keras: Any) -> "keras.Model":  # noqa: ANN401
    layers = keras.layers
    inputs = keras.Input((None, None, channels))
    values = convolutions(inputs, filters)
    values = layers.Dropout(0.2)(values)
    outputs = layers.Conv2D(1, 1, dtype="float32")(values)
    return keras.Model(inputs, outputs, name=NAME)


def _top_mean(keras: Any) -> "keras.Layer":  # noqa: ANN401 - the module
    def pool(logits: Any) -> Any:  # noqa: ANN401 - tensors
        best = keras.ops.top_k(logits, _TOP_LOGITS)[0]
        return keras.ops.mean(best, axis=-1, keepdims=True)

    return keras.layers.Lambda(pool, output_shape=(1,))


def _mean_of_views(
    inputs: npt.NDArray[np.float32],
    judge: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]],
) -> npt.NDArray[np.float32]:
    """Average over the slices, their mirror image, and both as seen from the feet.

    Args:
        inputs: Shape (slices, rows, columns, channels + 1), the mask last.
        judge: Returns the logits of the places, (slices, rows / 4, columns / 4).
    """
    from_feet = np.concatenate([inputs[..., -2::-1], inputs[..., -1:]], axis=-1)
    views = [
        view
        for seen in (inputs, from_feet)
        for view in (judge(seen), judge(seen[:, :, ::-1])[:, :, ::-1])
    ]
    return np.asarray(np.mean(views, axis=0), dtype=np.float32)


def _near(masks: Grey) -> npt.NDArray[np.bool_]:
    """Say which places lie on or beside the vertebra, (K, side / 4, side / 4)."""
    reach = 2 * _NEAR_PX  # even, as the middle of a place lies between two pixels
    wide = ndimage.maximum_filter(masks, size=(1, reach, reach))
    return np.asarray(wide[:, STEP // 2 :: STEP, STEP // 2 :: STEP] > 0)
