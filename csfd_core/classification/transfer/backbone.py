"""Backbones of ``keras.applications`` with a head of our own: transfer learning.

First the backbone is frozen: its pooled features are computed once and kept, and only
the head is trained on them. Then, where the settings ask for it, the top blocks of the
backbone are trained further at a low rate.

The head judges every slice; the vertebra's logit is the mean over its slices, weighted
by how suspicious each is. Where fracture boxes tell which slices show the fracture, the
slices learn from that as well.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage

from csfd_core.classification.classifier import (
    Classifier,
    CropShape,
    TrainingSet,
    enlarged,
    require_same_shapes,
)
from csfd_core.classification.config import ClassifierConfig
from csfd_core.classification.transfer.applications import Application
from csfd_core.classification.transfer.features import FeatureCache
from csfd_core.classification.transfer.head import (
    build_head,
    compile_model,
    positive_weight,
    scale_to,
    slice_marks,
)
from csfd_core.classification.transfer.weights import digest_of, load_backbone
from csfd_core.classification.validation import (
    Logits,
    mean_of_steps,
    validation_scores,
)
from csfd_core.classification.vertebrae import Vertebra, read_vertebrae
from csfd_core.evaluation.calibration import correct_prior
from csfd_core.learning.checkpoint import Weights
from csfd_core.learning.loop import (
    Loop,
    OnEpoch,
    Trained,
    take_steps,
    train_epochs,
)
from csfd_core.learning.outcomes import StopReason
from csfd_core.runtime.compute import computing, predict_in_batches
from csfd_core.store.crops import CropStore
from csfd_core.store.locations import Location
from csfd_core.vocabulary import LEVEL_NAMES

if TYPE_CHECKING:
    import keras

_HEAD_BATCH: Final = 32  # vertebrae
_HEAD_RATE: Final = 1e-3
_TUNE_BATCH: Final = 4  # vertebrae, with all their slices
_OUTSIDE: Final = 0.4  # brightness of what is not the vertebra
_NEAR_PX: Final = 6


@dataclass(frozen=True, slots=True)
class _Opener:
    """Builds the same backbone in another process."""

    spec: Application
    config: ClassifierConfig
    shape: CropShape
    root_url: str

    def __call__(self) -> FeatureCache:
        settings = self.config, self.shape, Location(self.root_url)
        return BackboneClassifier(self.spec, *settings)._cache


class BackboneClassifier(Classifier):
    """A backbone and its head."""

    needs_start = True

    def __init__(self, spec: Application, *settings: Any) -> None:  # noqa: ANN401
        """Take the backbone, and what every classifier takes."""
        super().__init__(*settings)
        self.spec = spec
        self._tuned: Weights | None = None  # of the backbone, once it was trained

    def start(self) -> dict[str, Any]:
        """Say which weights the backbone has."""
        return {"weights": self.config.weights, "digest": self._digest}

    def train(self, data: TrainingSet, on_epoch: OnEpoch | None = None) -> Trained:
        """Train the head on cached features, then the top blocks if asked for."""
        with computing(self.config.mixed_precision):
            import keras

            keras.utils.set_random_seed(self.config.seed)
            trained = self._train_head(data, on_epoch)
            is_broken = trained.stopped is StopReason.NOT_A_NUMBER
            if self.config.fine_tune_epochs and not is_broken:
                trained = self._fine_tune(data, trained, on_epoch)
            return trained

    def stored_logits(self, crops: CropStore, rows: pd.DataFrame) -> Logits:
        """Return the logits of vertebrae in a store, from cached features if frozen."""
        by_row = pd.Series(np.nan, index=rows.index, dtype=float)
        if self._tuned is None:
            for index, features in self._cache.read(crops, rows):
                by_row.loc[index] = self._head_logits(features)
        else:
            for study_uid in rows["study_uid"].unique():
                of_study = rows[rows["study_uid"] == study_uid]
                pairs = dict(read_vertebrae(crops, of_study))
                by_row.loc[list(pairs)] = self.logits(list(pairs.values()))
        return np.asarray(by_row.to_numpy(), dtype=float)

    def logits(self, vertebrae: Sequence[Vertebra]) -> Logits:
        """Return the logits of vertebrae in memory."""
        if not vertebrae:
            return np.empty(0)
        return self._head_logits(self._extract(list(vertebrae)))

    def heat(self, vertebra: Vertebra) -> npt.NDArray[np.float32]:
        """Return Grad-CAM (Selvaraju et al. 2017), scaled per vertebra."""
        with computing(self.config.mixed_precision):
            import tensorflow as tf

            inputs = self._to_inputs([vertebra])
            maps = tf.convert_to_tensor(self._network(inputs, training=False))
            with tf.GradientTape() as tape:
                tape.watch(maps)
                pooled = tf.reduce_mean(maps, axis=(1, 2))[None]
                logit = self._head(tf.cast(pooled, tf.float32), training=False)
                vertebra_logit = logit["vertebra"][0, 0]
            gradient = tf.reduce_mean(tape.gradient(vertebra_logit, maps), axis=(1, 2))
            cam = tf.nn.relu(tf.einsum("khwc,kc->khw", maps, gradient)).numpy()
        heat = enlarged(cam, self.shape.side_px)
        peak = float(heat.max())
        return np.asarray(np.clip(heat / peak if peak else heat, 0, 1), np.float32)

    def get_weights(self) -> Weights:
        """Return the head's weights, and the backbone's if these were trained."""
        return [*self._head.get_weights(), *(self._tuned or [])]

    def set_weights(self, weights: Weights) -> None:
        """Use weights that were kept."""
        of_head = self._head.get_weights()
        head, rest = weights[: len(of_head)], weights[len(of_head) :]
        require_same_shapes(of_head, head, self.spec.name)
        self._head.set_weights(head)
        if rest:
            require_same_shapes(self._network.get_weights(), rest, self.spec.name)
            self._network.set_weights(rest)
            self._tuned = rest

    def keras_model(self) -> tuple["keras.Model", npt.NDArray[np.float32]]:
        """Return the head, or the whole network once its backbone was trained."""
        slices, side = self.shape.slices, self.shape.side_px
        if self._tuned is not None:
            return self._joined(), np.zeros((1, slices, side, side, 3), np.float32)
        depth = int(self._network.output_shape[-1])
        return self._head, np.zeros((1, slices, depth), dtype=np.float32)

    @property
    def parameters(self) -> int:
        """Number of weights of backbone and head."""
        return int(self._network.count_params() + self._head.count_params())

    @cached_property
    def _network(self) -> "keras.Model":
        """The backbone: prepared slices (N, side, side, 3) to maps (N, h, w, D)."""
        with computing(self.config.mixed_precision):
            return load_backbone(
                self.spec.application,
                self.config.weights,
                self.shape.side_px,
                self.config.seed,
            )

    @cached_property
    def _digest(self) -> str:
        return digest_of(self._network)

    @cached_property
    def _head(self) -> "keras.Model":
        with computing(self.config.mixed_precision):
            import keras

            depth = int(self._network.output_shape[-1])
            keras.utils.set_random_seed(self.config.seed)  # whatever was opened before
            return build_head(self.shape.slices, depth, self.config)

    @cached_property
    def _cache(self) -> FeatureCache:
        return FeatureCache(
            root=self.root,
            backbone=self.spec.name,
            digest=self._digest,
            extract=self._extract,
            opener=_Opener(self.spec, self.config, self.shape, self.root.url),
        )

    def _train_head(self, data: TrainingSet, on_epoch: OnEpoch | None) -> Trained:
        features, labels, marks, is_marked = self._training_arrays(data)
        head = self._head
        scale_to(head, features)
        weight = positive_weight(labels)
        weights = np.where(labels == 1, weight, 1.0)
        by_slice = np.repeat((is_marked * weights)[:, None], marks.shape[1], axis=1)
        model = compile_model(head, _HEAD_RATE)

        def batch(at: npt.NDArray[np.integer]) -> tuple[Any, ...]:
            return (
                features[at].astype(np.float32),
                {"vertebra": labels[at, None], "slices": marks[at, :, None]},
                {"vertebra": weights[at], "slices": by_slice[at]},
            )

        def run_epoch(epoch: int) -> Mapping[str, float]:
            rng = np.random.default_rng([self.config.seed, epoch])
            order = rng.permutation(len(labels))
            starts = range(0, len(order), _HEAD_BATCH)
            batches = (batch(order[start : start + _HEAD_BATCH]) for start in starts)
            steps = take_steps(model, batches)
            return mean_of_steps(steps, accuracy="vertebra_accuracy")

        loop = Loop(
            model=model,
            epochs=self.config.epochs,
            run_epoch=run_epoch,
            validate=lambda: self._validate(data, weight),
            checkpoint=data.checkpoint.of_part("head"),
            patience=self.config.patience,
        )
        return train_epochs(loop, on_epoch)

    def _validate(self, data: TrainingSet, weight: float) -> Mapping[str, float]:
        """Score the validation vertebrae; ``weight`` is that of fractured ones."""
        logits = self.stored_logits(data.crops, data.validation)
        return validation_scores(correct_prior(logits, weight), data.validation_labels)

    def _training_arrays(self, data: TrainingSet) -> tuple[Any, Any, Any, Any]:
        """Return features (N, K, D), labels (N,), slice labels (N, K), known (N,)."""
        rows = data.training
        parts = list(self._cache.read(data.crops, rows))
        order = np.concatenate([index.to_numpy() for index, _ in parts])
        features = np.concatenate([part for _, part in parts])
        read = rows.loc[order]
        marks, is_marked = slice_marks(read, features.shape[1])
        labels = read["label"].to_numpy(dtype=np.float32)
        return features, labels, marks, is_marked

    def _fine_tune(
        self, data: TrainingSet, before: Trained, on_epoch: OnEpoch | None
    ) -> Trained:
        """Train the top blocks with the head, on slices, at a low rate."""
        import keras

        model = self._joined()
        names = [layer.name for layer in self._network.layers]
        first = next(
            i for i, n in enumerate(names) if n.startswith(self.spec.top_blocks)
        )
        for index, layer in enumerate(self._network.layers):
            is_norm = isinstance(layer, keras.layers.BatchNormalization)
            layer.trainable = index >= first and not is_norm
        compiled = compile_model(model, self.config.fine_tune_rate)
        rows = data.training
        weight = positive_weight(rows["label"].to_numpy(dtype=np.float32))
        done = len(before.history)

        def run_epoch(epoch: int) -> Mapping[str, float]:
            rng = np.random.default_rng([self.config.seed, 1, epoch])
            uids = rng.permutation(rows["study_uid"].unique()).tolist()
            steps = take_steps(
                compiled, self._tuning_batches(data.crops, rows, uids, weight)
            )
            self._tuned = self._network.get_weights()
            return mean_of_steps(steps, accuracy="vertebra_accuracy")

        loop = Loop(
            model=compiled,
            epochs=self.config.fine_tune_epochs,
            run_epoch=run_epoch,
            validate=lambda: self._validate(data, weight),
            checkpoint=data.checkpoint.of_part("tuned"),
            patience=self.config.patience,
        )

        def tell(row: dict[str, float]) -> None:
            if on_epoch is not None:
                on_epoch({**row, "epoch": row["epoch"] + done})

        frozen = self._network.get_weights()
        after = train_epochs(loop, tell)
        best_epoch = done + after.best_epoch
        if _lowest_loss(after) < _lowest_loss(before):
            self._tuned = self._network.get_weights()
        else:  # it has done harm: the head alone is kept
            self._network.set_weights(frozen)
            self._head.set_weights(before.weights)
            self._tuned = None
            best_epoch = before.best_epoch
        shifted = [{**row, "epoch": row["epoch"] + done} for row in after.history]
        return Trained(
            weights=self.get_weights(),
            history=[*before.history, *shifted],
            best_epoch=best_epoch,
            stopped=after.stopped,
        )

    def _tuning_batches(
        self,
        crops: CropStore,
        rows: pd.DataFrame,
        study_uids: Sequence[str],
        weight: float,
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the batches of one study after the other, with all slices."""
        for study_uid in study_uids:
            pairs = list(read_vertebrae(crops, rows[rows["study_uid"] == study_uid]))
            for start in range(0, len(pairs), _TUNE_BATCH):
                part = pairs[start : start + _TUNE_BATCH]
                batch = rows.loc[[index for index, _ in part]]
                labels = batch["label"].to_numpy(dtype=np.float32)
                inputs = self._to_inputs([vertebra for _, vertebra in part])
                shape = (len(part), self.shape.slices)
                marks, is_marked = slice_marks(batch, self.shape.slices)
                weights = np.where(labels == 1, weight, 1.0)
                by_slice = np.repeat((is_marked * weights)[:, None], shape[1], axis=1)
                yield (
                    inputs.reshape(*shape, *inputs.shape[1:]),
                    {"vertebra": labels[:, None], "slices": marks[..., None]},
                    {"vertebra": weights, "slices": by_slice},
                )

    def _joined(self) -> "keras.Model":
        """Return backbone and head as one network for whole vertebrae."""
        import keras

        side, slices = self.shape.side_px, self.shape.slices
        inputs = keras.Input((slices, side, side, 3))
        flat = keras.ops.reshape(inputs, (-1, side, side, 3))
        maps = self._network(flat, training=False)
        depth = int(self._network.output_shape[-1])
        pooled = keras.ops.mean(maps, axis=(1, 2))
        pooled = keras.ops.reshape(pooled, (-1, slices, depth))
        return keras.Model(inputs, self._head(pooled))

    def _extract(self, vertebrae: list[Vertebra]) -> npt.NDArray[np.floating]:
        """Return the pooled features of every slice, (N, K, D)."""
        inputs = self._to_inputs(vertebrae)
        together = self.shape.slices * len(LEVEL_NAMES)
        maps = predict_in_batches(self._network, inputs, together)
        pooled = maps.mean(axis=(1, 2))
        shape = (len(vertebrae), -1, pooled.shape[-1])
        return np.asarray(pooled.reshape(shape))

    def _head_logits(self, features: npt.NDArray[np.floating]) -> Logits:
        logits = self._head.predict_on_batch(features.astype(np.float32))
        return np.asarray(logits["vertebra"][:, 0], dtype=float)

    def _to_inputs(self, vertebrae: list[Vertebra]) -> npt.NDArray[np.float32]:
        """Return slices as the backbone demands them, (N * K, side, side, 3).

        The slice and its neighbours are the three colours, without neighbours thrice
        the slice; what is not the vertebra is darkened. Grey levels are 0..255 before
        the backbone's own preprocessing.
        """
        import keras

        reach = 2 * _NEAR_PX + 1
        planes = []
        for vertebra in vertebrae:
            channels = vertebra.images.shape[1]
            colours = np.clip(np.arange(-1, 2) + channels // 2, 0, channels - 1)
            grey = vertebra.images[:, colours].astype(np.float32)
            near = ndimage.maximum_filter(vertebra.masks, size=(1, reach, reach)) > 0
            grey *= np.where(near, 1.0, _OUTSIDE)[:, None]
            planes.append(grey.transpose(0, 2, 3, 1))
        module = getattr(keras.applications, self.spec.module)
        prepared = module.preprocess_input(np.concatenate(planes))
        return np.asarray(prepared, dtype=np.float32)


def _lowest_loss(trained: Trained) -> float:
    losses = [row["val_loss"] for row in trained.history]
    return min((loss for loss in losses if math.isfinite(loss)), default=math.inf)
