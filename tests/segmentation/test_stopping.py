"""When a training stops, which weights it keeps, and that the full profile can step."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csfd_core.learning.checkpoint import Checkpoint
from csfd_core.learning.loop import Trained
from csfd_core.learning.outcomes import StopReason
from csfd_core.segmentation import training
from csfd_core.segmentation.config import (
    PROFILES,
    ModelConfig,
    NetworkConfig,
    TrainingConfig,
)
from csfd_core.segmentation.data import GridVolume
from csfd_core.segmentation.networks import build_model
from csfd_core.segmentation.training import (
    FixedVolumes,
    Plan,
    TrainingData,
    train,
)
from csfd_core.store.locations import Location

# Keras' and TensorFlow's own warnings.
pytestmark = pytest.mark.filterwarnings("ignore")


def network(classes: int) -> NetworkConfig:
    return NetworkConfig(
        shape_zyx=(8, 8, 8),
        spacing_mm=6.0,
        classes=classes,
        filters=(2, 4),
        stem=1,
        coordinates=False,
    )


TINY = ModelConfig(locator=network(2), segmenter=network(8))


class Script:
    """A training whose epochs set all weights to their number, with this Dice."""

    def __init__(self, dice: Sequence[float], patch: pytest.MonkeyPatch) -> None:
        self.dice = dice
        self.epochs: list[int] = []  # that were run
        patch.setattr(training, "_run_epoch", self.run_epoch)
        patch.setattr(training, "_validate", self.validate)

    def run_epoch(self, model: Any, plan: Plan, volumes: Any, epoch: int) -> float:
        self.epochs.append(epoch + 1)
        model.set_weights([np.full_like(w, epoch + 1) for w in model.get_weights()])
        return 1.0

    def validate(self, model: Any, batches: Any) -> tuple[float, ...]:
        return (self.dice[self.epochs[-1] - 1],) * 7

    def train(self, folder: Path, patience: int) -> Trained:
        settings = TrainingConfig(epochs=len(self.dice), patience=patience)
        data = TrainingData(training=FixedVolumes([]), validation=[])
        checkpoint = Checkpoint(Location(folder), "scripted")
        return train(Plan(model=TINY, training=settings), data, checkpoint)


def epoch_of(result: Trained) -> float:
    values = {float(value) for array in result.weights for value in array.flat}
    (epoch,) = values
    return epoch


@pytest.mark.parametrize(("patience", "stops_after"), [(0, 7), (1, 3), (2, 4), (3, 7)])
def test_training_stops_after_epochs_in_vain_and_keeps_the_best_weights(
    patience: int, stops_after: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = Script([0.3, 0.5, 0.4, 0.45, 0.6, 0.55, 0.5], monkeypatch)
    result = script.train(tmp_path, patience)
    assert script.epochs == list(range(1, stops_after + 1))
    best = 5 if stops_after == 7 else 2
    reason = StopReason.ALL_EPOCHS if stops_after == 7 else StopReason.NO_IMPROVEMENT
    assert result.stopped is reason
    assert result.best_epoch == best
    assert result.best("validation_dice") == script.dice[best - 1]
    assert epoch_of(result) == best


def test_a_training_that_has_stopped_is_not_taken_up_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = Script([0.5, 0.4, 0.3, 0.9], monkeypatch)
    script.train(tmp_path, patience=2)
    result = script.train(tmp_path, patience=2)
    assert script.epochs == [1, 2, 3]
    assert epoch_of(result) == 1


def test_without_validation_the_last_weights_are_kept_and_nothing_stops(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = Script([float("nan")] * 4, monkeypatch)
    result = script.train(tmp_path, patience=1)
    assert script.epochs == [1, 2, 3, 4]
    assert epoch_of(result) == 4


def test_both_profiles_stop_early() -> None:
    for name, profile in PROFILES.items():
        assert 0 < profile.training.patience < profile.training.epochs, name


@pytest.mark.slow
def test_the_full_profile_takes_a_step_at_its_real_size(tmp_path: Path) -> None:
    """At 128 x 128 x 128 voxels with 48 to 320 filters; one sample instead of two."""
    import keras

    profile = PROFILES["full"]
    assert profile.model.segmenter.shape_zyx == (128, 128, 128)
    settings = replace(profile.training, epochs=1, steps_per_epoch=1, batch_size=1)
    labels = np.zeros((60, 60, 60), dtype=np.uint8)
    for level in range(1, 8):
        labels[8 + 6 * level : 13 + 6 * level, 20:40, 20:40] = level
    grey = np.where(labels > 0, 160, 70).astype(np.uint8)
    data = TrainingData(
        training=FixedVolumes([GridVolume("1.2", grey, labels, 2.5)]), validation=[]
    )
    checkpoint = Checkpoint(Location(tmp_path), "full")
    result = train(Plan(model=profile.model, training=settings), data, checkpoint)
    assert np.isfinite(result.history[0]["loss"])
    keras.utils.set_random_seed(settings.seed)
    model = build_model(profile.model)
    still = [
        variable.path
        for variable, before, after in zip(
            model.weights, model.get_weights(), result.weights, strict=True
        )
        if np.array_equal(before, after)
    ]
    # The fine correction starts as nothing: what lies before it follows a step later.
    assert len(still) <= 2, still
    assert all(np.isfinite(value).all() for value in result.weights)
