"""Cards: written in today's shape, and read in the shapes of before."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cards import classifier_card, point_of, segmentation_card

from csfd_core.classification.card import ClassifierCard
from csfd_core.classification.config import NONE, ClassifierConfig
from csfd_core.errors import StoreError
from csfd_core.evaluation.calibration import Calibration
from csfd_core.learning.loop import VALIDATION_LOSS, Monitor
from csfd_core.learning.outcomes import StopReason
from csfd_core.learning.splits import Split
from csfd_core.segmentation.bundle import builtin_location, read_bundle
from csfd_core.segmentation.card import SegmentationCard
from csfd_core.segmentation.config import PROFILES, SMALL, TrainingConfig
from csfd_core.segmentation.training import VALIDATION_DICE

# As they were written before cards named the version of their schema.
FOLDER = Path(__file__).parent / "cards"
CLASSIFIER = (FOLDER / "classifier_1.json").read_text()
SEGMENTATION = (FOLDER / "segmentation_1.json").read_text()


def test_a_classifier_of_before_is_read_with_all_it_said() -> None:
    written: dict[str, Any] = json.loads(CLASSIFIER)
    assert "schema_version" not in written
    card = ClassifierCard.from_json(CLASSIFIER)
    assert card.schema_version == ClassifierCard.newest
    same = (
        "model", "model_id", "fold", "inputs", "manifest", "crop", "start",
        "training_studies", "validation_studies", "test_studies", "label_digests",
        "prevalence", "data_kind", "parameters", "disk_bytes", "train_s",
        "ms_per_study", "trained_at", "weights_sha256", "mlflow_run_id",
        "code_version", "lock_sha256", "best_epoch",
    )  # fmt: skip
    for name in same:
        assert getattr(card, name) == written[name], name
    assert list(card.history) == written["history"]
    assert card.config == ClassifierConfig(epochs=1, initial=NONE)
    assert card.settings.items() >= written["config"].items()
    assert card.weights == written["weights"]
    for what in ("vertebra", "overall"):
        point = card.thresholds[what]
        assert point.threshold == written["thresholds"][what]["threshold"]
        assert point.is_default == written["thresholds"][what]["is_default"]
    assert card.calibration.vertebra == Calibration(
        **written["calibration"]["vertebra"]
    )


@pytest.mark.parametrize(
    ("monitor", "before", "epochs", "best_epoch", "told"),
    [
        (VALIDATION_LOSS, 0.3, (0.5, 0.4), 0, "val_loss 0.300 before, 0.400 at best"),
        (VALIDATION_DICE, 0.8, (0.7,), 0, "0.800 before, 0.700 at best in 1 epoch."),
        (VALIDATION_DICE, 0.8, (0.7, 0.9), 2, ""),
        (VALIDATION_LOSS, None, (0.5,), 0, ""),  # it started from nothing
        (VALIDATION_DICE, 0.8, (math.nan,), 0, ""),
    ],
)
def test_a_card_says_where_no_epoch_was_better_than_the_start(
    monitor: Monitor,
    before: float | None,
    epochs: tuple[float, ...],
    best_epoch: int,
    told: str,
) -> None:
    card = segmentation_card(model_id="m").model_copy(
        update={
            "before": {} if before is None else {monitor.score: before},
            "history": tuple({monitor.score: value} for value in epochs),
            "best_epoch": best_epoch,
            "initial": "general-2",
        }
    )
    said = card.unimproved(monitor)
    assert told in said
    assert bool(told) == bool(said)
    assert not said or "(general-2) is kept" in said


@pytest.mark.parametrize("version", [1, 2])
def test_a_classifier_of_before_gives_studies_the_probabilities_that_it_gave(
    version: int,
) -> None:
    written = json.loads(CLASSIFIER)
    if version == 2:
        new = {"stopped": "all_epochs", "schema_version": 2}
        written |= {**new, "config": asdict(ClassifierConfig(epochs=1))}
    card = ClassifierCard.from_json(json.dumps(written))
    assert card.schema_version == ClassifierCard.newest
    levels = np.array([[0.1, 0.3, 0.02, 0.2, 0.6, 0.05, 0.4], [0.01] * 7])
    whole = np.prod(1 - levels, axis=1)
    rule = Calibration(**written["calibration"]["overall"])  # a temperature, a bias
    expected = rule.apply(np.log((1 - whole) / whole))
    np.testing.assert_allclose(card.calibration.overall.apply(levels), expected)
    fitted = card.calibration.overall
    assert (fitted.n, fitted.is_fitted, fitted.worst_weight) == (3, True, 0.0)
    assert ClassifierCard.from_json(card.to_json()) == card


@pytest.mark.parametrize(
    ("prose", "reason"),
    [
        ("", StopReason.ALL_EPOCHS),
        ("no lower validation loss in 15 epochs", StopReason.NO_IMPROVEMENT),
        ("the loss was not a number in epoch 3", StopReason.NOT_A_NUMBER),
    ],
)
def test_why_a_training_of_before_stopped_is_no_longer_prose(
    prose: str, reason: StopReason
) -> None:
    written = {**json.loads(CLASSIFIER), "stopped": prose}
    assert ClassifierCard.from_json(json.dumps(written)).stopped is reason


def test_what_the_oldest_cards_lack_is_not_known() -> None:
    written = json.loads(CLASSIFIER)
    late = ("test_studies", "label_digests", "trained_at", "weights_sha256", "fold")
    for name in (*late, "mlflow_run_id", "lock_sha256"):
        del written[name]
    del written["config"]["average_views"]
    card = ClassifierCard.from_json(json.dumps(written), fold=3)
    assert card.fold == 3  # from where it lies
    assert (card.test_studies, card.weights_sha256, card.lock_sha256) == (None,) * 3
    assert (card.label_digests, card.trained_at) == ({}, "")
    assert card.studies(Split.TEST) == set()
    assert not card.config.average_views  # the first networks did not


def test_a_segmentation_model_of_before_is_read_with_all_it_said() -> None:
    written = json.loads(SEGMENTATION)
    card = SegmentationCard.from_json(SEGMENTATION)
    facts = written["facts"]
    for name in ("model_id", "fold", "inputs", "initial", "best_epoch", "seconds"):
        assert getattr(card, name) == facts[name], name
    assert card.networks == SMALL
    assert card.training == TrainingConfig(
        epochs=6, steps_per_epoch=25, learning_rate=3e-4, patience=4
    )
    for split in (Split.TRAINING, Split.VALIDATION):
        seen = {uid: tuple(pair) for uid, pair in facts[f"{split}_studies"].items()}
        assert seen
        assert card.contents(split) == seen
    assert len(card.history) == 2
    assert math.isnan(card.history[0]["dice_C3"])
    assert card.history[1]["validation_dice"] == 0.7


def test_the_card_that_came_with_csfd_0_2_is_read() -> None:
    text = (FOLDER / "general_2.json").read_text()
    assert "schema_version" not in json.loads(text)
    card = SegmentationCard.from_json(text)
    assert (card.model_id, card.networks) == ("general-2", SMALL)
    assert card.notice == "Research software; not for clinical use."


def test_the_card_that_comes_with_csfd_is_of_this_version() -> None:
    text = builtin_location().read("model.json")
    assert json.loads(text)["schema_version"] == SegmentationCard.newest
    assert read_bundle(builtin_location()).card == SegmentationCard.from_json(text)


def test_a_card_comes_back_as_it_was() -> None:
    classifier = classifier_card(
        history=[{"epoch": 1, "val_loss": 0.5}],
        stopped=StopReason.NO_IMPROVEMENT,
        training_studies={"1.2": "a"},
        thresholds={"vertebra": point_of(0.25), "overall": point_of(0.5)},
    )
    assert ClassifierCard.from_json(classifier.to_json()) == classifier
    segmentation = segmentation_card(
        training=PROFILES["full"].training,
        training_studies={"1.2": ("content", "mask")},
        seconds=3.0,
    )
    assert SegmentationCard.from_json(segmentation.to_json()) == segmentation


def test_what_is_undefined_is_null_and_comes_back_as_nan() -> None:
    card = classifier_card(history=[{"epoch": 1, "val_auc": math.nan}])

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    text = card.to_json()
    assert json.loads(text, parse_constant=refuse)["history"][0]["val_auc"] is None
    again = ClassifierCard.from_json(text)
    assert math.isnan(again.history[0]["val_auc"])
    assert math.isnan(again.train_s)


def test_a_card_of_a_newer_csfd_is_refused_by_its_number() -> None:
    newer = json.loads(classifier_card().to_json()) | {"schema_version": 6}
    with pytest.raises(StoreError, match=r"schema version 6; this csfd reads up to 5"):
        ClassifierCard.from_json(json.dumps(newer))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"training_studies": None}, "training_studies: Input should be"),
        ({"config": {"epochs": "many"}}, "config.epochs: Input should be"),
    ],
)
def test_what_is_no_card_is_refused_by_its_field(
    change: dict[str, Any], told: str
) -> None:
    written = {**json.loads(CLASSIFIER), **change}
    with pytest.raises(StoreError, match=f"no card of a classifier: {told}"):
        ClassifierCard.from_json(json.dumps(written))
    with pytest.raises(StoreError, match="no card of a classifier: JSONDecodeError"):
        ClassifierCard.from_json("{")
