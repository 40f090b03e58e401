"""The general classifiers: what they say, what they know, and what starts from them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.cards import kept_file
from support.drawn_crops import CROPS, manifest_of, write_store

from csfd_core.classification.card import ClassifierCard
from csfd_core.classification.classifier import CropShape
from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.classification.classifiers import open_classifier
from csfd_core.classification.config import GENERAL, NONE, ClassifierConfig
from csfd_core.classification.ensemble import write_best
from csfd_core.classification.fit import fit_classifier, plan_classifier
from csfd_core.classification.general import (
    general_card,
    general_location,
    general_store,
    read_initial,
    with_general,
)
from csfd_core.crops.cutting import CROP_PROFILES
from csfd_core.data_kind import DataKind
from csfd_core.errors import SettingsError, StoreError
from csfd_core.learning.splits import leaks_of, learnt_from
from csfd_core.phantom.config import VERSIONS, PhantomConfig
from csfd_core.phantom.study import study_uid_of
from csfd_core.registry import serving
from csfd_core.registry.profile import require_profile
from csfd_core.registry.serving import (
    open_ensemble,
    open_serving,
    serving_version,
    stand_in,
)
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES

NETWORKS = ("basic_cnn", "triplanar_cnn")
SMALL = ClassifierConfig(
    epochs=1,
    refine_epochs=1,
    steps_per_epoch=2,
    refine_steps=2,
    batch_size=8,
    patch_px=16,
    filters=(4, 4, 4),
)


def card_of(name: str) -> ClassifierCard:
    card = general_card(name)
    assert card is not None
    return card


@pytest.mark.parametrize("name", NETWORKS)
def test_it_has_learnt_from_phantoms_alone_and_says_which(name: str) -> None:
    card = card_of(name)
    assert card.data_kind is DataKind.PHANTOM
    assert len(card.training_studies) >= 400
    assert card.crop == CROP_PROFILES["demo"].to_note()
    assert card.disk_bytes is not None
    assert card.disk_bytes < 5e6
    assert not set(card.training_studies) & set(card.validation_studies)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_phantom_of_a_data_set_is_among_what_it_has_learnt(name: str) -> None:
    """Of seeds that are used by default, by the demo, the simulation and the tests."""
    learnt = learnt_from([card_of(name)])
    kinds = [*((version, False) for version in VERSIONS), (VERSIONS[-1], True)]
    for seed in (*range(100), 555, 90_001, 90_002, 91_000, 91_001):
        for version, foreign in kinds:
            config = PhantomConfig(
                studies=1, seed=seed, version=version, foreign=foreign
            )
            assert not learnt & {study_uid_of(config, index) for index in range(900)}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_store_whose_studies_it_has_learnt_is_a_leak(
    tmp_path: Path, name: str
) -> None:
    """Planted: the general card names a study of the store's locked test set."""
    stores = write_store(tmp_path, 40)
    studies = stores.metadata.read_studies()
    started = card_of(name).model_copy(
        update={
            "start": {"weights": GENERAL, "digest": "x"},
            "fold": 2,
            "training_studies": {},
            "validation_studies": {},
        }
    )
    assert not leaks_of(with_general([started]), studies)
    own, general = with_general([started])
    assert (own, general.fold) == (started, 2)
    planted = dict.fromkeys(studies["study_uid"], "hash")
    general = general.model_copy(update={"training_studies": planted})
    leaks = leaks_of([own, general], studies)
    assert leaks.locked
    assert leaks.held_out


def test_a_model_that_starts_from_nothing_has_learnt_nothing_more() -> None:
    card = card_of("basic_cnn")
    assert card.started_from == NONE
    assert with_general([card]) == [card]


def test_it_answers_to_its_name_and_where_nothing_was_trained(tmp_path: Path) -> None:
    stores = Stores(Location(tmp_path / "nothing"))
    named = open_ensemble(stores, GENERAL)
    assert (named.name, named.notice, named.data_kind) == (GENERAL, "", "phantom")
    default = open_ensemble(stores, "champion")
    assert default.model_ids == named.model_ids
    assert "No classifier was trained here yet" in default.notice
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(SettingsError, match="It has: none. .* or use general"):
        open_ensemble(stores, "basic_cnn")
    found = named.predict({})
    assert set(LEVEL_NAMES) <= set(found)


def test_the_best_speaks_only_where_it_knows_more_than_the_prevalences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = Stores(Location(tmp_path))
    assert stand_in(stores) is None
    require_profile(stores, "demo")
    write_best(stores, "resnet50", beats_prevalences=False)
    assert stand_in(stores) is None
    told = "No classifier that was trained on these studies beats the prevalences yet"
    for found in (open_ensemble(stores, "champion"), open_serving(stores)):
        assert (found.name, found.notice.split(",")[0]) == (GENERAL, told)
    before = serving_version(stores)
    write_best(stores, "resnet50", beats_prevalences=True)
    assert stand_in(stores) == "resnet50"
    assert serving_version(stores) != before
    with pytest.raises(SettingsError, match="no trained classifier 'best'"):
        open_serving(stores)

    # Crops that the general classifier does not take: it cannot speak instead.
    write_best(stores, "resnet50", beats_prevalences=False)
    monkeypatch.setitem(CROP_PROFILES, "demo", CROP_PROFILES["full"])
    assert stand_in(stores) == "resnet50"


def test_a_best_that_an_older_csfd_noted_is_trusted(tmp_path: Path) -> None:
    stores = Stores(Location(tmp_path))
    require_profile(stores, "demo")
    stores.root.write("models/classification/best.json", b'{"model": "basic_cnn"}')
    assert stand_in(stores) == "basic_cnn"


def test_weights_to_start_from_are_named_by_their_file(tmp_path: Path) -> None:
    file = general_location().join("builtin/basic_cnn/fold_0")
    (tmp_path / "own.npz").write_bytes(file.read("weights.npz"))
    own = read_initial("basic_cnn", str(tmp_path / "own.npz"))
    assert own.told == "file own.npz"
    assert own.digest == read_initial("basic_cnn", GENERAL).digest
    assert read_initial("basic_cnn", NONE).weights == []
    (tmp_path / "cut.npz").write_bytes(file.read("weights.npz")[:2000])
    with pytest.raises(SettingsError, match="holds no weights of a classifier"):
        read_initial("basic_cnn", str(tmp_path / "cut.npz"))
    with pytest.raises(SettingsError, match="There is no file .*absent.npz"):
        read_initial("basic_cnn", str(tmp_path / "absent.npz"))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_another_size_cannot_start_from_it(
    tmp_path: Path, name: str
) -> None:
    stores = write_store(tmp_path, 14)
    fit = plan_classifier(name, 0, SMALL, manifest_of(stores))
    with pytest.raises(SettingsError, match=r"\(general\) do not fit.*start from none"):
        fit_classifier(stores, fit)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_that_makes_it_no_better_keeps_it(tmp_path: Path, name: str) -> None:
    """Planted: weights to start from that know the drawn fractures; a ruinous rate."""
    stores = write_store(tmp_path / "store", 30)
    manifest = manifest_of(stores)
    able = replace(
        SMALL, initial=NONE, epochs=2, steps_per_epoch=15, batch_size=32,
        filters=(8, 16, 16),
    )  # fmt: skip
    first = fit_classifier(stores, plan_classifier(name, 0, able, manifest))
    own = Location(tmp_path / "store").join(f"models/classification/{name}/fold_0")
    (tmp_path / "own.npz").write_bytes(own.read(kept_file(own, "weights.npz")))
    ruin = replace(
        able, initial=str(tmp_path / "own.npz"), refine_rate=1.0, refine_steps=3
    )
    second = fit_classifier(stores, plan_classifier(name, 0, ruin, manifest))
    assert second.card.best_epoch == 0
    assert second.card.started_from == "file own.npz"
    assert second.card.before["val_loss"] == pytest.approx(
        first.card.history[first.card.best_epoch - 1]["val_loss"], abs=0.02
    )
    np.testing.assert_allclose(
        second.predictions["logit"], first.predictions["logit"], atol=0.1
    )


def test_weights_of_another_version_than_their_card_are_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: the weights of another training, of the very same shapes."""
    own = ClassifierStore(Location(tmp_path), "builtin")
    there, here = general_store(), own.of_fold("basic_cnn", 0)
    weights = there.read_weights("basic_cnn", 0)
    result = there.result("basic_cnn", 0)
    own.write(result.card, weights, result.predictions.to_dict("records"))
    monkeypatch.setattr(serving, "general_location", lambda: Location(tmp_path))
    assert open_ensemble(Stores(Location(tmp_path)), GENERAL).members
    card, name = here.read("card.json"), kept_file(here, "weights.npz")
    other = [weights[0] + 1, *weights[1:]]
    own.write(result.card, other, result.predictions.to_dict("records"))
    here.write(name, here.read(kept_file(here, "weights.npz")))
    here.write("card.json", card)
    with pytest.raises(StoreError, match="basic_cnn are of another version than"):
        open_ensemble(Stores(Location(tmp_path)), GENERAL)


def test_a_general_card_of_a_newer_csfd_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Location(tmp_path).join("builtin/basic_cnn/fold_0")
    card = json.loads(general_card_text())
    folder.write("card.json", json.dumps(card | {"schema_version": 99}).encode())
    monkeypatch.setattr(serving, "general_location", lambda: Location(tmp_path))
    with pytest.raises(StoreError, match="has the schema version 99; this csfd reads"):
        open_ensemble(Stores(Location(tmp_path)), GENERAL)


def general_card_text() -> bytes:
    return general_store().of_fold("basic_cnn", 0).read("card.json")


@pytest.mark.parametrize("name", NETWORKS)
def test_every_general_classifier_knows_what_it_has_learnt_from(name: str) -> None:
    reference = card_of(name).reference
    assert reference is not None
    assert reference.training >= 60
    assert reference.held_out >= 60
    assert 1 < reference.limit < 5


@pytest.mark.parametrize("name", NETWORKS)
def test_its_weights_fit_the_networks_of_the_demo(name: str) -> None:
    shape = CropShape.of(CROPS.to_note())
    network = open_classifier(name, ClassifierConfig(), shape, Location("memory://x"))
    network.set_weights(read_initial(name, GENERAL).weights)
    assert network.start()["weights"] == GENERAL
