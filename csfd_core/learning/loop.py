"""The loop that trains every network, classifiers and segmentation alike.

Deterministic for a seed on one machine. After an epoch all that is needed to go on is
kept, so that a killed training that is started again ends as if it had not been: after
each, unless that would take more than a small share of the time. The weights with the
best monitored score are what is kept.

What differs between networks is handed in: how an epoch is trained, how it is
validated, which score says that it was better, and who is told of it.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from csfd_core.learning.checkpoint import Checkpoint, Weights
from csfd_core.learning.outcomes import StopReason
from csfd_core.runtime.executors import ahead

if TYPE_CHECKING:
    import keras

# ``epoch`` (from 1), ``loss``, the scores of the validation, ``seconds``.
EpochRow = dict[str, float]
OnEpoch = Callable[[EpochRow], None]
# What keeping the state may take of the time of a training, and in any case.
_SHARE: Final = 0.02
_ALWAYS_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitor:
    """The validation score that chooses the weights and ends a training early."""

    score: str
    higher_is_better: bool

    def rank(self, row: Mapping[str, float]) -> float:
        """Return a number that grows as the score gets better; NaN: undefined."""
        return row[self.score] if self.higher_is_better else -row[self.score]


VALIDATION_LOSS: Final = Monitor(score="val_loss", higher_is_better=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """What the loop needs of a model.

    Attributes:
        model: Compiled.
        epochs: To train.
        run_epoch: Trains the epoch with this number (from 0); returns ``loss`` and what
            else is to be recorded of the training.
        validate: Returns the scores of the model as it is on the validation studies.
        checkpoint: For the state; another one for another model or other data.
        monitor: Which of the scores decides.
        patience: Epochs without a better score before it stops; 0 never.
        starts_trained: The model has weights already, which are kept unless an epoch
            has a better score than they have.
    """

    model: "keras.Model"
    epochs: int
    run_epoch: Callable[[int], Mapping[str, float]]
    validate: Callable[[], Mapping[str, float]]
    checkpoint: Checkpoint
    monitor: Monitor = VALIDATION_LOSS
    patience: int = 0
    starts_trained: bool = False


@dataclass(slots=True, kw_only=True)
class Trained:
    """The best weights, and the history of all epochs."""

    weights: Weights
    history: list[EpochRow] = field(default_factory=list)
    best_epoch: int = 0  # from 1; 0: the weights are those that it started from
    stopped: StopReason = StopReason.ALL_EPOCHS
    before: dict[str, float] = field(default_factory=dict)  # scores of trained weights

    def best(self, score: str) -> float:
        """Return a score of the weights that are kept, NaN where none was measured."""
        if self.best_epoch:
            return self.history[self.best_epoch - 1][score]
        return self.before.get(score, math.nan)


def train_epochs(loop: Loop, on_epoch: OnEpoch | None = None) -> Trained:
    """Train, or go on with a training that was cut off; the best weights are set.

    Args:
        loop: What is trained, and how.
        on_epoch: Called with the row of each epoch once its state is kept, where that
            is due.
    """
    state = _restore(loop.checkpoint, loop.model)
    pace = _Pace()
    if loop.starts_trained and not state.before:
        state.before = dict(loop.validate())
    for epoch in range(len(state.history), loop.epochs):
        if _is_over(state, loop.patience):
            state.stopped = StopReason.NO_IMPROVEMENT
            break
        begun = time.monotonic()
        row = {"epoch": float(epoch + 1), **loop.run_epoch(epoch)}
        if not math.isfinite(row["loss"]):
            state.stopped = StopReason.NOT_A_NUMBER
            break
        row |= loop.validate()
        row["seconds"] = time.monotonic() - begun
        state.history.append(row)
        if _is_best(state, loop.monitor):
            state.best_epoch = epoch + 1
            state.weights = loop.model.get_weights()
        if pace.is_due():
            with pace.timed():
                loop.checkpoint.write(loop.model, state.weights, _note_of(state))
        if on_epoch is not None:
            on_epoch(row)
    loop.model.set_weights(state.weights)
    return state


class _Pace:
    """How often the state is kept: as often as that takes a small share of the time."""

    def __init__(self) -> None:
        """Count from now."""
        self._begun = time.monotonic()
        self._spent_s = self._last_s = 0.0

    def is_due(self) -> bool:
        """Say whether keeping the state now is worth its time."""
        share = _SHARE * (time.monotonic() - self._begun)
        return self._spent_s + self._last_s <= max(_ALWAYS_S, share)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count what keeping it takes."""
        begun = time.monotonic()
        yield
        self._last_s = time.monotonic() - begun
        self._spent_s += self._last_s


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


def _is_best(state: Trained, monitor: Monitor) -> bool:
    """Say whether the last epoch is the best, or there is nothing to choose by.

    Of equally good epochs the last one is the best.
    """
    rows = [*([state.before] if state.before else []), *state.history]
    ranks = [monitor.rank(row) for row in rows]
    defined = [rank for rank in ranks if math.isfinite(rank)]
    return not defined or ranks[-1] == max(defined)


def _is_over(state: Trained, patience: int) -> bool:
    return bool(patience and len(state.history) - state.best_epoch >= patience)


def _note_of(state: Trained) -> dict[str, Any]:
    return {
        "history": state.history,
        "best_epoch": state.best_epoch,
        "before": state.before,
    }


def _restore(checkpoint: Checkpoint, model: "keras.Model") -> Trained:
    restored = checkpoint.restore(model)
    if restored is None:
        return Trained(weights=model.get_weights())
    weights, note = restored
    history: list[EpochRow] = note["history"]
    return Trained(
        weights=weights,
        history=history,
        best_epoch=note["best_epoch"],
        before=note.get("before", {}),
    )
