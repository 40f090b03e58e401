"""The loop: resumed it ends as if it had never been cut off; the best weights stay."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csfd_core.classification.validation import mean_of_steps, validation_scores
from csfd_core.learning import loop as loop_module
from csfd_core.learning.checkpoint import Checkpoint, learning_from
from csfd_core.learning.loop import Loop, Trained, train_epochs
from csfd_core.learning.outcomes import StopReason
from csfd_core.runtime.compute import computing
from csfd_core.store.locations import Location

LABELS = np.array([0, 1] * 20)
RNG = np.random.default_rng(5)
FEATURES = RNG.normal(0, 1, (40, 3)).astype(np.float32)
FEATURES[:, 0] += LABELS * 1.5


class Killed(BaseException):
    """As if the process had been stopped."""


def make_model(dropout: float = 0.5) -> Any:
    with computing():
        import keras

        keras.utils.set_random_seed(0)
        layers = [
            keras.Input((3,)),
            keras.layers.Dense(4, activation="relu"),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(1),
        ]
        model = keras.Sequential(layers)
        model.compile(
            keras.optimizers.AdamW(0.02),
            loss=keras.losses.BinaryCrossentropy(from_logits=True),
        )
        model.optimizer.build(model.trainable_variables)
        return model


def make_loop(folder: Path, epochs: int = 6, patience: int = 0) -> Loop:
    model = make_model()

    def run_epoch(epoch: int) -> Mapping[str, float]:
        order = np.random.default_rng(epoch).permutation(40)
        logs = []
        for at in (order[:20], order[20:]):
            model.reset_metrics()
            loss = model.train_on_batch(FEATURES[at], LABELS[at, None])
            logs.append({"loss": loss, "accuracy": 0.5})
        return mean_of_steps(logs)

    return Loop(
        model=model,
        epochs=epochs,
        run_epoch=run_epoch,
        validate=lambda: validation_scores(
            np.asarray(model.predict_on_batch(FEATURES)[:, 0], float), LABELS
        ),
        checkpoint=Checkpoint(Location(folder), "tiny"),
        patience=patience,
    )


def numbers(trained: Trained) -> list[dict[str, float]]:
    names = ("epoch", "loss", "val_loss", "val_auc", "val_accuracy")
    return [{name: row[name] for name in names} for row in trained.history]


@pytest.mark.parametrize("last", [2, 6])
def test_a_killed_training_ends_with_the_same_numbers(
    tmp_path: Path, last: int
) -> None:
    whole = train_epochs(make_loop(tmp_path / "whole"))
    told: list[float] = []

    def kill(row: dict[str, float]) -> None:
        told.append(row["epoch"])
        if row["epoch"] == last:
            raise Killed("on purpose")

    with pytest.raises(Killed, match="on purpose"):
        train_epochs(make_loop(tmp_path / "cut"), kill)
    assert told == list(range(1, last + 1))
    loop = make_loop(tmp_path / "cut")
    resumed = train_epochs(loop, lambda row: told.append(row["epoch"]))
    assert told == [1, 2, 3, 4, 5, 6]
    assert numbers(resumed) == numbers(whole)
    assert resumed.best_epoch == whole.best_epoch
    for own, expected in zip(resumed.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(own, expected)
    for own, expected in zip(loop.model.get_weights(), whole.weights, strict=True):
        np.testing.assert_array_equal(own, expected)


def kept_state(folder: Path) -> Path:
    (path,) = (folder / "checkpoints").glob("*.npz")
    return path


def cut_in_half(state: Path) -> None:
    state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])


def make_of_another_network(state: Path) -> None:
    with np.load(state) as arrays:
        changed = {name: arrays[name] for name in arrays.files}
    changed["now0000"] = changed["now0000"][:, :2]
    np.savez(state, **changed)


@pytest.mark.parametrize("damage", [cut_in_half, make_of_another_network])
def test_a_state_that_does_not_fit_is_not_taken_up(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    whole = train_epochs(make_loop(tmp_path / "whole", epochs=2))
    train_epochs(make_loop(tmp_path / "other", epochs=1))
    damage(kept_state(tmp_path / "other"))
    told: list[float] = []
    loop = make_loop(tmp_path / "other", epochs=2)
    again = train_epochs(loop, lambda row: told.append(row["epoch"]))
    assert told == [1, 2]
    assert numbers(again) == numbers(whole)


def test_a_training_goes_on_when_another_has_removed_the_state(tmp_path: Path) -> None:
    """As the other does that has trained the same, and was done first."""
    whole = train_epochs(make_loop(tmp_path / "whole"))
    loop = make_loop(tmp_path / "both")

    def interfere(row: dict[str, float]) -> None:
        assert loop.checkpoint.exists
        loop.checkpoint.remove()

    found = train_epochs(loop, interfere)
    assert numbers(found) == numbers(whole)
    assert list((tmp_path / "both" / "checkpoints").iterdir()) == []


@pytest.mark.parametrize(("write_s", "writes"), [(0.001, 400), (0.4, 20), (30.0, 1)])
def test_keeping_the_state_takes_a_small_share_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_s: float, writes: int
) -> None:
    now, written = [0.0], list[float]()
    monkeypatch.setattr(loop_module.time, "monotonic", lambda: now[0])
    loop, _ = scripted(tmp_path, [0.5] * 400)

    def run_epoch(epoch: int) -> Mapping[str, float]:
        now[0] += 1.0
        return {"loss": 0.5, "accuracy": 0.5}

    def write(*_: Any) -> None:
        now[0] += write_s
        written.append(now[0])

    monkeypatch.setattr(Checkpoint, "write", write)
    train_epochs(replace(loop, run_epoch=run_epoch, validate=lambda: {"val_loss": 1.0}))
    # At most a fiftieth of 400 s, and the first, whose cost nobody knows before.
    assert writes - 1 <= len(written) <= writes + 1
    assert written[-1] > 350 or write_s > 8  # spread over the whole training


def test_what_learns_from_a_study_is_found_and_removed_by_kind(tmp_path: Path) -> None:
    root = Location(tmp_path)
    checkpoints = {
        name: Checkpoint(root, name, inputs, studies).of_part("head")
        for name, inputs, studies in (
            ("net-fold_0", "a", ["1.2.3", "1.2.4"]),
            ("net-fold_1", "b", ["1.2.31"]),
            ("net-fold_10", "c", ["1.2.3"]),
        )
    }
    model = make_model()
    for checkpoint in checkpoints.values():
        checkpoint.write(model, [], {})
    found = learning_from(root, "1.2.3")
    assert len(found) == 4
    assert {Path(path).name.rpartition("-")[0] for path in found} == {
        "net-fold_0", "net-fold_10",
    }  # fmt: skip
    assert [Path(path).suffix for path in found] == [".npz", ".json"] * 2
    assert learning_from(root, "1.2") == []
    checkpoints["net-fold_1"].remove()
    assert len(root.entries("checkpoints")) == 4


def scripted(
    folder: Path,
    losses: list[float],
    quality: Callable[[int], float] = lambda epoch: 1.0,
    patience: int = 0,
    labels: np.ndarray = LABELS,
) -> tuple[Loop, list[Any]]:
    """A loop whose model has its epoch for a weight, and as given for its scores."""
    model = make_model()
    weights = model.get_weights()
    state: list[int] = []

    def run_epoch(epoch: int) -> Mapping[str, float]:
        state.append(epoch)
        model.set_weights([np.full_like(w, epoch + 1) for w in weights])
        return {"loss": losses[epoch], "accuracy": 0.5}

    loop = Loop(
        model=model,
        epochs=len(losses),
        run_epoch=run_epoch,
        # The further apart, the lower the loss.
        validate=lambda: validation_scores(
            np.where(labels == 1, 1.0, -1.0) * quality(state[-1]), labels
        ),
        checkpoint=Checkpoint(Location(folder), "tiny"),
        patience=patience,
    )
    return loop, state


def test_the_weights_of_the_lowest_validation_loss_are_kept(tmp_path: Path) -> None:
    loop, _ = scripted(tmp_path, [0.5] * 5, lambda e: [0.1, 0.4, 1.0, 0.2, 0.3][e])
    found = train_epochs(loop)
    losses = [row["val_loss"] for row in found.history]
    assert losses.index(min(losses)) == 2
    assert found.best_epoch == 3
    assert found.stopped is StopReason.ALL_EPOCHS
    for weights in (found.weights, loop.model.get_weights()):
        assert {float(v) for w in weights for v in w.ravel()} == {3.0}


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good(tmp_path: Path) -> None:
    loop, state = scripted(tmp_path, [0.5, 0.4, math.nan, 0.3])
    found = train_epochs(loop)
    assert state == [0, 1, 2]
    assert len(found.history) == 2
    assert found.stopped is StopReason.NOT_A_NUMBER
    values = {float(v) for w in loop.model.get_weights() for v in w.ravel()}
    assert values == {float(found.best_epoch)}
    assert found.best_epoch in (1, 2)


def test_a_first_loss_that_is_no_number_keeps_what_it_started_from(
    tmp_path: Path,
) -> None:
    loop, _ = scripted(tmp_path, [math.nan, 0.5])
    before = loop.model.get_weights()
    found = train_epochs(loop)
    assert (found.history, found.best_epoch) == ([], 0)
    for own, expected in zip(loop.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(own, expected)


def test_patience_ends_a_training_that_does_not_improve(tmp_path: Path) -> None:
    quality = [0.5, 1.0, 0.1, 0.2, 0.3, 5.0]
    loop, state = scripted(tmp_path, [0.5] * 6, lambda e: quality[e], patience=2)
    found = train_epochs(loop)
    assert state == [0, 1, 2, 3]
    assert found.best_epoch == 2
    assert found.stopped is StopReason.NO_IMPROVEMENT
    patient, state = scripted(tmp_path / "b", [0.5] * 6, lambda e: quality[e])
    assert train_epochs(patient).best_epoch == 6


def trained_already(folder: Path, quality: list[float], patience: int = 0) -> Loop:
    """The quality of the weights that it starts from, then of each epoch."""
    loop, _ = scripted(folder, [0.5] * (len(quality) - 1), patience=patience)
    looked: list[int] = []

    def validate() -> Mapping[str, float]:
        weights = loop.model.get_weights()
        values = {float(v) for w in weights for v in w.ravel()}
        epoch = int(values.pop()) if len(values) == 1 else 0  # 0: as it started
        looked.append(epoch)
        logits = np.where(LABELS == 1, 1.0, -1.0) * quality[epoch]
        return validation_scores(logits, LABELS)

    return replace(loop, validate=validate, starts_trained=True)


def test_weights_that_no_epoch_makes_better_are_kept(tmp_path: Path) -> None:
    loop = trained_already(tmp_path, [1.0, 0.5, 0.9, 0.2], patience=2)
    before = loop.model.get_weights()
    found = train_epochs(loop)
    assert (found.best_epoch, len(found.history)) == (0, 2)
    assert found.stopped is StopReason.NO_IMPROVEMENT
    assert found.best("val_loss") == found.before["val_loss"]
    assert found.before["val_loss"] < min(row["val_loss"] for row in found.history)
    for weights in (found.weights, loop.model.get_weights()):
        for own, expected in zip(weights, before, strict=True):
            np.testing.assert_array_equal(own, expected)


def test_weights_that_an_epoch_makes_better_are_replaced(tmp_path: Path) -> None:
    found = train_epochs(trained_already(tmp_path, [0.5, 0.2, 1.0, 0.8]))
    assert found.best_epoch == 2
    assert {float(v) for w in found.weights for v in w.ravel()} == {2.0}


def test_the_score_of_the_start_is_measured_once_however_often_it_is_cut_off(
    tmp_path: Path,
) -> None:
    def kill(row: dict[str, float]) -> None:
        raise Killed("on purpose")

    quality = [1.0, 0.5, 0.9]
    with pytest.raises(Killed, match="on purpose"):
        train_epochs(trained_already(tmp_path, quality), kill)
    # Were it measured again, it would be that of the first epoch.
    found = train_epochs(trained_already(tmp_path, quality))
    assert found.best_epoch == 0
    assert found.before["val_loss"] < found.history[1]["val_loss"]


def test_one_class_in_validation_is_not_a_number_and_no_crash(tmp_path: Path) -> None:
    labels = np.zeros(10, dtype=int)
    loop, _ = scripted(tmp_path, [0.5, 0.4], labels=labels)
    found = train_epochs(loop)
    assert len(found.history) == 2
    for row in found.history:
        assert math.isnan(row["val_auc"])
        assert math.isnan(row["val_accuracy"])
        assert math.isfinite(row["val_loss"])


def test_scores_of_logits_that_are_no_numbers_are_none() -> None:
    scores = validation_scores(np.array([0.1, np.nan]), np.array([0, 1]))
    assert all(math.isnan(value) for value in scores.values())
    perfect = validation_scores(np.array([-9.0, 9.0] * 9), np.array([0, 1] * 9))
    assert perfect["val_auc"] == 1.0
    assert perfect["val_accuracy"] == 1.0
    assert perfect["val_loss"] < 0.05


def test_the_balance_of_the_batches_does_not_change_the_validation_loss() -> None:
    logits = np.random.default_rng(0).normal(0, 1, 300)
    labels = (np.random.default_rng(1).random(300) < 1 / (1 + np.exp(-logits))) * 1
    plain = validation_scores(logits, labels)["val_loss"]
    assert validation_scores(logits + 1.0, labels)["val_loss"] == pytest.approx(
        plain, abs=0.01
    )
