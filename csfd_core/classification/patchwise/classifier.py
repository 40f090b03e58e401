"""A classifier that learns from patches and is then used on whole vertebrae.

What differs between such networks is how they look at a vertebra: as its slices, or as
a volume. How they are trained, watched and used on a store is the same.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from csfd_core.classification.classifier import (
    Classifier,
    Heat,
    TrainingSet,
    in_batches,
)
from csfd_core.classification.config import NONE
from csfd_core.classification.general import read_initial
from csfd_core.classification.patchwise.pool import VertebraPool
from csfd_core.classification.validation import (
    Logits,
    mean_of_steps,
    validation_scores,
)
from csfd_core.classification.vertebrae import Vertebra, read_vertebrae
from csfd_core.errors import SettingsError, StoreError
from csfd_core.learning.loop import Loop, OnEpoch, Trained, take_steps, train_epochs
from csfd_core.runtime.compute import computing
from csfd_core.store.crops import CropStore
from csfd_core.vocabulary import LEVEL_NAMES

if TYPE_CHECKING:
    import keras

T = TypeVar("T")  # a vertebra as the network looks at it

NOWHERE: Final = -12.0  # logit of places away from the vertebra
TOGETHER: Final = len(LEVEL_NAMES)  # vertebrae read at once
_TOP_LOGITS: Final = 3  # whose mean is the logit of a vertebra
_WARM_UP: Final = 40  # steps
_TRUSTED: Final = 0.6  # share of the epochs before it may say where fractures are


class PatchClassifier(Classifier, Generic[T]):
    """See the module."""

    name: str  # in the registry of classifiers

    @abstractmethod
    def open_pool(self) -> VertebraPool[T]:
        """Return an empty pool of the vertebrae to learn from."""

    @abstractmethod
    def patch_model(self) -> "keras.Model":
        """Return the network for patches: one logit each; not compiled."""

    @abstractmethod
    def suspects(self, vertebrae: Sequence[T]) -> list[npt.NDArray[np.float64]]:
        """Return the most suspicious places: plane, row and column, shape (n, 3)."""

    @abstractmethod
    def judge(
        self, vertebrae: Sequence[Vertebra], *, all_views: bool
    ) -> list[npt.NDArray[np.float32]]:
        """Return the logits of all places of each vertebra.

        Args:
            vertebrae: At least one.
            all_views: Average over the views, which takes longer and errs less;
                watching and mining while it trains do without.
        """

    @abstractmethod
    def spread_out(self, chances: npt.NDArray[np.float32], vertebra: Vertebra) -> Heat:
        """Interpolate between the places of a vertebra, on the grid of its crops."""

    def start(self) -> dict[str, Any]:
        """Say whether it starts from general weights, those of a file, or nothing."""
        initial = read_initial(self.name, self.config.initial)
        return {
            "weights": initial.told,
            "digest": initial.digest or f"seed {self.config.seed}",
        }

    def train(self, data: TrainingSet, on_epoch: OnEpoch | None = None) -> Trained:
        """Train on patches; places are mined anew before each epoch.

        Before the first, only a network that has learnt already mines.

        Weights that it starts from are kept where no epoch makes them better.

        Raises:
            StoreError: If there are no fractured vertebrae, or only such.
            SettingsError: If the weights that it should start from cannot be used.
        """
        with computing(self.config.mixed_precision):
            import keras

            keras.utils.set_random_seed(self.config.seed)
            model = self.compiled()
            self._begin()
            pools = _Pools(data, self)
            loop = Loop(
                model=model,
                epochs=self._epochs,
                run_epoch=lambda epoch: self._run_epoch(model, pools, epoch),
                validate=lambda: self._validate(data),
                checkpoint=data.checkpoint,
                patience=self.config.planned_patience(has_backbone=False),
                starts_trained=self.config.is_refined,
            )
            return train_epochs(loop, on_epoch)

    def stored_logits(self, crops: CropStore, rows: pd.DataFrame) -> Logits:
        """Return the logits of vertebrae in a store."""
        return self._stored_logits(crops, rows, all_views=self.config.average_views)

    def logits(self, vertebrae: Sequence[Vertebra]) -> Logits:
        """Return the mean of the most suspicious places of each vertebra."""
        if not vertebrae:
            return np.empty(0)
        return _logits_of(self.judge(vertebrae, all_views=self.config.average_views))

    @property
    def _epochs(self) -> int:
        return self.config.planned_epochs(has_backbone=False)

    def _begin(self) -> None:
        """Take over the weights that the training starts from."""
        initial = read_initial(self.name, self.config.initial)
        if not initial.weights:
            return
        try:
            self.set_weights(initial.weights)
        except StoreError as error:
            raise SettingsError(
                f"The weights to start from ({initial.told}) do not fit: {error} Or "
                f"start from {NONE}."
            ) from error

    def heat(self, vertebra: Vertebra) -> Heat:
        """Return the probability of each place, smoothly between them."""
        return self.look([vertebra])[1][0]

    def look(self, vertebrae: Sequence[Vertebra]) -> tuple[Logits, list[Heat]]:
        """Return ``logits`` and the ``heat`` of each vertebra, judged once for both."""
        if not vertebrae:
            return np.empty(0), []
        judged = self.judge(vertebrae, all_views=self.config.average_views)
        chances = [expit(logits) for logits in judged]
        heats = [
            self.spread_out(chance, vertebra)
            for chance, vertebra in zip(chances, vertebrae, strict=True)
        ]
        return _logits_of(judged), heats

    def compiled(self) -> "keras.Model":
        """Return the network for patches with its loss and its optimizer."""
        import keras

        model = self.patch_model()
        steps = self._epochs * self.config.planned_steps
        rate = self.config.learning_rate
        if self.config.is_refined:
            rate = self.config.refine_rate
        warm_up = min(_WARM_UP, max(1, steps // 10))
        schedule = keras.optimizers.schedules.CosineDecay(
            rate / 30,
            max(1, steps - warm_up),
            warmup_target=rate,
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

    def _validate(self, data: TrainingSet) -> Mapping[str, float]:
        logits = self._stored_logits(data.crops, data.validation, all_views=False)
        return validation_scores(logits, data.validation_labels)

    def _stored_logits(
        self, crops: CropStore, rows: pd.DataFrame, *, all_views: bool
    ) -> Logits:
        by_row = pd.Series(np.nan, index=rows.index, dtype=float)
        for batch in in_batches(read_vertebrae(crops, rows), TOGETHER):
            judged = self.judge([v for _, v in batch], all_views=all_views)
            by_row.loc[[index for index, _ in batch]] = _logits_of(judged)
        return np.asarray(by_row.to_numpy(), dtype=float)

    def _run_epoch(
        self, model: "keras.Model", pools: "_Pools[T]", epoch: int
    ) -> Mapping[str, float]:
        """Take the steps of one epoch."""
        pool = pools.pool(epoch)
        batches = (
            pool.batch(
                self.config.batch_size,
                np.random.default_rng([self.config.seed, epoch, step]),
            )
            for step in range(self.config.planned_steps)
        )
        return mean_of_steps(take_steps(model, batches))


class _Pools(Generic[T]):
    """The vertebrae in memory: the same in every epoch where they all fit."""

    def __init__(self, data: TrainingSet, network: PatchClassifier[T]) -> None:
        self._data, self._network = data, network
        self._pool: VertebraPool[T] | None = None
        self._fits = len(data.training) <= network.config.most_vertebrae

    def pool(self, epoch: int) -> VertebraPool[T]:
        config = self._network.config
        rng = np.random.default_rng([config.seed, epoch])
        if not self._fits:
            self._pool = None  # its memory is needed for the next one
            self._pool = self._read(rng)
        elif self._pool is None:  # the same ones when a training goes on
            self._pool = self._read(np.random.default_rng([config.seed, 0]))
        if epoch or config.is_refined:
            trusted = config.is_refined or epoch >= config.epochs * _TRUSTED
            self._pool.mine(self._network.suspects, rng, trusted=trusted)
        return self._pool

    def _read(self, rng: np.random.Generator) -> VertebraPool[T]:
        config = self._network.config
        rows = self._data.training
        is_fractured = (rows["label"] == 1).to_numpy(dtype=bool)
        half = config.most_vertebrae // 2
        fractured = rng.permutation(np.flatnonzero(is_fractured))[:half]
        whole = rng.permutation(np.flatnonzero(~is_fractured))
        whole = whole[: config.most_vertebrae - len(fractured)]
        chosen = rows.iloc[np.sort(np.concatenate([fractured, whole]))]
        pool = self._network.open_pool()
        labels = chosen["label"].astype(int).to_dict()
        for index, vertebra in read_vertebrae(self._data.crops, chosen):
            pool.add(vertebra, labels[index])
        if not pool.can_train:
            raise StoreError(
                f"The training studies hold {len(fractured)} fractured and "
                f"{len(whole)} whole vertebrae; both are needed. Add labelled studies."
            )
        return pool


def most_suspicious(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return where the highest logits are, most first, shape (n, dimensions)."""
    order = np.argsort(logits, axis=None)[::-1][:_TOP_LOGITS]
    return np.stack(np.unravel_index(order, logits.shape), axis=1)


def _logits_of(judged: Sequence[npt.NDArray[np.float32]]) -> Logits:
    """Return the mean of the most suspicious places of each vertebra, (N,)."""
    return np.array(
        [np.sort(logits, axis=None)[-_TOP_LOGITS:].mean() for logits in judged],
        dtype=float,
    )
