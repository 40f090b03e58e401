"""The champion as an asset: what it shows, and what its check holds back."""

from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from support.cards import kept_file
from support.contenders import make_labels, write_classifier, write_store_manifest

from csfd_core.classification.card import ClassifierCard
from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.classification.ensemble import write_best
from csfd_core.errors import SettingsError, StoreError
from csfd_core.evaluation.folds import is_test
from csfd_core.registry import contest
from csfd_core.registry.appointment import promote_by_hand
from csfd_core.registry.champion import ChampionRegistry
from csfd_core.registry.frozen import read_frozen
from csfd_core.registry.serving import open_ensemble
from csfd_core.store.locations import Location
from csfd_core.store.metadata import STUDIES_COLUMNS
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LABEL_COLUMNS
from csfd_dagster.definitions import build_defs
from csfd_dagster.resources.mlflow import MlflowResource
from csfd_dagster.resources.stores import StoreResource

LABELS = make_labels(60)
LOCKED = next(uid for uid in (f"3.2.{i}" for i in range(1, 99)) if is_test(uid))
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    """A store whose table of studies knows one study of the locked test set."""
    found = Stores(Location(tmp_path / "store"))
    write_store_manifest(found, LABELS)
    write_studies(found, LOCKED)
    return found


def write_studies(stores: Stores, study_uid: str) -> None:
    row = {
        **dict.fromkeys([name for name, _, _ in STUDIES_COLUMNS]),
        **dict.fromkeys(LABEL_COLUMNS, 0),
        "study_uid": study_uid,
        "status": "good",
        "warning_codes": [],
    }
    stores.metadata.write_studies(pd.DataFrame([row]), study_uid, "phantom")


@pytest.fixture(autouse=True)
def networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network is behind these classifiers; the frozen tables speak for them."""

    def kept(registry: Any, version: Any, rows: Any, studies: list[str]) -> Any:
        frozen = read_frozen(registry.stores, version.digest)
        table = frozen.results(registry.stores)[0].predictions
        return table[table["study_uid"].isin(studies)]

    monkeypatch.setattr(contest, "_predict_anew", kept)


def train(stores: Stores, skill: float, **facts: Any) -> None:
    write_classifier(stores, LABELS, skill, seed=int(skill * 10), **facts)
    write_best(stores, "basic_cnn", beats_prevalences=True)


def materialize(stores: Stores, uri: str) -> dg.ExecuteInProcessResult:
    defs = build_defs(
        {
            "store": StoreResource(store_url=str(stores.root)),
            "mlflow": MlflowResource(tracking_uri=uri),
        }
    )
    with dg.DagsterInstance.ephemeral() as instance:
        return defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey("champion_model")],
            raise_on_error=False,
            run_config=QUIET,
        )


def shown(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.get_asset_materialization_events()
    return {k: v.value for k, v in event.materialization.metadata.items()}


def test_first_model_becomes_champion_and_says_why(stores: Stores, uri: str) -> None:
    train(stores, 1.5)
    result = materialize(stores, uri)
    assert result.success
    facts = shown(result)
    assert facts["decision"] == "Version 1 (basic_cnn) becomes the first champion."
    assert "compared with the prevalences" in facts["reasons"]
    assert facts["champion"] == facts["challenger"] == "version 1 (basic_cnn)"
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == ("champion_may_serve", True)


def test_degraded_labels_do_not_take_over(stores: Stores, uri: str) -> None:
    """A week of wrong labels: the model is trained well, on what is not true."""
    train(stores, 2.0)
    first = materialize(stores, uri)
    wrong = np.random.default_rng(1).permutation(LABELS)
    write_classifier(stores, wrong, 4.0, seed=9)
    second = materialize(stores, uri)
    facts = shown(second)
    assert second.success
    assert facts["promoted"] is False
    assert facts["decision"] == "Version 1 (basic_cnn) stays champion."
    assert "competition log loss" in facts["reasons"]
    names = [record.data["model"] for record in facts["scores"].records]
    assert names == ["version 1 (basic_cnn)", "version 2 (basic_cnn)"]
    versions = [
        event.materialization.tags["dagster/data_version"]
        for result in (first, second)
        for event in result.get_asset_materialization_events()
    ]
    assert versions[0] == versions[1]  # what follows is not made anew


def test_planted_test_study_is_refused(stores: Stores, uri: str) -> None:
    """Also one that no model predicts, as its vertebrae were not found."""
    train(stores, 2.0)
    materialize(stores, uri)
    train(stores, 4.0, training_studies={"9.9.1": "a", LOCKED: "b"})
    facts = shown(materialize(stores, uri))
    assert facts["champion"] == "version 1 (basic_cnn)"
    assert f"1 study of the locked test set, first {LOCKED}" in facts["reasons"]


def test_champion_that_saw_a_test_study_is_held_back(stores: Stores, uri: str) -> None:
    write_studies(stores, "3.3.3")
    train(stores, 2.0, training_studies={"9.9.1": "a", LOCKED: "b"})
    assert materialize(stores, uri).success  # nobody knows yet whose study it is
    write_studies(stores, LOCKED)
    result = materialize(stores, uri)
    assert not result.success
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    assert "1 study of the locked test set" in str(check.metadata["problems"].value)


def test_damaged_champion_is_held_back(stores: Stores, uri: str) -> None:
    train(stores, 2.0)
    materialize(stores, uri)
    champion = ChampionRegistry(stores, uri).champion()
    assert champion is not None
    place = stores.root.join(f"models/champion/{champion.digest}/basic_cnn/fold_0")
    place.write(kept_file(place, "predictions.parquet"), b"other")
    train(stores, 4.0)
    assert not materialize(stores, uri).success


@pytest.mark.slow
def test_ensemble_of_the_alias_is_the_frozen_one(
    stores: Stores, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, int, str]] = []

    def note(_: Stores, name: str, fold: int, folder: str, card: ClassifierCard) -> str:
        opened.append((name, fold, folder))
        return "a network"

    monkeypatch.setattr("csfd_core.registry.serving.open_trained", note)
    train(stores, 1.5)
    before = open_ensemble(stores, "champion", uri)
    assert "There is no champion yet" in before.notice
    assert opened[-1][2] == "models/classification"
    materialize(stores, uri)
    train(stores, 0.3)
    materialize(stores, uri)
    registry = ChampionRegistry(stores, uri)
    for alias, number in (("champion", 1), ("challenger", 2), ("v2", 2), ("v1", 1)):
        found = open_ensemble(stores, alias, uri)
        assert (found.version, found.notice) == (number, ""), alias
        assert opened[-1][2] == f"models/champion/{registry.version(number).digest}"
        kept = ClassifierStore(stores.root, opened[-1][2]).card("basic_cnn", 0)
        assert found.model_ids == [kept and kept.model_id]
    with pytest.raises(SettingsError, match="There is no version 7"):
        open_ensemble(stores, "v7", uri)
    place = stores.root.join(f"{opened[-1][2]}/basic_cnn/fold_0")
    place.write(kept_file(place, "weights.npz"), b"")
    with pytest.raises(StoreError, match="are damaged"):
        open_ensemble(stores, "champion", uri)


def test_model_that_saw_the_test_set_cannot_be_promoted_by_hand(
    stores: Stores, uri: str
) -> None:
    train(stores, 1.5)
    materialize(stores, uri)
    train(stores, 4.0, training_studies={LOCKED: "b"})
    materialize(stores, uri)
    registry = ChampionRegistry(stores, uri)
    with pytest.raises(SettingsError, match="It must not serve"):
        promote_by_hand(registry, 2, by="x", reason="It is so good.")
