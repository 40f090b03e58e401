"""From manifest to a kept model, with a classifier that needs no network."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.cards import classifier_card
from support.drawn_crops import (
    CROPS,
    BrightClassifier,
    crop_rows,
    manifest_of,
    some_labels,
    uid_of,
    write_crops,
    write_store,
    write_studies,
)

from csfd_core.classification.card import ClassifierCard
from csfd_core.classification.classifier import TrainingSet
from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.classification.config import NONE, ClassifierConfig, settings_of
from csfd_core.classification.fit import (
    ClassifierFit,
    fit_classifier,
    is_current,
    open_trained,
    plan_classifier,
)
from csfd_core.classification.manifest import Manifest
from csfd_core.classification.training_run import scores_of
from csfd_core.errors import SettingsError, StoreError
from csfd_core.evaluation.folds import fold_of, is_test
from csfd_core.learning.loop import OnEpoch, Trained
from csfd_core.learning.splits import Split
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from csfd_core.store.withdrawn import Withdrawal
from csfd_core.vocabulary import LEVEL_NAMES, OVERALL

pytestmark = pytest.mark.usefixtures("bright")
CONFIG = ClassifierConfig(epochs=1, initial=NONE)
NAME = "basic_cnn"


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return write_store(tmp_path_factory.mktemp("fit"))


@pytest.fixture(scope="module")
def manifest(stores: Stores) -> Manifest:
    return manifest_of(stores)


def plan(manifest: Manifest, fold: int = 0) -> ClassifierFit:
    return plan_classifier(NAME, fold, CONFIG, manifest)


@pytest.mark.parametrize("fold", range(5))
def test_neither_the_fold_nor_the_test_set_trains(
    manifest: Manifest, fold: int
) -> None:
    fit = plan(manifest, fold)
    assert {fold_of(uid) for uid in fit.training["study_uid"]} == set(range(5)) - {fold}
    assert not any(is_test(uid) for uid in fit.training["study_uid"])
    assert {fold_of(uid) for uid in fit.validation["study_uid"]} == {fold}
    assert not any(is_test(uid) for uid in fit.validation["study_uid"])
    assert all(is_test(uid) for uid in fit.test["study_uid"])
    parts = len(fit.training) + len(fit.validation) + len(fit.test)
    assert parts == len(manifest.usable)


def test_identity_follows_rows_settings_and_weights(
    manifest: Manifest, tmp_path: Path
) -> None:
    own = plan(manifest).inputs
    assert plan(manifest, 1).inputs != own
    assert plan_classifier("resnet50", 0, CONFIG, manifest).inputs != own
    for other in (replace(CONFIG, seed=1), replace(CONFIG, mined_share=0.1)):
        assert plan_classifier(NAME, 0, other, manifest).inputs != own
    for column, value in (("label", 1), ("content_hash", "new"), ("fold", 1)):
        table = manifest.table.copy()
        at = table.index[table["label"] == 0][0]
        table.loc[at, column] = value
        assert plan(replace(manifest, table=table)).inputs != own
    crop = {**manifest.crop, "pixel_mm": 0.1}
    assert plan(replace(manifest, crop=crop)).inputs != own
    backbone = plan_classifier("resnet50", 0, CONFIG, manifest).inputs
    file = tmp_path / "weights.h5"
    file.write_bytes(b"a")
    config = replace(CONFIG, weights=str(file))
    first = plan_classifier("resnet50", 0, config, manifest).inputs
    assert first != backbone
    file.write_bytes(b"b")
    assert plan_classifier("resnet50", 0, config, manifest).inputs != first
    other = replace(CONFIG, dropout=0.1)
    assert plan_classifier("resnet50", 0, other, manifest).inputs != backbone


def test_identity_is_what_it_was_for_the_same_inputs(tmp_path: Path) -> None:
    """Digests of the first release: another one would train everything again.

    Random weights of a backbone are drawn in another way since 0.3.
    """
    few = manifest_of(write_store(tmp_path, 12))
    assert plan(few).inputs == (
        "4c567a3a53ce448dd71a0b789d853c0f16ce2bc96fbd84b849d16726171f30f8"
    )
    assert plan_classifier("resnet50", 0, CONFIG, few).inputs == (
        "6baeacd13c2b7eb5392928ed4b3b46b3f8dd8b104ebf3548da0caea407e2a886"
    )


def test_identity_does_not_follow_what_a_model_does_not_see(
    manifest: Manifest,
) -> None:
    own = plan(manifest).inputs
    table = manifest.table.copy()
    table["confidence"] = 0.1
    table["visible_share"] = 0.99
    assert plan(replace(manifest, table=table, inputs="another")).inputs == own
    left_out = table.iloc[:7].assign(left_out="no label", label=None)
    more = pd.concat([table, left_out.astype(table.dtypes)], ignore_index=True)
    assert plan(replace(manifest, table=more)).inputs == own
    weights = replace(CONFIG, weights="imagenet", dropout=0.1)
    assert plan_classifier(NAME, 0, weights, manifest).inputs == own
    patches = replace(CONFIG, steps_per_epoch=7)
    backbones = [
        plan_classifier("resnet50", 0, config, manifest).inputs
        for config in (CONFIG, patches)
    ]
    assert backbones[0] == backbones[1]


def test_a_model_is_kept_with_what_it_was_made_from(
    stores: Stores, manifest: Manifest
) -> None:
    fit = plan(manifest)
    result = fit_classifier(stores, fit)
    text = stores.root.read("models/classification/basic_cnn/fold_0/card.json")
    assert ClassifierCard.from_json(text) == result.card
    card = json.loads(text)
    assert card["schema_version"] == 5
    assert card["stopped"] == "all_epochs"
    assert is_current(stores, fit)
    assert not is_current(stores, plan(manifest, 1))
    assert set(card["training_studies"]) == set(fit.training["study_uid"])
    assert set(card["validation_studies"]) == set(fit.validation["study_uid"])
    uid = fit.training["study_uid"].iloc[0]
    assert card["training_studies"][uid] == f"crops of {uid}"
    learnt = {*card["training_studies"], *card["validation_studies"]}
    assert set(card["label_digests"]) == learnt
    first = fit.training[fit.training["study_uid"] == uid].set_index("level")["label"]
    for level, character in zip(LEVEL_NAMES, card["label_digests"][uid], strict=True):
        assert character == str(first.get(level, "-"))
    assert card["inputs"] == fit.inputs
    assert card["manifest"] == manifest.inputs
    assert card["crop"] == CROPS.to_note()
    assert card["data_kind"] == "phantom"
    assert card["ms_per_study"] > 0
    assert result.card.config == CONFIG
    rows = fit.training
    fractured = int(rows["label"].sum())
    trained = open_trained(stores, NAME, 0)
    assert trained.get_weights()[0][0] == pytest.approx(fractured / 100, abs=1e-3)
    by_level = rows.groupby("level")["label"].agg(["sum", "size"])
    for level, (positives, count) in by_level.iterrows():
        expected = (positives + 1) / (count + 2)
        assert card["prevalence"][level] == pytest.approx(expected)


@pytest.mark.parametrize("split", [Split.TRAINING, Split.VALIDATION])
def test_a_training_that_learns_from_a_study_withdrawn_meanwhile_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: Split
) -> None:
    stores = write_store(tmp_path, 14)
    fit = plan(manifest_of(stores))
    uid = fit.rows(split)["study_uid"].iloc[0]
    trained = BrightClassifier.train

    def train(self: BrightClassifier, data: TrainingSet, on_epoch: OnEpoch) -> Trained:
        found = trained(self, data, on_epoch)
        stores.root.write(f"{data.checkpoint.path}", b"a state")
        stores.withdrawn.add(Withdrawal(study_uid=uid, reason="consent", by="tester"))
        return found

    monkeypatch.setattr(BrightClassifier, "train", train)
    with pytest.raises(
        StoreError, match="1 study was withdrawn while basic_cnn-fold_0"
    ):
        fit_classifier(stores, fit)
    assert stores.root.entries("checkpoints") == []
    assert ClassifierStore(stores.root).card(NAME, 0) is None


def test_predictions_have_a_row_for_each_held_out_study_and_level(
    stores: Stores, manifest: Manifest
) -> None:
    fit = plan(manifest)
    result = fit_classifier(stores, fit)
    rows = result.predictions
    for group, own in ((Split.VALIDATION, fit.validation), (Split.TEST, fit.test)):
        found = rows[rows["group"] == group]
        assert set(found["study_uid"]) == set(own["study_uid"])
        assert len(found) == own["study_uid"].nunique() * 8
        expected = own.set_index(["study_uid", "level"])["label"]
        levels = found[found["level"] != OVERALL].set_index(["study_uid", "level"])
        assert levels["label"].to_dict() == expected.to_dict()
        overall = found[found["level"] == OVERALL].set_index("study_uid")
        highest = own.groupby("study_uid")["label"].max().to_dict()
        assert overall["label"].to_dict() == highest
        assert overall["logit"].isna().all()
    assert rows["probability"].between(0, 1).all()
    scores = scores_of(result)
    assert scores["test_auc_vertebra"] == 1.0
    assert scores["validation_auc_overall"] > 0.9


def test_the_labels_of_the_test_set_change_no_calibration(
    stores: Stores, manifest: Manifest
) -> None:
    own = fit_classifier(stores, plan(manifest)).card
    table = manifest.table.copy()
    table.loc[table["is_test"], "label"] = 1 - table.loc[table["is_test"], "label"]
    swapped = fit_classifier(stores, plan(replace(manifest, table=table))).card
    for key in ("calibration", "thresholds", "prevalence"):
        assert getattr(swapped, key) == getattr(own, key)
    held_out = ~table["is_test"] & (table["fold"] == 0)
    table = manifest.table.copy()
    table.loc[held_out, "label"] = 1 - table.loc[held_out, "label"]
    other = fit_classifier(stores, plan(replace(manifest, table=table))).card
    assert other.calibration != own.calibration


def test_without_anything_to_stop_by_it_is_told(
    stores: Stores, manifest: Manifest
) -> None:
    table = manifest.table[manifest.table["is_test"] | (manifest.table["fold"] != 2)]
    with pytest.raises(StoreError, match="Fold 2 cannot be trained: .* 0 of its own"):
        fit_classifier(stores, plan(replace(manifest, table=table), 2))


@pytest.mark.parametrize(("label", "told"), [(0, "0 of"), (1, "[1-9][0-9]* of")])
def test_one_kind_of_vertebrae_is_told(
    stores: Stores, manifest: Manifest, label: int, told: str
) -> None:
    table = manifest.table.assign(label=pd.array([label] * len(manifest.table), "Int8"))
    with pytest.raises(StoreError, match=f"{told} .* fractured; both kinds are needed"):
        fit_classifier(stores, plan(replace(manifest, table=table)))


def test_a_store_without_test_studies_trains(
    stores: Stores, manifest: Manifest
) -> None:
    table = manifest.table[~manifest.table["is_test"]]
    result = fit_classifier(stores, plan(replace(manifest, table=table)))
    assert set(result.predictions["group"]) == {Split.VALIDATION}
    assert math.isnan(scores_of(result)["test_auc_vertebra"])


def test_a_level_that_no_training_study_shows_is_predicted(tmp_path: Path) -> None:
    stores = Stores(Location(tmp_path))
    labels = some_labels(40)
    write_studies(stores, labels)
    rng = np.random.default_rng(0)
    for uid, own in labels.items():
        trains = not is_test(uid) and fold_of(uid) != 0
        levels = LEVEL_NAMES[:6] if trains else LEVEL_NAMES
        write_crops(stores, uid, crop_rows(own, rng, levels))
    fit = plan(manifest_of(stores))
    assert "C7" not in set(fit.training["level"])
    result = fit_classifier(stores, fit)
    rows = result.predictions[result.predictions["level"] == "C7"]
    assert rows["probability"].notna().all()
    assert rows["logit"].notna().all()


def test_studies_without_crops_and_levels_without_labels_are_no_obstacle(
    tmp_path: Path,
) -> None:
    stores = Stores(Location(tmp_path))
    labels = some_labels(40)
    held_out = [uid for uid in labels if is_test(uid)]
    labels[held_out[0]] = [0, 0, None, 0, 0, 0, 0]
    labels[held_out[1]] = [1, None, 0, 0, 0, 0, 0]
    write_studies(stores, labels)
    rng = np.random.default_rng(0)
    absent = {uid_of(3), uid_of(8), held_out[2]}
    for uid, own in labels.items():
        if uid not in absent:
            write_crops(stores, uid, crop_rows(own, rng, LEVEL_NAMES[1:]))
    result = fit_classifier(stores, plan(manifest_of(stores)))
    rows = result.predictions.set_index(["study_uid", "level"])
    assert not absent & set(result.predictions["study_uid"])
    assert not absent & set(result.card.training_studies)
    # C1 was not found: its prevalence stands for it, its label counts all the same.
    first = rows.loc[(held_out[1], "C1")]
    assert first["label"] == 1
    assert math.isnan(first["logit"])
    assert first["probability"] == pytest.approx(result.card.prevalence["C1"])
    # One fracture makes a study fractured; one unknown level leaves it open.
    assert rows.loc[(held_out[1], OVERALL), "label"] == 1
    assert pd.isna(rows.loc[(held_out[0], OVERALL), "label"])
    assert math.isnan(rows.loc[(held_out[0], "C3"), "logit"])


def test_models_that_are_absent_or_of_other_weights_are_told(
    stores: Stores, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match="no basic_cnn of fold 4. Materialize"):
        open_trained(stores, NAME, 4)
    with pytest.raises(StoreError, match="no basic_cnn of fold 4. Materialize"):
        ClassifierStore(stores.root).result(NAME, 4)
    fit_classifier(stores, plan(manifest))
    monkeypatch.setattr(
        BrightClassifier, "start", lambda self: {"weights": "x", "digest": "other"}
    )
    open_trained(stores, NAME, 0)  # all of its weights are kept with it
    monkeypatch.setattr(BrightClassifier, "needs_start", True)
    with pytest.raises(StoreError, match="are not what they were"):
        open_trained(stores, NAME, 0)


def test_vectors_are_kept_in_full_and_kernels_in_half_precision(
    tmp_path: Path,
) -> None:
    store = ClassifierStore(Location(tmp_path))
    variances = np.array([3e-9, 1.0, 2e5], dtype=np.float32)  # half: 0, 1, infinite
    kernel = np.random.default_rng(0).normal(0, 1, (3, 4)).astype(np.float32)
    store.write(classifier_card(model=NAME), [variances, kernel], [])
    found = store.read_weights(NAME, 0)
    np.testing.assert_array_equal(found[0], variances)
    np.testing.assert_allclose(found[1], kernel, rtol=1e-3)
    assert found[1].dtype == np.float32


def test_settings_are_checked() -> None:
    assert settings_of("demo", epochs=3, weights="imagenet").epochs == 3
    assert settings_of("full").epochs == 60
    with pytest.raises(SettingsError, match="no profile 'big'. Use demo or full"):
        settings_of("big")
    with pytest.raises(SettingsError, match="`epochs` must be at least 1"):
        ClassifierConfig(epochs=0)
    with pytest.raises(SettingsError, match="must not be negative. Received: -1."):
        ClassifierConfig(patience=-1)
