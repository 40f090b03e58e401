"""Several who change the champion at once: each from what it has seen, and in turn."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import get_ident
from typing import Any

import pytest
from mlflow import MlflowClient
from support.challenges import (
    LABELS,
    challenge,
    kept_predictions,
    number_of,
    train,
    train_and_challenge,
)
from support.contenders import write_store_manifest

from csfd_core.errors import OvertakenError
from csfd_core.registry import champion as registry_module
from csfd_core.registry import claims
from csfd_core.registry import contest as contest_module
from csfd_core.registry.appointment import promote_by_hand, roll_back
from csfd_core.registry.champion import NAME, ChampionRegistry
from csfd_core.registry.claims import Claim, make_claim
from csfd_core.registry.frozen import freeze
from csfd_core.registry.history import (
    Action,
    Alias,
    Change,
    ChangeKind,
    read_history,
)
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores

BY = ("a person", "it serves better")


@pytest.fixture(scope="module")
def made(
    start_mlflow: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A store and its MLflow: version 1 serves, version 2 was refused."""
    folder = tmp_path_factory.mktemp("made")
    stores = Stores(Location(folder / "store"))
    write_store_manifest(stores, LABELS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contest_module, "_predict_anew", kept_predictions)
        registry = ChampionRegistry(stores, start_mlflow(folder))
        for skill in (1.5, 1.0):
            train_and_challenge(registry, skill)
    return folder


@pytest.fixture
def uri(made: Path, tmp_path: Path) -> str:
    shutil.copy(made / "mlflow.db", tmp_path)
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def two_versions(
    made: Path, tmp_path: Path, uri: str, networks: None
) -> ChampionRegistry:
    shutil.copytree(made / "store", tmp_path / "two")
    return ChampionRegistry(Stores(Location(tmp_path / "two")), uri)


def line(registry: ChampionRegistry) -> list[tuple[int | None, int | None]]:
    changes = read_history(registry.stores.root)
    return [(c.before, c.after) for c in changes if c.alias == Alias.CHAMPION]


def change_to(number: int, kind: ChangeKind = ChangeKind.BY_HAND) -> Change:
    return Change(
        alias=Alias.CHAMPION,
        after=number,
        action=Action.PROMOTE,
        kind=kind,
        by="another",
        reason="a test",
    )


def test_who_is_overtaken_meets_the_new_champion(
    two_versions: ChampionRegistry, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    """Another promotes version 2 while version 3 is compared with version 1."""
    registry = two_versions
    train(registry.stores, 3.0)
    decide, met = contest_module._decide, []

    def overtaken(*given: Any) -> Any:
        decision = decide(*given)
        met.append(decision.champion)
        if len(met) == 1:
            promote_by_hand(ChampionRegistry(registry.stores, uri), 2, *BY)
        return decision

    monkeypatch.setattr(contest_module, "_decide", overtaken)
    found = challenge(registry)
    assert met == ["version 1 (basic_cnn)", "version 2 (basic_cnn)"]
    assert found.decision.promoted
    assert line(registry) == [(None, 1), (1, 2), (2, 3)]
    last = read_history(registry.stores.root)[-1]
    assert last.decision is not None
    assert last.decision.champion == "version 2 (basic_cnn)"


def test_who_is_overtaken_again_and_again_gives_up(
    two_versions: ChampionRegistry, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    registry = two_versions
    train(registry.stores, 3.0)
    decide = contest_module._decide

    def overtaken(*given: Any) -> Any:
        decision = decide(*given)
        other = ChampionRegistry(registry.stores, uri)
        promote_by_hand(other, 3 - int(str(number_of(other, Alias.CHAMPION))), *BY)
        return decision

    monkeypatch.setattr(contest_module, "_decide", overtaken)
    with pytest.raises(OvertakenError, match="champion has changed 5 times while vers"):
        challenge(registry)
    assert number_of(registry, Alias.CHAMPION) == 2


@pytest.mark.parametrize("command", [promote_by_hand, roll_back])
def test_a_person_who_saw_another_champion_is_told(
    two_versions: ChampionRegistry,
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[..., Change],
) -> None:
    registry = two_versions
    promote_by_hand(registry, 2, *BY)
    seen = registry.history()
    promote_by_hand(registry, 1, *BY)
    monkeypatch.setattr(registry, "history", lambda: seen)
    given = () if command is roll_back else (1,)
    with pytest.raises(OvertakenError, match="changed meanwhile: it is version 1 by a"):
        command(registry, *given, *BY)
    assert line(registry) == [(None, 1), (1, 2), (2, 1)]


def test_many_at_once_change_it_one_after_the_other(
    two_versions: ChampionRegistry, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    stores = two_versions.stores
    monkeypatch.setattr(registry_module, "TURN", NoTurn())  # as in several processes
    monkeypatch.setattr(claims, "this_process", lambda: f"m{get_ident()}-1")

    def promote(number: int) -> None:
        registry = ChampionRegistry(stores, uri)
        version = registry.version(number % 2 + 1)
        registry.move(Alias.CHAMPION, version, change_to(version.number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(promote, range(8)))
    told = line(two_versions)
    assert len(told) == 9
    assert [before for before, _ in told[1:]] == [after for _, after in told[:-1]]
    assert number_of(two_versions, Alias.CHAMPION) == told[-1][1]


class NoTurn:
    """Lets all threads go on at once."""

    def __enter__(self) -> None:
        return

    def __exit__(self, *given: object) -> None:
        return


@pytest.mark.parametrize("process", ["0-1", "nobody"])
def test_what_a_machine_that_is_gone_has_claimed_is_carried_out(
    two_versions: ChampionRegistry, monkeypatch: pytest.MonkeyPatch, process: str
) -> None:
    monkeypatch.setattr(claims, "_PATIENCE_S", 0.3)
    registry, root = two_versions, two_versions.stores.root
    with monkeypatch.context() as patch:
        patch.setattr(claims, "this_process", lambda: process)
        number = claims.last_number(root) + 1
        assert make_claim(root, number, change_to(2).since(1)) is not None
    assert number_of(registry, Alias.CHAMPION) == 1
    with pytest.raises(OvertakenError, match="version 2 by another"):
        registry.move(Alias.CHAMPION, registry.version(1), change_to(1), expected=1)
    assert line(registry) == [(None, 1), (1, 2)]
    assert number_of(registry, Alias.CHAMPION) == 2
    assert registry.settle() == []


def test_who_wakes_up_late_does_not_undo_what_came_after(
    two_versions: ChampionRegistry, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    """It sleeps with the alias in its hand, while others do its work and go on."""
    registry, stores = two_versions, two_versions.stores
    train(stores, 3.0)
    challenge(registry)
    assert number_of(registry, Alias.CHAMPION) == 3
    own = MlflowClient.set_registered_model_alias

    def sleep(self: MlflowClient, *given: Any) -> None:
        monkeypatch.setattr(MlflowClient, "set_registered_model_alias", own)
        other = ChampionRegistry(stores, uri)
        other.settle()  # it seems to be dead, as its claim is of this process
        promote_by_hand(other, 1, *BY)
        own(self, *given)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", sleep)
    promote_by_hand(registry, 2, *BY)
    assert line(registry) == [(None, 1), (1, 3), (3, 2), (2, 1)]
    assert number_of(registry, Alias.CHAMPION) == 1
    assert registry.settle() == []


def test_two_who_begin_at_once_have_one_registry_and_one_version(
    two_versions: ChampionRegistry, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has looked before the other has written."""
    stores = two_versions.stores
    for entry in stores.root.entries("models/champion"):
        stores.root.remove(entry.path)  # nothing was begun; the name is another's
    frozen = freeze(stores, "basic_cnn")
    versions = ChampionRegistry.versions
    run = MlflowClient(uri, uri).create_run("0").info.run_id
    other = ChampionRegistry(stores, uri)
    second: list[int] = []

    def begun(self: ChampionRegistry) -> Any:
        monkeypatch.setattr(ChampionRegistry, "versions", versions)
        found = versions(self)
        second.append(other.register(frozen, run).number)
        return found

    monkeypatch.setattr(ChampionRegistry, "versions", begun)
    first = ChampionRegistry(stores, uri).register(frozen, run)
    assert [first.number] == second == [1]
    assert [version.number for version in versions(other)] == [1, 2]


def test_claims_and_history_name_their_place(two_versions: ChampionRegistry) -> None:
    root = two_versions.stores.root
    names = [e.name for e in root.entries("models/champion/history/claims")]
    assert names == [f"{number:08d}.json" for number in range(1, 4)]
    last = claims.read_claim(root, 3)
    assert isinstance(last, Claim)
    assert root.exists(last.is_carried_out_at)
    assert [c.id for c in read_history(root)][-1] == last.change.id
    assert Path(last.is_carried_out_at).parent.name == "history"
    assert (
        NAME in two_versions.stores.root.read("models/champion/registry.json").decode()
    )
