"""Training: the same loop for a phantom, for real masks and for the built-in model.

Deterministic for a seed on one machine. After every epoch all that is needed to go on
is written to ``last.npz``; a killed training that is started again ends with the same
number of epochs. The weights with the best validation Dice are what is kept.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from csfd_core.evaluation.segmentation_metrics import dice_score
from csfd_core.learning.checkpoint import Checkpoint
from csfd_core.runtime.compute import computing
from csfd_core.runtime.executors import ahead
from csfd_core.segmentation.bundle import Weights
from csfd_core.segmentation.config import CLASSES, ModelConfig, TrainingConfig
from csfd_core.segmentation.data import GridVolume, Sample, draw_sample, to_batch
from csfd_core.segmentation.losses import build_loss
from csfd_core.segmentation.networks import build_model

if TYPE_CHECKING:
    import keras

_VALIDATED: Final = 8  # volumes at most, each epoch


class VolumeSource(Protocol):
    """Gives the volumes to draw from."""

    def volumes(self, epoch: int) -> Sequence[GridVolume]:
        """Return the volumes of an epoch; the same ones whenever it is asked."""


@dataclass(frozen=True, slots=True)
class FixedVolumes:
    """The same volumes in every epoch."""

    items: Sequence[GridVolume]

    def volumes(self, epoch: int) -> Sequence[GridVolume]:
        """Return all of them."""
        return self.items


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """What to learn from, and what to stop by."""

    training: VolumeSource
    validation: Sequence[GridVolume]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochResult:
    """What one epoch came to."""

    epoch: int  # from 1
    loss: float
    validation_dice: float  # mean over the levels that are there; NaN: no validation
    level_dice: tuple[float, ...]  # C1 ... C7; NaN where absent
    learning_rate: float
    seconds: float
    seconds_left: float


@dataclass(slots=True, kw_only=True)
class TrainingResult:
    """The best weights, and the history of all epochs."""

    weights: Weights
    history: list[EpochResult] = field(default_factory=list)
    best_epoch: int = 0

    @property
    def best_dice(self) -> float:
        """Validation Dice of the best weights."""
        found = [e.validation_dice for e in self.history if e.epoch == self.best_epoch]
        return found[0] if found else math.nan


OnEpoch = Callable[[EpochResult, "keras.Model"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that fixes a training but its data."""

    model: ModelConfig
    training: TrainingConfig
    initial: Weights | None = None


def train(
    plan: Plan, data: TrainingData, folder: Path, on_epoch: OnEpoch | None = None
) -> TrainingResult:
    """Train, or go on with a training that was cut off.

    Args:
        plan: Networks, settings and the weights to start from.
        data: Training and validation volumes.
        folder: Where the checkpoint lies; of another plan or data, use another one.
        on_epoch: Called after each epoch, also with the model.
    """
    with computing(plan.training.mixed_precision):
        import keras

        keras.utils.set_random_seed(plan.training.seed)
        model = compile_model(plan)
        state = _restore(folder, model)
        started, done_before = time.monotonic(), len(state.history)
        validation = _validation_batches(data.validation, plan)
        for epoch in range(done_before, plan.training.epochs):
            if _is_over(state, plan.training):
                break
            begun = time.monotonic()
            loss = _run_epoch(model, plan, data.training.volumes(epoch), epoch)
            levels = _validate(model, validation)
            done = epoch + 1 - done_before
            elapsed = time.monotonic() - started
            result = EpochResult(
                epoch=epoch + 1,
                loss=loss,
                validation_dice=_mean(levels),
                level_dice=levels,
                learning_rate=_learning_rate(model),
                seconds=time.monotonic() - begun,
                seconds_left=elapsed / done * (plan.training.epochs - epoch - 1),
            )
            _keep(state, result, model)
            _write(folder, model, state)
            if on_epoch is not None:
                on_epoch(result, model)
        return state


def compile_model(plan: Plan) -> "keras.Model":
    """Build the networks with their losses and optimizer, ready for a step."""
    import keras

    model = build_model(plan.model)
    if plan.initial is not None:
        model.set_weights(plan.initial)
    settings = plan.training
    steps = settings.epochs * settings.steps_per_epoch
    warm_up = max(1, round(settings.warm_up * steps))
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=settings.learning_rate / 20,
        decay_steps=max(1, steps - warm_up),
        warmup_target=settings.learning_rate,
        warmup_steps=warm_up,
        alpha=0.01,
    )
    optimizer = keras.optimizers.AdamW(
        schedule, weight_decay=settings.weight_decay, clipnorm=1.0
    )
    losses = {
        "locator": build_loss(plan.model.locator.classes),
        "segmenter": build_loss(plan.model.segmenter.classes),
    }
    model.compile(
        optimizer,
        loss=losses,
        loss_weights={"locator": 0.5, "segmenter": 1.0},
        jit_compile=False,  # eight times slower on a processor
    )
    optimizer.build(model.trainable_variables)
    return model


def _run_epoch(
    model: "keras.Model", plan: Plan, volumes: Sequence[GridVolume], epoch: int
) -> float:
    """Take the steps of one epoch; samples are drawn beside the computation."""
    settings = plan.training

    def batch(step: int) -> Sample:
        samples = []
        for place in range(settings.batch_size):
            rng = np.random.default_rng([settings.seed, epoch, step, place])
            volume = volumes[int(rng.integers(len(volumes)))]
            samples.append(draw_sample(volume, plan.model, rng, settings.strength))
        return to_batch(samples)

    batches = (batch(step) for step in range(settings.steps_per_epoch))
    losses = [float(model.train_on_batch(*pair)[0]) for pair in ahead(batches)]
    return float(np.mean(losses))


def _validation_batches(
    volumes: Sequence[GridVolume], plan: Plan
) -> list[tuple[Sample, str]]:
    """Draw each validation volume once, as it is but for the aim of the crop."""
    batches = []
    for index, volume in enumerate(volumes[:_VALIDATED]):
        rng = np.random.default_rng([plan.training.seed, index])
        sample = draw_sample(volume, plan.model, rng, 0.0)
        batches.append((to_batch([sample]), volume.study_uid))
    return batches


def _validate(
    model: "keras.Model", batches: Sequence[tuple[Sample, str]]
) -> tuple[float, ...]:
    """Return the mean Dice of C1 ... C7; NaN for a level that no volume shows."""
    rows = []
    for (inputs, targets), _ in batches:
        logits = np.asarray(model.predict_on_batch(inputs)["segmenter"])
        rows.append(grid_dice(logits.argmax(axis=-1), targets["segmenter"]))
    if not rows:
        return (math.nan,) * (CLASSES - 1)
    table = np.array(rows)
    there = ~np.isnan(table)
    sums = np.where(there, table, 0).sum(axis=0)
    counts = there.sum(axis=0)
    return tuple(
        float(total / count) if count else math.nan
        for total, count in zip(sums, counts, strict=True)
    )


def grid_dice(
    found: npt.NDArray[np.integer], wanted: npt.NDArray[np.integer]
) -> list[float]:
    """Return the Dice of C1 ... C7 in two label arrays; NaN where both lack it."""
    return [dice_score(found == level, wanted == level) for level in range(1, CLASSES)]


def _is_over(state: TrainingResult, settings: TrainingConfig) -> bool:
    waited = len(state.history) - state.best_epoch
    return bool(settings.patience and state.history and waited >= settings.patience)


def _keep(state: TrainingResult, result: EpochResult, model: "keras.Model") -> None:
    best = state.best_dice
    state.history.append(result)
    better = math.isnan(best) or not result.validation_dice < best
    if better or math.isnan(result.validation_dice):
        state.best_epoch = result.epoch
        state.weights = model.get_weights()


def _learning_rate(model: "keras.Model") -> float:
    return float(np.asarray(model.optimizer.learning_rate))


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def _write(folder: Path, model: "keras.Model", state: TrainingResult) -> None:
    note = {
        "best_epoch": state.best_epoch,
        "history": [_to_row(epoch) for epoch in state.history],
    }
    Checkpoint(folder).write(model, state.weights, note)


def _restore(folder: Path, model: "keras.Model") -> TrainingResult:
    kept = Checkpoint(folder).restore(model)
    if kept is None:
        return TrainingResult(weights=model.get_weights())
    weights, note = kept
    return TrainingResult(
        weights=weights,
        history=[_to_epoch(row) for row in note["history"]],
        best_epoch=note["best_epoch"],
    )


def _to_row(epoch: EpochResult) -> dict[str, Any]:
    row = {name: getattr(epoch, name) for name in EpochResult.__slots__}
    return {**row, "level_dice": list(epoch.level_dice)}


def _to_epoch(row: dict[str, Any]) -> EpochResult:
    return EpochResult(**{**row, "level_dice": tuple(row["level_dice"])})
