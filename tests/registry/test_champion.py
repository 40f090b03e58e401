"""Versions, aliases, the record of changes, and what a crash leaves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.cards import kept_file
from support.challenges import (
    LABELS,
    challenge,
    kept_predictions,
    number_of,
    train,
    train_and_challenge,
)
from support.contenders import make_labels, write_classifier, write_store_manifest

from csfd_core.errors import SettingsError, StoreError
from csfd_core.registry import contest as contest_module
from csfd_core.registry.appointment import promote_by_hand, roll_back, standing_of
from csfd_core.registry.champion import ChampionRegistry
from csfd_core.registry.contest import is_settled, read_decision
from csfd_core.registry.frozen import damages, freeze, read_frozen
from csfd_core.registry.history import Alias, ChangeKind, read_history
from csfd_core.store.locations import Location
from csfd_core.store.paths import CLASSIFIERS as NEWEST
from csfd_core.store.stores import Stores


def test_champion_stays_while_training_writes_anew(
    registry: ChampionRegistry, stores: Stores
) -> None:
    first = train_and_challenge(registry, 1.5)
    assert first.decision.promoted
    frozen = read_frozen(stores, first.challenger.digest)
    place, newest = (
        stores.root.join(f"{folder}/basic_cnn/fold_0")
        for folder in (frozen.folder, NEWEST)
    )
    before = place.read(kept_file(place, "weights.npz"))
    train(stores, 0.1)
    assert newest.read(kept_file(newest, "weights.npz")) != before
    assert place.read(kept_file(place, "weights.npz")) == before
    assert damages(stores, frozen.digest) == []
    assert frozen.results(stores)[0].card.model_id.endswith("1.5-15")


def test_better_takes_over_and_worse_does_not(registry: ChampionRegistry) -> None:
    train_and_challenge(registry, 1.5)
    worse = train_and_challenge(registry, 0.3)
    assert not worse.decision.promoted
    assert (
        number_of(registry, Alias.CHAMPION),
        number_of(registry, Alias.CHALLENGER),
    ) == (1, 2)
    better = train_and_challenge(registry, 3.0)
    assert better.decision.promoted, better.decision.reasons
    assert better.champion is not None
    assert better.champion.number == 3
    assert (
        number_of(registry, Alias.CHAMPION),
        number_of(registry, Alias.CHALLENGER),
    ) == (3, 3)


def test_every_change_is_recorded_in_store_and_mlflow(
    registry: ChampionRegistry, stores: Stores
) -> None:
    train_and_challenge(registry, 1.5)
    train_and_challenge(registry, 3.0)
    folder = Path(str(stores.root)) / "models/champion/history"
    told = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    assert [(c["alias"], c["from"], c["to"], c["kind"]) for c in told] == [
        (Alias.CHALLENGER, None, 1, ChangeKind.DECISION),
        (Alias.CHAMPION, None, 1, ChangeKind.DECISION),
        (Alias.CHALLENGER, 1, 2, ChangeKind.DECISION),
        (Alias.CHAMPION, 1, 2, ChangeKind.DECISION),
    ]
    assert all(c["who"] == "a test" and c["when"] and c["why"] for c in told)
    assert "takes over from version 1" in told[3]["why"]
    assert all(c["is_met"] for c in told[3]["decision"]["conditions"])
    version = registry.version(2)
    assert json.loads(version.tags["csfd.change.champion"])["id"] == told[3]["id"]
    assert json.loads(version.tags["csfd.decision"])["promoted"] is True
    last = read_decision(stores)
    assert last is not None
    assert last.version == 2


def test_tags_say_what_it_is_and_nothing_of_a_patient(
    registry: ChampionRegistry,
) -> None:
    found = train_and_challenge(registry, 1.5).challenger
    tags = registry.version(found.number).tags
    assert tags["csfd.model_ids"] == "basic_cnn-fold0-1.5-15"
    assert tags["csfd.manifest"] == "manifest60"
    assert tags["csfd.data_kind"] == "phantom"
    assert tags["csfd.code_version"] == "1"
    text = json.dumps(tags)
    assert not any(f'"{uid}"' in text for uid in ("1.2.1", "9.9.1", "9.9.2", "p1"))
    assert "1.2." not in text


def test_same_files_are_one_version(registry: ChampionRegistry, stores: Stores) -> None:
    train_and_challenge(registry, 1.5)
    again = challenge(registry)
    assert again.challenger.number == 1
    assert again.decision.reasons == ["Version 1 (basic_cnn) is the champion already."]
    assert len(registry.versions()) == 1
    assert len(read_history(stores.root)) == 2
    assert json.loads(registry.version(1).tags["csfd.decision"])["promoted"] is True
    assert is_settled(stores, "basic_cnn")
    train(stores, 2.0)
    assert not is_settled(stores, "basic_cnn")


def test_champion_is_judged_on_todays_labels(
    registry: ChampionRegistry, stores: Stores
) -> None:
    """A corrected label counts for both, also where the champion was trained before."""
    train_and_challenge(registry, 1.5)
    corrected = LABELS.copy()
    corrected[:5, 2] = 1 - corrected[:5, 2]
    write_store_manifest(stores, corrected)
    write_classifier(stores, corrected, 3.0, seed=4)
    found = challenge(registry)
    assert found.decision.studies == len(LABELS)


def test_studies_that_were_cut_anew_are_predicted_anew(
    registry: ChampionRegistry, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_and_challenge(registry, 1.5)
    more = np.concatenate([LABELS, make_labels(4, seed=1)])
    write_store_manifest(stores, more, {"1.2.7": "cut anew"})
    facts = {f"1.2.{i + 1}": "c" for i in range(len(more))} | {"1.2.7": "cut anew"}
    write_classifier(stores, more, 3.0, seed=4, test_studies=facts)
    asked: dict[int, list[str]] = {}

    def predict(_: object, version: Any, rows: Any, studies: list[str]) -> Any:
        asked[version.number] = studies
        own = rows[rows["study_uid"].isin(studies)]
        table = own[["study_uid", "level", "patient"]].assign(probability=0.1)
        overall = table.drop_duplicates("study_uid").assign(level="patient_overall")
        return pd.concat([table, overall])

    monkeypatch.setattr(contest_module, "_predict_anew", predict)
    found = challenge(registry)
    asked.pop(2, None)  # which is asked whether it reproduces what was scored
    assert asked == {1: ["1.2.61", "1.2.62", "1.2.63", "1.2.64", "1.2.7"]}
    assert found.decision.studies == 64


def test_studies_cut_otherwise_count_for_neither(
    registry: ChampionRegistry, stores: Stores
) -> None:
    train(stores, 1.5, crop={"slices": 5, "neighbours": 1, "side_px": 64})
    challenge(registry)
    write_store_manifest(stores, LABELS, {"1.2.7": "cut anew"})
    facts = {f"1.2.{i + 1}": "c" for i in range(len(LABELS))} | {"1.2.7": "cut anew"}
    train(stores, 3.0, test_studies=facts)
    assert challenge(registry).decision.studies == len(LABELS) - 1


def test_challenger_that_says_something_else_than_was_scored_is_refused(
    registry: ChampionRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(*given: Any) -> pd.DataFrame:
        found = kept_predictions(*given)
        return found.assign(probability=found["probability"] * 0.9)

    train_and_challenge(registry, 1.5)
    monkeypatch.setattr(contest_module, "_predict_anew", other)
    found = train_and_challenge(registry, 3.0)
    assert not found.decision.promoted
    assert "Opened from its frozen files" in found.decision.reasons[0]


def test_challenger_that_cannot_be_opened_is_refused(
    registry: ChampionRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the builder's classifiers start from weights of no network
    found = train_and_challenge(registry, 3.0)
    assert "The frozen challenger cannot speak" in found.decision.reasons[0]
    assert number_of(registry, Alias.CHAMPION) is None


def test_model_trained_on_a_test_study_is_refused(
    registry: ChampionRegistry, stores: Stores
) -> None:
    train(stores, 3.0, training_studies={"1.2.5": "a"})
    found = challenge(registry)
    assert not found.decision.promoted
    assert "on 1 study of the locked test set" in " ".join(found.decision.reasons)
    assert number_of(registry, Alias.CHAMPION) is None


def test_damaged_file_is_found_and_not_served(
    registry: ChampionRegistry, stores: Stores
) -> None:
    found = train_and_challenge(registry, 1.5)
    assert standing_of(registry)[1] == []
    folder = f"models/champion/{found.challenger.digest}/basic_cnn/fold_0"
    path = f"{folder}/{kept_file(stores.root.join(folder), 'weights.npz')}"
    stores.root.write(path, stores.root.read(path)[:-1])
    assert standing_of(registry)[1] == [f"{path} is not what was frozen."]
    train(stores, 3.0)
    refused = challenge(registry)
    assert "cannot be compared with" in refused.decision.reasons[0]
    assert number_of(registry, Alias.CHAMPION) == 1
    stores.root.remove(path)
    assert standing_of(registry)[1] == [f"{path} is missing or cannot be read."]


def test_copy_that_was_damaged_is_mended_by_freezing_again(stores: Stores) -> None:
    train(stores, 1.5)
    frozen = freeze(stores, "basic_cnn")
    path = f"{frozen.folder}/basic_cnn/fold_0/card.json"
    stores.root.write(path, b"{}")
    assert freeze(stores, "basic_cnn") == frozen
    assert damages(stores, frozen.digest) == []


def test_fold_that_a_killed_training_left_is_not_frozen(stores: Stores) -> None:
    train(stores, 1.5)
    place = stores.root.join(f"{NEWEST}/basic_cnn/fold_0")
    place.write(kept_file(place, "weights.npz"), b"newer")
    with pytest.raises(StoreError, match="do not belong together"):
        freeze(stores, "basic_cnn")


def test_promotion_and_rollback_by_hand(registry: ChampionRegistry) -> None:
    train_and_challenge(registry, 1.5)
    train_and_challenge(registry, 0.3)
    promote_by_hand(registry, 2, by="Dr. A", reason="It reads C7.")
    assert number_of(registry, Alias.CHAMPION) == 2
    assert standing_of(registry)[1] == []
    done = roll_back(registry, by="Dr. B", reason="It does not.")
    assert (done.before, done.after, done.kind) == (2, 1, ChangeKind.BY_HAND)
    assert number_of(registry, Alias.CHAMPION) == 1
    with pytest.raises(SettingsError, match="no champion before"):
        roll_back(registry, by="Dr. B", reason="Once more.")


def test_rollbacks_go_back_step_by_step(registry: ChampionRegistry) -> None:
    for skill in (1.5, 3.0, 0.3):
        train_and_challenge(registry, skill)
    promote_by_hand(registry, 3, by="x", reason="y")
    assert number_of(registry, Alias.CHAMPION) == 3
    for expected in (2, 1):
        roll_back(registry, by="x", reason="y")
        assert number_of(registry, Alias.CHAMPION) == expected


def test_title_that_a_person_took_back_is_not_given_again(
    registry: ChampionRegistry,
) -> None:
    train_and_challenge(registry, 1.5)
    train_and_challenge(registry, 3.0)
    roll_back(registry, by="Dr. B", reason="Misses C7.")
    again = challenge(registry)
    assert not again.decision.promoted
    assert "Dr. B took the title back" in again.decision.reasons[0]
    assert "(Misses C7)" in again.decision.reasons[0]
    promote_by_hand(registry, 2, by="Dr. B", reason="I was wrong.")
    assert number_of(registry, Alias.CHAMPION) == 2


@pytest.mark.parametrize(
    ("number", "reason", "message"),
    [
        (9, "why not", "There is no version 9"),
        (1, "why not", r"Version 1 \(basic_cnn\) is the champion already"),
        (2, " ", "needs a reason"),
    ],
)
def test_promotion_that_cannot_be_meant_is_told(
    registry: ChampionRegistry, number: int, reason: str, message: str
) -> None:
    train_and_challenge(registry, 1.5)
    train_and_challenge(registry, 0.3)
    with pytest.raises(SettingsError, match=message):
        promote_by_hand(registry, number, by="x", reason=reason)


def test_alias_moved_outside_is_noticed_and_may_not_serve(
    registry: ChampionRegistry, uri: str
) -> None:
    train_and_challenge(registry, 1.5)
    train_and_challenge(registry, 0.3)
    client = registry._client
    name = registry._require_registered()
    client.set_registered_model_alias(name, Alias.CHAMPION, "2")
    assert registry.history()[-1].kind == ChangeKind.OUTSIDE
    version, problems = standing_of(registry)
    assert version is not None
    assert "by other means than csfd" in problems[0]
    promote_by_hand(registry, 2, by="x", reason="It was me.")
    assert standing_of(registry)[1] == []
    kinds = [c.kind for c in registry.history() if c.alias == Alias.CHAMPION]
    assert kinds == [ChangeKind.DECISION, ChangeKind.OUTSIDE, ChangeKind.BY_HAND]


def test_champion_that_mlflow_lost_is_told(
    registry: ChampionRegistry,
    stores: Stores,
    tmp_path: Path,
    start_mlflow: Callable[[Path], str],
) -> None:
    train_and_challenge(registry, 1.5)
    other = ChampionRegistry(stores, start_mlflow(tmp_path))
    with pytest.raises(SettingsError, match="MLflow has no champion, but version 1"):
        other.champion()
    assert "Check MLFLOW_TRACKING_URI" in standing_of(other)[1][0]
    with pytest.raises(SettingsError, match="MLflow has no champion"):
        challenge(other)
    assert len(read_history(stores.root)) == 2
    for entry in stores.root.find("models/champion/history")[0]:
        stores.root.remove(entry.path)  # it is lost for good
    assert challenge(other).decision.promoted


def test_stores_do_not_share_a_champion(
    registry: ChampionRegistry, uri: str, tmp_path: Path
) -> None:
    train_and_challenge(registry, 1.5)
    second = Stores(Location(tmp_path / "second"))
    write_store_manifest(second, LABELS)
    other = ChampionRegistry(second, uri)
    assert other.champion() is None
    found = train_and_challenge(other, 3.0)
    assert found.challenger.number == 1
    assert number_of(registry, Alias.CHAMPION) == 1
    assert registry.champion() != other.champion()
