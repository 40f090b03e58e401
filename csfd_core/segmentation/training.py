"""Training of the two networks: on phantoms, on real masks and for the built-in model.

The loop is that of all networks (``csfd_core.learning.loop``). Here is what it trains:
samples drawn from volumes, and the validation Dice that chooses the weights.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt

from csfd_core.evaluation.segmentation_metrics import dice_score
from csfd_core.learning.checkpoint import Checkpoint, Weights
from csfd_core.learning.loop import (
    EpochRow,
    Loop,
    Monitor,
    Trained,
    take_steps,
    train_epochs,
)
from csfd_core.runtime.compute import computing
from csfd_core.segmentation.config import CLASSES, ModelConfig, TrainingConfig
from csfd_core.segmentation.data import GridVolume, Sample, draw_sample, to_batch
from csfd_core.segmentation.losses import build_loss
from csfd_core.segmentation.networks import build_model
from csfd_core.vocabulary import LEVEL_NAMES

if TYPE_CHECKING:
    import keras

VALIDATION_DICE: Final = Monitor(score="validation_dice", higher_is_better=True)
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


OnEpoch = Callable[[EpochRow, "keras.Model"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that fixes a training but its data."""

    model: ModelConfig
    training: TrainingConfig
    initial: Weights | None = None


def train(
    plan: Plan,
    data: TrainingData,
    checkpoint: Checkpoint,
    on_epoch: OnEpoch | None = None,
) -> Trained:
    """Train, or go on with a training that was cut off.

    The row of an epoch holds ``validation_dice`` (mean over the levels that are there;
    NaN: no validation), ``dice_C1`` to ``dice_C7`` (NaN where absent) and
    ``learning_rate``.

    Args:
        plan: Networks, settings and the weights to start from.
        data: Training and validation volumes.
        checkpoint: For its state; of another plan or data, use another one.
        on_epoch: Called after each epoch, also with the model.
    """
    with computing(plan.training.mixed_precision):
        import keras

        keras.utils.set_random_seed(plan.training.seed)
        model = compile_model(plan)
        batches = _validation_batches(data.validation, plan)

        def run_epoch(epoch: int) -> EpochRow:
            volumes = data.training.volumes(epoch)
            return {"loss": _run_epoch(model, plan, volumes, epoch)}

        def validate() -> EpochRow:
            scores = dice_scores(_validate(model, batches))
            return {**scores, "learning_rate": _learning_rate(model)}

        loop = Loop(
            model=model,
            epochs=plan.training.epochs,
            run_epoch=run_epoch,
            validate=validate,
            checkpoint=checkpoint,
            monitor=VALIDATION_DICE,
            patience=plan.training.patience,
            starts_trained=plan.initial is not None,
        )
        if on_epoch is None:
            return train_epochs(loop)
        return train_epochs(loop, lambda row: on_epoch(row, model))


def dice_scores(levels: Sequence[float]) -> EpochRow:
    """Return the Dice of C1 ... C7 by name, and their mean over what is not NaN."""
    present = [value for value in levels if not math.isnan(value)]
    return {
        VALIDATION_DICE.score: float(np.mean(present)) if present else math.nan,
        **{f"dice_{name}": v for name, v in zip(LEVEL_NAMES, levels, strict=True)},
    }


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
        for index in range(settings.batch_size):
            rng = np.random.default_rng([settings.seed, epoch, step, index])
            volume = volumes[int(rng.integers(len(volumes)))]
            samples.append(draw_sample(volume, plan.model, rng, settings.strength))
        return to_batch(samples)

    batches = (batch(step) for step in range(settings.steps_per_epoch))
    return float(np.mean([float(step["loss"]) for step in take_steps(model, batches)]))


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
    predicted: npt.NDArray[np.integer], given: npt.NDArray[np.integer]
) -> list[float]:
    """Return the Dice of C1 ... C7 in two label arrays; NaN where both lack it."""
    return [
        dice_score(predicted == level, given == level) for level in range(1, CLASSES)
    ]


def _learning_rate(model: "keras.Model") -> float:
    return float(np.asarray(model.optimizer.learning_rate))
