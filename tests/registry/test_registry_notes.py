"""What the registry keeps in the store: records of the first csfd are read, too."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from csfd_core.data_kind import DataKind
from csfd_core.errors import StoreError
from csfd_core.registry.contest import read_decision
from csfd_core.registry.frozen import read_frozen
from csfd_core.registry.history import (
    Action,
    Alias,
    Change,
    ChangeKind,
    append_change,
    read_history,
)
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores

DECISION: dict[str, Any] = {
    "promoted": True,
    "verdict": "Version 2 takes over from version 1.",
    "challenger": "version 2",
    "champion": "version 1",
    "studies": 12,
    "subjects": 11,
    "conditions": [{"name": "loss", "is_met": True, "sentence": "It is lower."}],
    "scores": {"version 2": {"auc_vertebra": 0.9, "sensitivity_overall": None}},
    "config": {"least_subjects": 10, "seed": 0},
}
CHANGE: dict[str, Any] = {
    "id": "abc",
    "when": "2026-11-01T02:00:00+00:00",
    "who": "nightly",
    "why": "It is better.",
    "alias": "champion",
    "action": "promote",
    "kind": "decision",
    "from": 1,
    "to": 2,
    "model": "resnet50",
}
FROZEN: dict[str, Any] = {
    "digest": "0123456789abcdef",
    "model": "resnet50",
    "folds": [0, 1],
    "model_ids": ["a", "b"],
    "inputs": ["x", "y"],
    "manifests": ["m"],
    "data_kind": "real",
    "code_versions": ["1"],
    "files": {"resnet50/fold_0/card.json": "00"},
}


def write_json(folder: Path, path: str, note: object) -> None:
    Location(folder).write(path, json.dumps(note).encode())


def test_a_history_of_the_first_csfd_is_read(tmp_path: Path) -> None:
    by_hand = {**CHANGE, "id": "d", "kind": "by hand", "action": "rollback", "to": None}
    lines = [json.dumps({**CHANGE, "decision": DECISION}), json.dumps(by_hand)]
    Location(tmp_path).write("models/champion/history.jsonl", "\n".join(lines).encode())
    first, second = read_history(Location(tmp_path))
    assert (first.alias, first.action) == (Alias.CHAMPION, Action.PROMOTE)
    assert (first.before, first.after, first.by) == (1, 2, "nightly")
    assert (first.at, first.reason) == (CHANGE["when"], "It is better.")
    assert first.decision is not None
    assert first.decision.conditions[0].sentence == "It is lower."
    assert first.decision.scores["version 2"]["sensitivity_overall"] is None
    assert (second.kind, second.after) == (ChangeKind.BY_HAND, None)
    assert second.decision is None


def test_a_change_is_written_under_the_names_it_always_had(tmp_path: Path) -> None:
    root = Location(tmp_path)
    change = Change.read({**CHANGE, "decision": DECISION}, "x")
    append_change(root, change)
    append_change(root, change)
    (entry,) = root.entries("models/champion/history")
    written = json.loads(root.read(entry.path))
    assert {key: written[key] for key in CHANGE} == CHANGE
    assert written["schema_version"] == 1
    assert {key: written["decision"][key] for key in DECISION} == DECISION
    assert read_history(root) == [change]


def test_two_who_change_at_once_lose_nothing(tmp_path: Path) -> None:
    root = Location(tmp_path)
    changes = [Change.read({**CHANGE, "id": f"c{n}"}, "x") for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda change: append_change(root, change), changes))
    assert {change.id for change in read_history(root)} == {c.id for c in changes}


def test_the_last_decision_and_a_frozen_ensemble_of_the_first_csfd_are_read(
    tmp_path: Path,
) -> None:
    stores = Stores(Location(tmp_path))
    assert read_decision(stores) is None
    last = {
        "when": CHANGE["when"],
        "version": 2,
        "digest": FROZEN["digest"],
        "inputs": ["x", "y"],
        "decision": DECISION,
    }
    write_json(tmp_path, "models/champion/decision.json", last)
    found = read_decision(stores)
    assert found is not None
    assert (found.version, found.inputs) == (2, ("x", "y"))
    assert found.decision.promoted
    folder = f"models/champion/{FROZEN['digest']}"
    write_json(tmp_path, f"{folder}/ensemble.json", FROZEN)
    frozen = read_frozen(stores, FROZEN["digest"])
    assert (frozen.folds, frozen.data_kind) == ((0, 1), DataKind.REAL)
    assert frozen.folder == folder


def test_a_change_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(StoreError, match=r"history cannot be used: kind: Input should"):
        Change.read({**CHANGE, "kind": "a whim"}, "history")
