"""The basic CNN: small, from scratch, fully convolutional.

It judges every place of a slice by the 30 pixels around it. It learns from patches,
where fractures are half of all, and is then used on whole crops: the vertebra's logit
is the mean of its most suspicious places, and the places are the heatmap. Each place is
judged as it is, in the mirror and as seen from the feet, and these views are averaged.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage

from csfd_core.classification.basic_cnn.patches import PatchPool, to_inputs
from csfd_core.classification.classifier import (
    Classifier,
    TrainingSet,
    in_batches,
    require_same_shapes,
)
from csfd_core.classification.validation import (
    Logits,
    mean_of_steps,
    validation_scores,
)
from csfd_core.classification.vertebrae import Grey, Vertebra, read_vertebrae
from csfd_core.errors import StoreError
from csfd_core.learning.checkpoint import Weights
from csfd_core.learning.loop import Loop, OnEpoch, Trained, take_steps, train_epochs
from csfd_core.runtime.compute import all_devices, computing, predict_in_batches
from csfd_core.store.crops import CropStore
from csfd_core.vocabulary import LEVEL_NAMES

if TYPE_CHECKING:
    import keras

NAME: Final = "basic_cnn"
_STEP: Final = 4  # pixels from one place to the next: two poolings
_CENTRE: Final = 4  # places on a side, in the middle of a patch, that are judged
_PATCH_PLACES: Final = 4  # of these, whose mean is the logit of a patch
_PLACES: Final = 3  # whose mean is the logit of a vertebra
_NEAR_PX: Final = 4  # places so far from the mask count
_NOWHERE: Final = -12.0  # logit of places away from the vertebra
_TOGETHER: Final = len(LEVEL_NAMES)  # vertebrae computed at once,
_PIXELS: Final = 1 << 20  # unless they have more than these
_WARM_UP: Final = 40  # steps
_TRUSTED: Final = 0.6  # share of the epochs before it may say where fractures are


class BasicCnn(Classifier):
    """See the module."""

    def start(self) -> dict[str, Any]:
        """Say that it starts from nothing."""
        return {"weights": "none", "digest": f"seed {self.config.seed}"}

    def train(self, data: TrainingSet, on_epoch: OnEpoch | None = None) -> Trained:
        """Train on patches; places are mined anew before each epoch but the first.

        Raises:
            StoreError: If there are no fractured vertebrae, or only such.
        """
        with computing(self.config.mixed_precision):
            import keras

            keras.utils.set_random_seed(self.config.seed)
            with all_devices():
                model = self.patch_model()
            pools = _Pools(data, self)
            loop = Loop(
                model=model,
                epochs=self.config.epochs,
                run_epoch=lambda epoch: self._run_epoch(model, pools, epoch),
                validate=lambda: self._validate(data),
                folder=data.folder,
                patience=self.config.patience,
            )
            return train_epochs(loop, on_epoch)

    def stored_logits(self, crops: CropStore, rows: pd.DataFrame) -> Logits:
        """Return the logits of vertebrae in a store."""
        return self._stored_logits(crops, rows, all_views=self.config.average_views)

    def _validate(self, data: TrainingSet) -> Mapping[str, float]:
        logits = self._stored_logits(data.crops, data.validation, all_views=False)
        return validation_scores(logits, data.validation_labels)

    def _stored_logits(
        self, crops: CropStore, rows: pd.DataFrame, *, all_views: bool
    ) -> Logits:
        by_row = pd.Series(np.nan, index=rows.index, dtype=float)
        read: list[Any] = []

        def vertebrae() -> Any:  # noqa: ANN401 - an iterator that notes the places
            for index, vertebra in read_vertebrae(crops, rows):
                read.append(index)
                yield vertebra

        logits = [
            _logits_of(self._places(batch, all_views=all_views))
            for batch in in_batches(vertebrae(), _TOGETHER)
        ]
        if logits:
            by_row.loc[read] = np.concatenate(logits)
        return np.asarray(by_row.to_numpy(), dtype=float)

    def logits(self, vertebrae: Sequence[Vertebra]) -> Logits:
        """Return the mean of the most suspicious places of each vertebra."""
        if not vertebrae:
            return np.empty(0)
        return _logits_of(self._places(vertebrae, all_views=self.config.average_views))

    def heat(self, vertebra: Vertebra) -> npt.NDArray[np.float32]:
        """Return the probability of each place, smoothly between them."""
        places = self._places([vertebra], all_views=self.config.average_views)[0]
        heat = 1 / (1 + np.exp(-places))
        return np.asarray(
            np.clip(ndimage.zoom(heat, (1, _STEP, _STEP), order=1), 0, 1),
            dtype=np.float32,
        )

    def suspects(self, vertebrae: Sequence[Vertebra]) -> list[npt.NDArray[np.float64]]:
        """Return the most suspicious places: crop, row and column, shape (n, 3)."""
        suspected: list[npt.NDArray[np.float64]] = []
        for batch in in_batches(vertebrae, _TOGETHER):
            for places in self._places(batch, all_views=False):
                order = np.argsort(places, axis=None)[::-1][:_PLACES]
                at = np.stack(np.unravel_index(order, places.shape), axis=1)
                scaled = at.astype(float)
                scaled[:, 1:] = (scaled[:, 1:] + 0.5) * _STEP - 0.5
                suspected.append(scaled)
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
        """Return the network with the pooling of patches, compiled."""
        import keras

        side = self.config.patch_px
        inputs = keras.Input((side, side, self.shape.channels + 1))
        places = self._network(inputs)
        edge = max(0, (int(places.shape[1]) - _CENTRE) // 2)
        centre = keras.layers.Cropping2D(edge)(places)
        outputs = _top_mean(keras)(keras.layers.Flatten()(centre))
        model = keras.Model(inputs, outputs)
        steps = self.config.epochs * self.config.steps_per_epoch
        warm_up = min(_WARM_UP, max(1, steps // 10))
        schedule = keras.optimizers.schedules.CosineDecay(
            self.config.learning_rate / 30,
            max(1, steps - warm_up),
            warmup_target=self.config.learning_rate,
            warmup_steps=warm_up,
            alpha=0.01,
        )
        model.compile(
            keras.optimizers.AdamW(
                schedule, weight_decay=self.config.weight_decay, clipnorm=1.0
            ),
            loss=keras.losses.BinaryCrossentropy(from_logits=True),
            metrics=[keras.metrics.BinaryAccuracy("accuracy", threshold=0.0)],
            jit_compile=False,
        )
        model.optimizer.build(model.trainable_variables)
        return model

    def _run_epoch(
        self, model: "keras.Model", pools: "_Pools", epoch: int
    ) -> Mapping[str, float]:
        """Take the steps of one epoch."""
        pool = pools.pool(epoch)
        batches = (
            pool.batch(
                self.config.batch_size,
                np.random.default_rng([self.config.seed, epoch, step]),
            )
            for step in range(self.config.steps_per_epoch)
        )
        return mean_of_steps(take_steps(model, batches))

    def _places(
        self, vertebrae: Sequence[Vertebra], *, all_views: bool
    ) -> npt.NDArray[np.float32]:
        """Return the logits of all places, (N, K, side / 4, side / 4).

        Args:
            vertebrae: N of them, at least one.
            all_views: Average over the views, which takes four times as long and errs
                less; watching and mining while it trains do without.
        """
        inputs = np.concatenate([to_inputs(vertebra) for vertebra in vertebrae])
        slices = self.shape.slices
        together = slices * min(
            _TOGETHER, max(1, _PIXELS // inputs[:slices, ..., 0].size)
        )

        def judge(inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            return predict_in_batches(self._network, inputs, together)[..., 0]

        judged = _mean_of_views(inputs, judge) if all_views else judge(inputs)
        near = np.concatenate([_near(vertebra.masks) for vertebra in vertebrae])
        logits = np.where(near, judged, _NOWHERE)
        return np.asarray(logits.reshape(len(vertebrae), -1, *logits.shape[1:]))


class _Pools:
    """The vertebrae in memory: the same in every epoch where they all fit."""

    def __init__(self, data: TrainingSet, network: BasicCnn) -> None:
        self._data, self._network = data, network
        self._pool: PatchPool | None = None
        self._fits = len(data.training) <= network.config.most_vertebrae

    def pool(self, epoch: int) -> PatchPool:
        config = self._network.config
        rng = np.random.default_rng([config.seed, epoch])
        if not self._fits:
            self._pool = None  # its memory is needed for the next one
            self._pool = self._read(rng)
        elif self._pool is None:  # the same ones when a training goes on
            self._pool = self._read(np.random.default_rng([config.seed, 0]))
        if epoch:
            trusted = epoch >= config.epochs * _TRUSTED
            self._pool.mine(self._network.suspects, rng, trusted=trusted)
        return self._pool

    def _read(self, rng: np.random.Generator) -> PatchPool:
        config = self._network.config
        rows = self._data.training
        is_fractured = (rows["label"] == 1).to_numpy(dtype=bool)
        half = config.most_vertebrae // 2
        fractured = rng.permutation(np.flatnonzero(is_fractured))[:half]
        whole = rng.permutation(np.flatnonzero(~is_fractured))
        whole = whole[: config.most_vertebrae - len(fractured)]
        chosen = rows.iloc[np.sort(np.concatenate([fractured, whole]))]
        pool = PatchPool(config.patch_px, config.mined_share)
        labels = chosen["label"].astype(int).to_dict()
        for index, vertebra in read_vertebrae(self._data.crops, chosen):
            pool.add(vertebra, labels[index])
        if not pool.can_train:
            raise StoreError(
                f"The training studies hold {len(fractured)} fractured and "
                f"{len(whole)} whole vertebrae; both are needed. Add labelled studies."
            )
        return pool


def _build(filters: Sequence[int], channels: int, keras: Any) -> "keras.Model":  # noqa: ANN401
    layers = keras.layers
    inputs = keras.Input((None, None, channels))
    values = inputs
    for depth, width in enumerate(filters):
        for _ in range(2 if depth else 1):
            values = layers.Conv2D(width, 3, padding="same", use_bias=False)(values)
            values = layers.BatchNormalization(momentum=0.9)(values)
            values = layers.ReLU()(values)
        if 2**depth < _STEP:
            values = layers.MaxPooling2D(2)(values)
    values = layers.Dropout(0.2)(values)
    outputs = layers.Conv2D(1, 1, dtype="float32")(values)
    return keras.Model(inputs, outputs, name=NAME)


def _top_mean(keras: Any) -> "keras.Layer":  # noqa: ANN401 - the module
    def pool(places: Any) -> Any:  # noqa: ANN401 - tensors
        best = keras.ops.top_k(places, _PATCH_PLACES)[0]
        return keras.ops.mean(best, axis=-1, keepdims=True)

    return keras.layers.Lambda(pool, output_shape=(1,))


def _logits_of(places: npt.NDArray[np.float32]) -> Logits:
    """Return the mean of the most suspicious places of each vertebra, (N,)."""
    flat = places.reshape(len(places), -1)
    most = min(_PLACES, flat.shape[1])
    return np.asarray(np.sort(flat, axis=1)[:, -most:].mean(axis=1), dtype=float)


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
    return np.asarray(wide[:, _STEP // 2 :: _STEP, _STEP // 2 :: _STEP] > 0)
