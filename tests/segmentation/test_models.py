"""Models as they are kept, and which of them may predict a study."""

import math
from pathlib import Path

import numpy as np
import pytest
from support.cards import segmentation_card

from csfd_core.errors import SettingsError, StoreError
from csfd_core.segmentation.bundle import (
    ModelBundle,
    builtin_location,
    read_bundle,
    read_card,
    write_bundle,
)
from csfd_core.segmentation.card import SegmentationCard
from csfd_core.segmentation.config import (
    LARGE,
    SMALL,
    ModelConfig,
    NetworkConfig,
    TrainingConfig,
)
from csfd_core.segmentation.model_store import ModelStore, choose_model, open_model
from csfd_core.store.locations import Location

SEEN = ("content", "mask")
CARDS = {
    0: segmentation_card(
        model_id="a",
        training_studies=dict.fromkeys("12", SEEN),
        validation_studies={"3": SEEN},
    ),
    1: segmentation_card(
        model_id="b",
        training_studies=dict.fromkeys("23", SEEN),
        validation_studies={"1": SEEN},
    ),
}


@pytest.mark.parametrize(
    ("study", "expected"),
    [
        ("3", (0, "a", "out_of_fold")),
        ("1", (1, "b", "out_of_fold")),
        ("2", (0, "a", "in_sample")),
        ("9", (0, "a", "unseen")),
    ],
)
def test_a_study_gets_a_model_that_has_not_seen_it_where_there_is_one(
    study: str, expected: tuple[int, str, str]
) -> None:
    choice = choose_model(study, CARDS)
    assert choice is not None
    assert (choice.fold, choice.model_id, choice.standing) == expected


def test_without_models_there_is_no_choice() -> None:
    assert choose_model("1", {}) is None


def test_a_bundle_comes_back_as_it_was(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(3, 4)).astype(np.float32) for _ in range(12)]
    place = Location(tmp_path)
    card = segmentation_card(history=[{"dice_C1": math.nan, "epoch": 1}])
    write_bundle(place, ModelBundle(card=card, weights=weights))
    found = read_bundle(place)
    assert found.config == SMALL
    assert str(found.card) == str(card)  # as NaN equals nothing
    for value, expected in zip(found.weights, weights, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-3)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"config": {"format": 99}}')
    with pytest.raises(StoreError, match="holds no segmentation model"):
        read_bundle(Location(tmp_path))


def test_unknown_alias_names_what_is_there(tmp_path: Path) -> None:
    store = Location(tmp_path)
    bundle = ModelBundle(card=segmentation_card(model_id="x"), weights=[])
    write_bundle(ModelStore(store).of_fold(2), bundle)
    assert open_model("store", store).name == "x"
    assert open_model("fold_2", store).name == "x"
    with pytest.raises(SettingsError, match="It has: fold_2"):
        open_model("fold_0", store)


def test_the_model_that_comes_with_csfd_is_small_and_says_what_it_learnt_from() -> None:
    card = read_card(builtin_location())
    assert card is not None
    assert "phantoms only" in str(card.training_data)
    bundle = read_bundle(builtin_location())
    assert bundle.config == SMALL
    size = sum(value.size * 2 for value in bundle.weights)
    assert size < 10_000_000


@pytest.mark.parametrize("config", [SMALL, LARGE])
def test_settings_survive_a_card(config: ModelConfig) -> None:
    card = segmentation_card(networks=config)
    assert SegmentationCard.from_json(card.to_json()).networks == config


def test_a_grid_that_does_not_halve_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        NetworkConfig(
            shape_zyx=(20, 16, 16),
            spacing_mm=1.0,
            classes=8,
            filters=(4, 8, 8),
            stem=2,
            coordinates=True,
        )


def test_no_epoch_is_refused() -> None:
    with pytest.raises(ValueError, match="`epochs` must be at least 1"):
        TrainingConfig(epochs=0)
