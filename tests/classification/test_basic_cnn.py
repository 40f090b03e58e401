"""The basic CNN: it learns what is easy, says where, and comes back from the store."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.drawn_crops import CROPS, draw_vertebra, manifest_of, write_store

from csfd_core.classification.basic_cnn.network import BasicCnn
from csfd_core.classification.classifier import CropShape
from csfd_core.classification.classifier_store import FoldResult
from csfd_core.classification.classifiers import open_classifier
from csfd_core.classification.config import NONE, ClassifierConfig
from csfd_core.classification.fit import (
    ClassifierFit,
    fit_classifier,
    is_current,
    open_trained,
    plan_classifier,
)
from csfd_core.classification.vertebrae import read_vertebrae
from csfd_core.errors import StoreError
from csfd_core.evaluation.metrics import auroc
from csfd_core.learning.loop import EpochRow
from csfd_core.learning.splits import Split
from csfd_core.registry.serving import open_ensemble
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import OVERALL

CONFIG = ClassifierConfig(
    epochs=2,
    steps_per_epoch=30,
    batch_size=32,
    patch_px=16,
    filters=(8, 16),
    initial=NONE,
)
SHORT = replace(CONFIG, epochs=3, steps_per_epoch=2, batch_size=8, filters=(4, 4))
SHAPE = CropShape.of(CROPS.to_note())


class Killed(BaseException):
    """As if the process had been stopped."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return write_store(tmp_path_factory.mktemp("basic_cnn"))


@pytest.fixture(scope="module")
def fit(stores: Stores) -> ClassifierFit:
    return plan_classifier("basic_cnn", 0, CONFIG, manifest_of(stores))


@pytest.fixture(scope="module")
def result(stores: Stores, fit: ClassifierFit) -> FoldResult:
    assert not is_current(stores, fit)
    return fit_classifier(stores, fit)


@pytest.fixture(scope="module")
def trained(stores: Stores, result: FoldResult) -> BasicCnn:
    found = open_trained(stores, "basic_cnn", 0)
    assert isinstance(found, BasicCnn)
    return found


def test_it_tells_bright_crosses_in_studies_that_it_has_not_seen(
    result: FoldResult,
) -> None:
    rows = result.predictions
    rows = rows[(rows["group"] == Split.TEST) & (rows["level"] != OVERALL)]
    assert rows["label"].sum() > 1
    assert auroc(rows["label"].astype(int), rows["probability"]) > 0.9
    assert [row["epoch"] for row in result.card.history] == [1, 2]


def test_it_is_the_same_after_it_was_kept(
    stores: Stores, fit: ClassifierFit, result: FoldResult, trained: BasicCnn
) -> None:
    assert is_current(stores, fit)
    rows = fit.test
    kept = result.predictions.dropna(subset=["logit"]).set_index(["study_uid", "level"])
    expected = kept.loc[list(zip(rows["study_uid"], rows["level"], strict=True))]
    found = trained.stored_logits(stores.crops, rows)
    # The weights are kept in half precision.
    np.testing.assert_allclose(found, expected["logit"], atol=0.05)
    pairs = dict(read_vertebrae(stores.crops, rows))
    in_memory = trained.logits([pairs[place] for place in rows.index])
    np.testing.assert_allclose(in_memory, found, atol=1e-4)
    again = open_trained(stores, "basic_cnn", 0).stored_logits(stores.crops, rows)
    np.testing.assert_array_equal(again, found)


def test_logits_stand_in_the_order_of_the_rows(
    stores: Stores, fit: ClassifierFit, trained: BasicCnn
) -> None:
    rows = fit.validation
    mixed = rows.sample(frac=1, random_state=0)
    found = dict(
        zip(mixed.index, trained.stored_logits(stores.crops, mixed), strict=True)
    )
    expected = trained.stored_logits(stores.crops, rows)
    np.testing.assert_allclose([found[i] for i in rows.index], expected, atol=1e-4)
    assert trained.logits([]).shape == (0,)


def test_heat_is_highest_where_the_fracture_is(trained: BasicCnn) -> None:
    rng = np.random.default_rng(12)
    hits = 0
    for _ in range(8):
        vertebra = draw_vertebra(True, rng)
        heat = trained.heat(vertebra)
        assert heat.shape == vertebra.masks.shape
        assert heat.min() >= 0
        assert heat.max() <= 1
        at, row, column = np.unravel_index(heat.argmax(), heat.shape)
        assert vertebra.boxes is not None
        broken = next(i for i, boxes in enumerate(vertebra.boxes) if len(boxes))
        row0, column0, row1, column1 = vertebra.boxes[broken][0]
        near = row0 - 2 <= row <= row1 + 2 and column0 - 2 <= column <= column1 + 2
        hits += at == broken and near
    assert hits >= 7


def test_a_vertebra_is_judged_as_its_mirror_image_and_as_seen_from_the_feet(
    stores: Stores, fit: ClassifierFit, trained: BasicCnn
) -> None:
    vertebra = draw_vertebra(True, np.random.default_rng(8))
    mirrored = replace(
        vertebra, images=vertebra.images[..., ::-1], masks=vertebra.masks[..., ::-1]
    )
    from_feet = replace(vertebra, images=vertebra.images[:, ::-1])
    found = trained.logits([vertebra, mirrored, from_feet])
    np.testing.assert_allclose(found, found[0], atol=1e-4)
    np.testing.assert_allclose(
        trained.heat(mirrored)[..., ::-1], trained.heat(vertebra), atol=1e-4
    )
    plain = BasicCnn(replace(CONFIG, average_views=False), SHAPE, stores.root)
    plain.set_weights(trained.get_weights())
    assert np.ptp(plain.logits([vertebra, mirrored])) > 1e-3
    assert np.ptp(plain.logits([vertebra, from_feet])) > 1e-3


def test_places_away_from_the_vertebra_do_not_count(trained: BasicCnn) -> None:
    whole = draw_vertebra(False, np.random.default_rng(0))
    images = whole.images.copy()
    images[:, :, :3, :] = 250  # a bright bar in the corner, as of a table
    images[:, :, :, :3] = 250
    outside = replace(whole, images=images, masks=whole.masks.copy())
    outside.masks[:, :13] = 0
    outside.masks[:, :, :13] = 0
    expected = trained.logits([replace(outside, images=whole.images)])
    assert trained.logits([outside]) == pytest.approx(expected, abs=1e-3)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    root = Location(tmp_path)
    small = open_classifier("basic_cnn", replace(CONFIG, filters=(4, 8)), SHAPE, root)
    own = open_classifier("basic_cnn", CONFIG, SHAPE, root)
    with pytest.raises(
        StoreError, match=r"array 0 has the shape \(3, 3, 4, 8\), in the file \(3, 3, 4"
    ):
        own.set_weights(small.get_weights())
    with pytest.raises(StoreError, match="it has 17 arrays, the file 16"):
        own.set_weights(own.get_weights()[:-1])


@pytest.mark.slow
def test_a_killed_training_ends_like_one_that_was_not(tmp_path: Path) -> None:
    stores = write_store(tmp_path / "store", 14)
    fit = plan_classifier("basic_cnn", 0, SHORT, manifest_of(stores))
    whole = fit_classifier(stores, fit)
    told: list[float] = []

    def kill(row: EpochRow) -> None:
        told.append(row["epoch"])
        if row["epoch"] == 2:
            raise Killed("on purpose")

    with pytest.raises(Killed, match="on purpose"):
        fit_classifier(stores, fit, kill)
    assert stores.root.entries("checkpoints")
    resumed = fit_classifier(stores, fit, kill)
    assert told == [1, 2, 3]
    assert not stores.root.entries("checkpoints")
    for row, expected in zip(resumed.card.history, whole.card.history, strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], abs=1e-4)
        assert row["val_loss"] == pytest.approx(expected["val_loss"], abs=1e-4)
    np.testing.assert_allclose(
        resumed.predictions["probability"], whole.predictions["probability"], atol=1e-3
    )


@pytest.mark.slow
def test_a_seed_gives_the_same_numbers_again_and_another_seed_others(
    stores: Stores, fit: ClassifierFit
) -> None:
    def train(seed: int) -> FoldResult:
        config = replace(SHORT, epochs=2, seed=seed)
        return fit_classifier(
            stores, plan_classifier("basic_cnn", 2, config, fit.manifest)
        )

    first, again, other = train(1), train(1), train(2)
    pd.testing.assert_frame_equal(again.predictions, first.predictions)
    assert again.card.weights_sha256 == first.card.weights_sha256
    assert other.card.weights_sha256 != first.card.weights_sha256


@pytest.mark.slow
def test_more_vertebrae_than_fit_are_read_anew_and_keep_the_fractured(
    stores: Stores, fit: ClassifierFit
) -> None:
    few = replace(SHORT, epochs=2, most_vertebrae=20)
    again = fit_classifier(stores, plan_classifier("basic_cnn", 1, few, fit.manifest))
    assert len(again.card.history) == 2


def test_folds_of_one_name_speak_together(
    stores: Stores, fit: ClassifierFit, result: FoldResult
) -> None:
    ensemble = open_ensemble(stores, "basic_cnn")
    vertebrae = {"C4": draw_vertebra(True, np.random.default_rng(4))}
    found = ensemble.predict(vertebrae)
    assert found["C4"] > result.card.prevalence["C4"]
    assert found["C1"] == pytest.approx(
        np.mean([card.prevalence["C1"] for card in ensemble.cards])
    )
