"""The folds of a classifier as one ensemble: its mean, its aliases, its examples."""

from typing import Any, cast

import numpy as np
import pytest
from support.cards import classifier_card, point_of
from support.drawn_crops import (
    CROPS,
    BrightClassifier,
    manifest_of,
    uid_of,
    write_trained_store,
)

from csfd_core.classification.card import ClassifierCard
from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.classification.config import ClassifierConfig
from csfd_core.classification.ensemble import Ensemble, read_best, suspicion, write_best
from csfd_core.classification.manifest import Manifest
from csfd_core.errors import SettingsError, StoreError
from csfd_core.evaluation.folds import is_test
from csfd_core.registry.serving import open_ensemble
from csfd_core.reports.comparison.example_choice import choose_examples
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LABEL_COLUMNS

pytestmark = pytest.mark.usefixtures("bright")
NAME = "basic_cnn"


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return write_trained_store(tmp_path_factory.mktemp("ensemble"), NAME, folds=(0, 3))


def test_folds_of_different_crops_are_no_ensemble(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = ClassifierStore.card

    def card(self: ClassifierStore, model: str, fold: int) -> ClassifierCard | None:
        read = written(self, model, fold)
        if read is None or fold != 3:
            return read
        return read.model_copy(update={"crop": {**read.crop, "pixel_mm": 9.0}})

    monkeypatch.setattr(ClassifierStore, "card", card)
    with pytest.raises(StoreError, match="crops of different sizes"):
        open_ensemble(stores, NAME)


class Constant(BrightClassifier):
    """Gives its shift as the logit of everything."""

    def logits(self, vertebrae: Any) -> Any:
        return np.full(len(vertebrae), self.shift)


def member(shift: float) -> Constant:
    found = Constant(ClassifierConfig(), cast(Any, None), cast(Any, None))
    found.shift = shift
    return found


def card_of(threshold: float, prevalence: float) -> ClassifierCard:
    point = point_of(threshold)
    return classifier_card(
        model_id=f"m{threshold}",
        thresholds={"vertebra": point, "overall": point},
        prevalence=dict.fromkeys(LABEL_COLUMNS, prevalence),
        data_kind="real",
        crop=CROPS.to_note(),
    )


def test_an_ensemble_is_the_mean_of_its_folds() -> None:
    cards = [card_of(0.2, 0.1), card_of(0.4, 0.3)]
    both = Ensemble(name="x", members=[member(-1.0), member(2.0)], cards=cards)
    found = both.predict({"C3": cast(Any, None)})
    each = [1 / (1 + np.exp(1.0)), 1 / (1 + np.exp(-2.0))]
    assert found["C3"] == pytest.approx(np.mean(each))
    assert found["C1"] == pytest.approx(0.2)
    overall = [1 - 0.9**6 * (1 - each[0]), 1 - 0.7**6 * (1 - each[1])]
    assert found["patient_overall"] == pytest.approx(np.mean(overall), rel=1e-4)
    assert both.thresholds == pytest.approx({"vertebra": 0.3, "overall": 0.3})
    assert both.crop == CROPS
    assert both.predict({})["C3"] == pytest.approx(0.2)


def test_suspicion_is_above_the_operating_point() -> None:
    found = {"patient_overall": 0.5, "C1": 0.3, "C2": 0.29, "C3": None}
    assert suspicion(found, {"vertebra": 0.3, "overall": 0.6}) == ["C1"]
    assert suspicion(found, {"vertebra": 0.9, "overall": 0.5}) == ["patient_overall"]


def test_best_is_what_the_comparison_noted(stores: Stores) -> None:
    assert read_best(stores) is None
    with pytest.raises(SettingsError, match="no trained classifier 'best'. It has: ba"):
        open_ensemble(stores, "best")
    write_best(stores, NAME, beats_prevalences=True)
    assert open_ensemble(stores, "best").name == NAME
    assert len(open_ensemble(stores, "best").members) == 2
    stores.root.remove("models/classification/best.json")
    for alias in ("resnet50", "nonsense", "../basic_cnn"):
        with pytest.raises(SettingsError, match="It has: basic_cnn. Train some with"):
            open_ensemble(stores, alias)


def test_examples_are_hits_misses_and_false_alarms_of_the_test_set(
    stores: Stores,
) -> None:
    manifest: Manifest = manifest_of(stores)
    examples = choose_examples(stores, manifest, NAME)
    assert [example.kind for example in examples] == ["hit", "hit"]
    for example in examples:
        assert example.caption.endswith("label fractured")
        uid_end = example.title.rsplit("...")[-1]
        assert any(
            is_test(uid) for uid in map(uid_of, range(1, 41)) if uid.endswith(uid_end)
        )
        assert example.grey.shape == example.heat.shape == (32, 32)
        assert example.grey.max() >= 240  # the slice that shows the cross
