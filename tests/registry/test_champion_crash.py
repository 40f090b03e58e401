"""A crash at any step leaves the champion, and the next call recovers."""

import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from support.challenges import challenge, number_of, train, train_and_challenge

from csfd_core.registry import champion as registry_module
from csfd_core.registry import contest as contest_module
from csfd_core.registry.appointment import standing_of
from csfd_core.registry.champion import ChampionRegistry
from csfd_core.registry.history import Alias, ChangeKind, read_history
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores


def claims_of(stores: Stores) -> list[str]:
    return [e.name for e in stores.root.entries("models/champion/history/claims")]


class Killed(BaseException):
    """Stands for SIGKILL: no handler runs."""


def steps() -> list[tuple[str, Callable[[pytest.MonkeyPatch], None]]]:
    """Every write between a trained challenger and its title."""

    def stop_at(owner: Any, name: str, call: int) -> Callable[..., None]:
        def plant(patch: pytest.MonkeyPatch) -> None:
            calls = {"left": call}
            own = getattr(owner, name)

            def killed(*args: Any, **named: Any) -> Any:
                if calls["left"] == 0:
                    raise Killed
                calls["left"] -= 1
                return own(*args, **named)

            patch.setattr(owner, name, killed)

        return plant

    from mlflow import MlflowClient

    return [
        ("freeze, first file", stop_at(Location, "write", 0)),
        ("freeze, second file", stop_at(Location, "write", 1)),
        ("freeze, note", stop_at(Location, "write", 3)),
        ("register", stop_at(MlflowClient, "create_model_version", 0)),
        ("challenger's tag", stop_at(MlflowClient, "set_model_version_tag", 0)),
        ("challenger", stop_at(MlflowClient, "set_registered_model_alias", 0)),
        ("challenger's record", stop_at(registry_module, "append_change", 0)),
        ("decision", stop_at(contest_module, "decide", 0)),
        ("decision's tag", stop_at(MlflowClient, "set_model_version_tag", 1)),
        ("champion's claim", stop_at(registry_module, "make_claim", 1)),
        ("champion's tag", stop_at(MlflowClient, "set_model_version_tag", 2)),
        ("champion", stop_at(MlflowClient, "set_registered_model_alias", 1)),
    ]


@pytest.mark.parametrize("plant", [s[1] for s in steps()], ids=[s[0] for s in steps()])
def test_crash_leaves_the_champion_and_the_next_call_recovers(
    registry: ChampionRegistry,
    stores: Stores,
    uri: str,
    plant: Callable[[pytest.MonkeyPatch], None],
) -> None:
    train_and_challenge(registry, 1.5)
    train(stores, 3.0)
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        with pytest.raises(Killed):
            challenge(registry)
    afterwards = ChampionRegistry(stores, uri)
    assert number_of(afterwards, Alias.CHAMPION) == 1
    assert standing_of(afterwards)[1] == []
    is_claimed = len(claims_of(stores)) == 4
    found = challenge(afterwards)
    assert found.champion is not None
    assert found.champion.number == 2
    assert found.decision.promoted != is_claimed  # it was decided, and is carried out
    assert len(claims_of(stores)) == 4
    assert [v.number for v in afterwards.versions()] == [1, 2]
    own = [(c.alias, c.before, c.after, c.kind) for c in read_history(stores.root)]
    assert own == [
        (Alias.CHALLENGER, None, 1, ChangeKind.DECISION),
        (Alias.CHAMPION, None, 1, ChangeKind.DECISION),
        (Alias.CHALLENGER, 1, 2, ChangeKind.DECISION),
        (Alias.CHAMPION, 1, 2, ChangeKind.DECISION),
    ]


def test_crash_after_the_move_loses_no_record(
    registry: ChampionRegistry, stores: Stores, uri: str
) -> None:
    train_and_challenge(registry, 1.5)
    train(stores, 3.0)

    def killed(root: Location, change: Any, stamp: int) -> None:
        if change.alias == Alias.CHAMPION:
            raise Killed
        append(root, change, stamp)

    append = registry_module.append_change
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry_module, "append_change", killed)
        with pytest.raises(Killed):
            challenge(registry)
    afterwards = ChampionRegistry(stores, uri)
    assert number_of(afterwards, Alias.CHAMPION) == 2
    assert len(read_history(stores.root)) == 3
    version, problems = standing_of(afterwards)
    assert problems == []
    challenge(afterwards)
    last = [c for c in read_history(stores.root) if c.alias == Alias.CHAMPION][-1]
    assert (last.before, last.after, last.kind) == (1, 2, ChangeKind.DECISION)
    assert "takes over" in last.reason


@pytest.mark.slow
def test_sigkill_before_the_move_leaves_the_champion(
    registry: ChampionRegistry, stores: Stores, uri: str
) -> None:
    train_and_challenge(registry, 1.5)
    train(stores, 3.0)
    code = f"""
import os, signal
from mlflow import MlflowClient
from csfd_core.registry.champion import ChampionRegistry, Version
from csfd_core.registry.contest import hold_contest
from csfd_core.registry import contest
from csfd_core.registry.decision import Condition, PromotionConfig
from csfd_core.runtime.tracking import RunIdentity, tracked_run
from csfd_core.ingest.convert import Stores
from csfd_core.store.locations import Location

move = MlflowClient.set_registered_model_alias
def killed(self, name, alias, version):
    if alias == "champion":
        os.kill(os.getpid(), signal.SIGKILL)
    move(self, name, alias, version)
MlflowClient.set_registered_model_alias = killed
contest._of_reproduction = lambda *given: Condition(
    name="reproduction", is_met=True, sentence="")
registry = ChampionRegistry(Stores(Location({str(stores.root)!r})), {uri!r})
identity = RunIdentity(asset="champion_model", code_version="1")
with tracked_run({uri!r}, "classification", identity) as run:
    hold_contest(registry, "basic_cnn", run, PromotionConfig(repeats=100), by="it")
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    afterwards = ChampionRegistry(stores, uri)
    assert number_of(afterwards, Alias.CHAMPION) == 1
    assert number_of(afterwards, Alias.CHALLENGER) == 2
    assert standing_of(afterwards)[1] == []
    challenge(
        afterwards
    )  # finds that the process is dead, and does what it has claimed
    assert number_of(afterwards, Alias.CHAMPION) == 2
    last = read_history(stores.root)[-1]
    assert (last.before, last.after, last.kind) == (1, 2, ChangeKind.DECISION)
