"""Backbones: frozen with cached features, or tuned; the same when they come back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.drawn_crops import (
    CROPS,
    draw_vertebra,
    manifest_of,
    put_tiny_backbone,
    uid_of,
    write_store,
)

from csfd_core.classification.classifier import CropShape
from csfd_core.classification.classifier_store import FoldResult
from csfd_core.classification.classifiers import open_classifier
from csfd_core.classification.config import ClassifierConfig
from csfd_core.classification.fit import (
    ClassifierFit,
    fit_classifier,
    open_trained,
    plan_classifier,
)
from csfd_core.classification.transfer.backbone import BackboneClassifier
from csfd_core.classification.transfer.features import FeatureCache
from csfd_core.classification.transfer.head import build_head, scale_to
from csfd_core.classification.vertebrae import read_vertebrae
from csfd_core.errors import SettingsError, StoreError
from csfd_core.learning.loop import EpochRow
from csfd_core.runtime.compute import computing
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES

CONFIG = ClassifierConfig(epochs=3)
TUNED = replace(CONFIG, epochs=1, fine_tune_epochs=1, fine_tune_rate=1e-3)
KILLED = replace(TUNED, epochs=2)
SHAPE = CropShape.of(CROPS.to_note())
# Keras reads its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


class Killed(BaseException):
    """As if the process had been stopped."""


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return write_store(tmp_path / "store", 16)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny network in place of ResNet50, whose top block is its last layer."""
    put_tiny_backbone(monkeypatch)


def plan(stores: Stores, config: ClassifierConfig = CONFIG) -> ClassifierFit:
    return plan_classifier("resnet50", 0, config, manifest_of(stores))


def opened(stores: Stores, config: ClassifierConfig = CONFIG) -> BackboneClassifier:
    found = open_classifier("resnet50", config, SHAPE, stores.root)
    assert isinstance(found, BackboneClassifier)
    return found


def feature_files(stores: Stores) -> list[Path]:
    return sorted(Path(str(stores.root)).glob("features/*/*.npz"))


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of vertebrae of each extraction."""
    calls: list[int] = []
    extract = BackboneClassifier._extract

    def counted(self: BackboneClassifier, vertebrae: list) -> np.ndarray:
        calls.append(len(vertebrae))
        return extract(self, vertebrae)

    monkeypatch.setattr(BackboneClassifier, "_extract", counted)
    return calls


@pytest.mark.slow
def test_a_real_backbone_gives_a_head_that_comes_back(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_calls(monkeypatch)
    fit = plan(stores)
    result = fit_classifier(stores, fit)
    assert [row["epoch"] for row in result.card.history] == [1, 2, 3]
    assert result.card.parameters > 23_000_000
    assert result.card.disk_bytes < 1_000_000  # the head alone is kept
    studies = fit.manifest.usable["study_uid"].nunique()
    assert len(feature_files(stores)) == studies
    timed = 1 + min(3, fit.test["study_uid"].nunique())
    assert len(calls) <= studies + timed + 3
    trained = open_trained(stores, "resnet50", 0)
    kept = result.predictions.dropna(subset=["logit"]).set_index(["study_uid", "level"])
    rows = fit.validation
    expected = kept.loc[list(zip(rows["study_uid"], rows["level"], strict=True))]
    found = trained.stored_logits(stores.crops, rows)
    np.testing.assert_allclose(found, expected["logit"], atol=0.02)
    calls.clear()
    trained.stored_logits(stores.crops, fit.manifest.usable)
    assert calls == []


@pytest.mark.usefixtures("small")
def test_features_are_computed_once_and_equal_fresh_ones(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_calls(monkeypatch)
    rows = manifest_of(stores).usable
    classifier = opened(stores)
    first = classifier.stored_logits(stores.crops, rows)
    assert calls == [7] * 16
    again = opened(stores)
    again.set_weights(classifier.get_weights())
    np.testing.assert_allclose(
        again.stored_logits(stores.crops, rows), first, atol=1e-5
    )
    assert calls == [7] * 16
    pairs = dict(read_vertebrae(stores.crops, rows))
    fresh = again.logits([pairs[place] for place in rows.index])
    np.testing.assert_allclose(first, fresh, atol=0.02)  # kept in half precision
    assert first.std() > 0.05


@pytest.mark.usefixtures("small")
def test_other_weights_or_crops_have_features_of_their_own(stores: Stores) -> None:
    rows = manifest_of(stores).usable
    opened(stores).stored_logits(stores.crops, rows)
    assert len(feature_files(stores)) == 16
    other = opened(stores, replace(CONFIG, seed=1))
    assert other.start()["digest"] != opened(stores).start()["digest"]
    other.stored_logits(stores.crops, rows)
    assert len(feature_files(stores)) == 32
    changed = rows.assign(content_hash="new")
    opened(stores).stored_logits(stores.crops, changed.iloc[:7])
    assert len(feature_files(stores)) == 33


@pytest.mark.usefixtures("small")
def test_logits_stand_in_the_order_of_the_rows(stores: Stores) -> None:
    rows = manifest_of(stores).usable
    classifier = opened(stores)
    expected = dict(
        zip(rows.index, classifier.stored_logits(stores.crops, rows), strict=True)
    )
    mixed = rows.sample(frac=1, random_state=0)
    found = classifier.stored_logits(stores.crops, mixed)
    np.testing.assert_allclose(found, [expected[i] for i in mixed.index], atol=0.02)


@pytest.mark.usefixtures("small")
def test_what_is_not_the_vertebra_is_dark_to_a_backbone(stores: Stores) -> None:
    vertebra = draw_vertebra(False, np.random.default_rng(0))
    bright = replace(vertebra, images=np.full_like(vertebra.images, 200))
    inputs = opened(stores)._to_inputs([bright])
    assert inputs.shape == (2, 32, 32, 3)
    means = np.array([103.939, 116.779, 123.68])  # of the colours, as ResNet50 expects
    np.testing.assert_allclose(inputs[0, 16, 16], 200 - means, atol=1e-3)
    np.testing.assert_allclose(inputs[0, 0, 0], 80 - means, atol=1e-3)


@pytest.mark.usefixtures("small")
def test_a_slice_without_neighbours_is_all_three_colours(stores: Stores) -> None:
    vertebra = draw_vertebra(False, np.random.default_rng(0))
    alone = replace(vertebra, images=vertebra.images[:, 1:2])
    thrice = replace(vertebra, images=np.repeat(vertebra.images[:, 1:2], 3, axis=1))
    backbone = opened(stores)
    np.testing.assert_array_equal(
        backbone._to_inputs([alone]), backbone._to_inputs([thrice])
    )


@pytest.mark.usefixtures("small")
def test_heat_is_a_map_of_each_slice(stores: Stores) -> None:
    heat = opened(stores).heat(draw_vertebra(True, np.random.default_rng(0)))
    assert heat.shape == (2, 32, 32)
    assert heat.min() >= 0
    assert heat.max() <= 1


def test_a_head_scales_features_and_does_so_when_it_comes_back() -> None:
    rng = np.random.default_rng(0)
    # As large as an activation, as small as those of random weights, and constant.
    scales = np.array([[20.0, 1e-7, 0.0]])
    features = (rng.normal(3, 1, (50, 2, 3)) * scales).astype(np.float32)
    with computing():
        import keras

        head = build_head(2, 3, CONFIG)
        scale_to(head, features)
        again = build_head(2, 3, CONFIG)
    again.set_weights(head.get_weights())
    for found in (head, again):
        scaled = keras.Model(found.input, found.get_layer("scale").output)(features)
        flat = np.array(scaled).reshape(-1, 3)
        np.testing.assert_allclose(flat[:, 0].mean(), 0, atol=1e-3)
        np.testing.assert_allclose(flat[:, 0].std(), 1, atol=1e-3)
        assert np.abs(flat).max() < 5
    odd = features.copy()
    odd[..., 2] = 1.0  # of a feature that was silent in training
    logits = np.array(again.predict_on_batch(odd)["vertebra"])
    assert np.abs(logits).max() < 10


def test_features_as_small_as_those_of_random_weights_are_scaled_too() -> None:
    features = np.random.default_rng(0).normal(3e-7, 1e-7, (50, 2, 4))
    with computing():
        import keras

        head = build_head(2, 4, CONFIG)
    scale_to(head, features.astype(np.float32))
    scaled = keras.Model(head.input, head.get_layer("scale").output)(features)
    np.testing.assert_allclose(np.array(scaled).std(axis=(0, 1)), 1, atol=1e-2)


@pytest.mark.parametrize("size", [1.0, 1e-7, 1e6])
def test_features_of_any_size_survive_the_cache(tmp_path: Path, size: float) -> None:
    root = Location(tmp_path)
    features = np.random.default_rng(0).normal(0, size, (7, 2, 6)).astype(np.float32)
    crops = write_store(tmp_path / "store", 1).crops
    rows = pd.DataFrame(
        {"study_uid": uid_of(1), "level": list(LEVEL_NAMES), "content_hash": "c"}
    )
    cache = FeatureCache(
        root=root, backbone="x", digest="d", extract=lambda vertebrae: features
    )
    for _ in range(2):
        ((_, found),) = cache.read(crops, rows)
        np.testing.assert_allclose(found, features, atol=2e-3 * size)


@pytest.mark.usefixtures("small")
def test_weights_of_another_head_are_refused(stores: Stores) -> None:
    wide = opened(stores, replace(CONFIG, hidden=32))
    with pytest.raises(StoreError, match=r"shape \(6, 64\), in the file \(6, 32\)"):
        opened(stores).set_weights(wide.get_weights())


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_a_trained_head_needs_the_weights_it_started_from(
    stores: Stores, tmp_path: Path
) -> None:
    file = tmp_path / "own.weights.h5"
    opened(stores, replace(CONFIG, seed=5))._network.save_weights(file)
    fit = plan(stores, replace(CONFIG, weights=str(file)))
    fit_classifier(stores, fit)
    open_trained(stores, "resnet50", 0)
    opened(stores, replace(CONFIG, seed=6))._network.save_weights(file)
    with pytest.raises(StoreError, match="are not what they were"):
        open_trained(stores, "resnet50", 0)
    file.unlink()
    with pytest.raises(SettingsError, match="There is no weights file"):
        open_trained(stores, "resnet50", 0)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_tuning_changes_the_top_blocks_alone_and_comes_back(stores: Stores) -> None:
    fit = plan(stores, TUNED)
    before = {w.path: np.array(w) for w in opened(stores)._network.weights}
    result = fit_classifier(stores, fit)
    assert [row["epoch"] for row in result.card.history] == [1, 2]
    assert 1 <= result.card.best_epoch <= 2
    trained = open_trained(stores, "resnet50", 0)
    assert isinstance(trained, BackboneClassifier)
    changed = {
        weight.path.split("/")[0]
        for weight in trained._network.weights
        if np.abs(np.array(weight) - before[weight.path]).max() > 1e-3
    }
    assert changed == {"conv5_block"}
    kept = result.predictions.dropna(subset=["logit"]).set_index(["study_uid", "level"])
    rows = fit.validation
    expected = kept.loc[list(zip(rows["study_uid"], rows["level"], strict=True))]
    found = trained.stored_logits(stores.crops, rows)
    np.testing.assert_allclose(found, expected["logit"], atol=0.05)
    pairs = dict(read_vertebrae(stores.crops, rows))
    in_memory = trained.logits([pairs[place] for place in rows.index])
    np.testing.assert_allclose(in_memory, found, atol=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_tuning_that_makes_it_worse_is_not_kept(stores: Stores) -> None:
    config = replace(TUNED, epochs=4, fine_tune_rate=3.0)
    result = fit_classifier(stores, plan(stores, config))
    losses = [row["val_loss"] for row in result.card.history]
    assert len(losses) == 5
    assert result.card.best_epoch == 1 + int(np.argmin(losses))
    assert result.card.best_epoch < 5
    plain = fit_classifier(stores, plan(stores, replace(config, fine_tune_epochs=0)))
    np.testing.assert_allclose(
        result.predictions["probability"], plain.predictions["probability"], atol=0.01
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> FoldResult:
    """Of a training that nothing kills, in a store like those of the others."""
    stores = write_store(tmp_path_factory.mktemp("whole"), 16)
    with pytest.MonkeyPatch.context() as patch:
        put_tiny_backbone(patch)
        return fit_classifier(stores, plan(stores, KILLED))


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("last", [1, 2])
def test_a_killed_training_goes_on_through_head_and_tuning(
    stores: Stores, whole: FoldResult, last: int
) -> None:
    fit = plan(stores, KILLED)
    told: list[float] = []

    def kill(row: EpochRow) -> None:
        told.append(row["epoch"])
        if row["epoch"] == last and told.count(last) == 1:
            raise Killed("on purpose")

    with pytest.raises(Killed, match="on purpose"):
        fit_classifier(stores, fit, kill)
    assert stores.root.entries("checkpoints")
    resumed = fit_classifier(stores, fit, kill)
    assert told == [1, 2, 3]
    for row, expected in zip(resumed.card.history, whole.card.history, strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], abs=1e-4)
        assert row["val_loss"] == pytest.approx(expected["val_loss"], abs=1e-4)
