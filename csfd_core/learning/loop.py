"""The loop that trains every classifier.

Deterministic for a seed on one machine. After each epoch all that is needed to go on is
written to disk, so that a killed training that is started again ends with the same
number of epochs. The weights with the lowest validation loss are what is kept.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from csfd_core.evaluation.calibration import fit_temperature
from csfd_core.evaluation.metrics import auroc, log_loss, operating_point
from csfd_core.learning.checkpoint import Checkpoint, Weights
from csfd_core.runtime.executors import ahead

if TYPE_CHECKING:
    import keras

Logits = npt.NDArray[np.float64]
EpochRow = dict[str, float]
OnEpoch = Callable[[EpochRow], None]
STOPPED_BY_NAN: Final = "the loss was not a number"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """What the loop needs of a model.

    Attributes:
        model: Compiled.
        epochs: To train.
        run_epoch: Trains the epoch with this number (from 0); returns ``loss`` and
            ``accuracy`` on what it trained.
        validate: Returns logits of the validation vertebrae.
        labels: Of the validation vertebrae, 0 or 1.
        folder: For the state; another one for another model or other data.
        patience: Epochs without a lower validation loss before it stops; 0 never.
    """

    model: "keras.Model"
    epochs: int
    run_epoch: Callable[[int], Mapping[str, float]]
    validate: Callable[[], Logits]
    labels: npt.NDArray[np.integer]
    folder: Path
    patience: int = 0


@dataclass(slots=True, kw_only=True)
class Trained:
    """The best weights, and the history of all epochs."""

    weights: Weights
    history: list[EpochRow] = field(default_factory=list)
    best_epoch: int = 0
    stopped: str = ""  # why it ended before its last epoch


def train_epochs(loop: Loop, on_epoch: OnEpoch | None = None) -> Trained:
    """Train, or go on with a training that was cut off; the best weights are set."""
    checkpoint = Checkpoint(loop.folder)
    state = _restore(checkpoint, loop.model)
    for epoch in range(len(state.history), loop.epochs):
        if _is_over(state, loop.patience):
            state.stopped = f"no lower validation loss in {loop.patience} epochs"
            break
        begun = time.monotonic()
        row = {"epoch": float(epoch + 1), **loop.run_epoch(epoch)}
        if not math.isfinite(row["loss"]):
            state.stopped = f"{STOPPED_BY_NAN} in epoch {epoch + 1}"
            break
        row |= validation_scores(loop.validate(), loop.labels)
        row["seconds"] = time.monotonic() - begun
        state.history.append(row)
        if _is_best(state):
            state.best_epoch = epoch + 1
            state.weights = loop.model.get_weights()
        checkpoint.write(
            loop.model,
            state.weights,
            {"history": state.history, "best_epoch": state.best_epoch},
        )
        if on_epoch is not None:
            on_epoch(row)
    loop.model.set_weights(state.weights)
    return state


def take_steps(
    model: "keras.Model", batches: Iterable[tuple[Any, ...]]
) -> list[Mapping[str, float]]:
    """Train on batches, each made beside the step before; return what each step tells.

    Args:
        model: Compiled.
        batches: Inputs, targets and, where there are any, weights.
    """
    steps = []
    for batch in ahead(batches):
        model.reset_metrics()
        steps.append(model.train_on_batch(*batch, return_dict=True))
    return steps


def mean_of_steps(
    logs: Sequence[Mapping[str, Any]], loss: str = "loss", accuracy: str = "accuracy"
) -> dict[str, float]:
    """Return ``loss`` and ``accuracy`` of an epoch from what its steps returned."""
    return {
        "loss": float(np.mean([float(row[loss]) for row in logs])),
        "accuracy": float(np.mean([float(row[accuracy]) for row in logs])),
    }


def validation_scores(
    logits: Logits, labels: npt.NDArray[np.integer]
) -> dict[str, float]:
    """Return what is watched while a classifier trains.

    ``val_loss`` is the log loss after calibration, so that it tells how well fractured
    and whole vertebrae are told apart, whatever the balance of the training batches;
    ``val_accuracy`` is the mean of sensitivity and specificity at the best threshold.
    Each is NaN where it is undefined, as for one class only.
    """
    if not np.isfinite(logits).all():
        return {"val_loss": math.nan, "val_accuracy": math.nan, "val_auc": math.nan}
    found = fit_temperature(logits, labels).apply(logits)
    point = operating_point(labels, found)
    return {
        "val_loss": log_loss(labels, found),
        "val_accuracy": (point.sensitivity + point.specificity) / 2,
        "val_auc": auroc(labels, found),
    }


def _is_best(state: Trained) -> bool:
    """Say whether the last epoch is the best, or there is nothing to choose by."""
    losses = [row["val_loss"] for row in state.history]
    known = [loss for loss in losses if math.isfinite(loss)]
    return not known or losses[-1] == min(known)


def _is_over(state: Trained, patience: int) -> bool:
    return bool(patience and len(state.history) - state.best_epoch >= patience)


def _restore(checkpoint: Checkpoint, model: "keras.Model") -> Trained:
    kept = checkpoint.restore(model)
    if kept is None:
        return Trained(weights=model.get_weights())
    weights, note = kept
    history: list[dict[str, Any]] = note["history"]
    return Trained(weights=weights, history=history, best_epoch=note["best_epoch"])
