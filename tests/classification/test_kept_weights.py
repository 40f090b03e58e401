"""What is kept of a network's weights, and the card beside them."""

import json
import math
from pathlib import Path

import numpy as np
from support.cards import classifier_card, kept_file

from csfd_core.classification.classifier_store import CARD as CARD_FILE
from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.evaluation.metrics import operating_point
from csfd_core.store.locations import Location

CARD = classifier_card()


def kept(folder: Path, *arrays: np.ndarray) -> list[np.ndarray]:
    store = ClassifierStore(Location(folder))
    store.write(CARD, arrays, [])
    return store.read_weights("basic_cnn", 0)


def test_tiny_variances_survive(tmp_path: Path) -> None:
    """Features of an untrained backbone vary by 1e-9; half precision makes that 0."""
    variance = np.array([1e-9, 3e-12, 2.0, 1e6], dtype=np.float32)
    np.testing.assert_array_equal(kept(tmp_path, variance)[0], variance)


def test_kernels_keep_three_digits(tmp_path: Path) -> None:
    kernel = np.random.default_rng(0).normal(size=(30, 20)).astype(np.float32)
    np.testing.assert_allclose(kept(tmp_path, kernel)[0], kernel, rtol=0, atol=2e-3)


def test_kernels_take_half_the_space_where_that_says_the_same(tmp_path: Path) -> None:
    kernel = np.random.default_rng(0).normal(size=(200, 100)).astype(np.float32)
    kept(tmp_path, kernel)
    place = Location(tmp_path / "models/classification/basic_cnn/fold_0")
    content = place.read(kept_file(place, "weights.npz"))
    assert len(content) < kernel.nbytes * 0.6


def test_a_card_is_strict_json_and_undefined_scores_come_back(tmp_path: Path) -> None:
    one_class = operating_point(np.zeros(3, dtype=int), np.array([0.1, 0.2, 0.3]))
    assert math.isnan(one_class.sensitivity)
    history = [
        {"epoch": 1.0, "val_loss": 0.5, "val_auc": math.nan},
        {"epoch": 2.0, "val_loss": 0.4, "val_auc": math.nan},
    ]
    card = classifier_card(history=history, thresholds={"vertebra": one_class})
    store = ClassifierStore(Location(tmp_path))
    store.write(card, [], [])

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    text = store.of_fold("basic_cnn", 0).read(CARD_FILE)
    assert json.loads(text, parse_constant=refuse)["history"][1]["val_auc"] is None
    found = store.result("basic_cnn", 0)
    assert found.epochs["val_auc"].isna().all()
    assert found.epochs["val_auc"].dtype == float
    assert found.epochs["val_loss"].tolist() == [0.5, 0.4]
    assert str(found.card.thresholds["vertebra"]) == str(one_class)
