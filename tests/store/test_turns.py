"""One writer at a time: who waits for a turn takes that one, and no newer one."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from csfd_core.store import turns
from csfd_core.store.atomic import this_process
from csfd_core.store.locations import Location
from csfd_core.store.turns import one_writer

OF_ANOTHER_MACHINE = b"0-1-x"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_PATIENCE_S", 0.3)


@pytest.mark.parametrize(
    "holder", ["killed", "on another machine", "whom nobody knows"]
)
def test_a_turn_that_was_left_is_taken(
    tmp_path: Path, quick: None, holder: str
) -> None:
    machine = this_process().partition("-")[0]
    marks = {"killed": f"{machine}-99999999-x", "on another machine": "0-1-x"}
    location = Location(tmp_path)
    location.write("table.turn", marks.get(holder, "").encode())
    with one_writer(location, "table"):
        assert location.read("table.turn").decode().startswith(this_process())
    assert location.entries() == []


def test_one_at_a_time_has_the_turn(tmp_path: Path) -> None:
    location = Location(tmp_path)
    location.write("table", json.dumps([]).encode())

    def add(number: int) -> None:
        with one_writer(location, "table"):
            known = json.loads(location.read("table"))
            location.write("table", json.dumps([*known, number]).encode())

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, range(30)))
    assert sorted(json.loads(location.read("table"))) == list(range(30))
    assert [entry.name for entry in location.entries()] == ["table"]


def test_a_turn_that_this_process_could_not_give_back_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = Location(tmp_path)

    def fails(*_: object) -> None:
        raise OSError("planted")

    with (
        monkeypatch.context() as patch,
        pytest.raises(OSError, match="planted"),
        one_writer(location, "table"),
    ):
        patch.setattr(Location, "remove", fails)
    assert [entry.name for entry in location.entries()] == ["table.turn"]
    begun = time.monotonic()
    with one_writer(location, "table"):
        assert time.monotonic() - begun < 5
    assert location.entries() == []


def test_who_saw_a_turn_given_back_does_not_remove_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the removal the turn is given back and taken by a third."""
    location, is_left = Location(tmp_path), turns._is_left
    holds, may_end = threading.Event(), threading.Event()
    waited_for = []

    def hold() -> None:
        with one_writer(location, "table"):
            holds.set()
            may_end.wait(30)

    first = threading.Thread(target=hold)

    def look(holder: bytes) -> bool:
        waited_for.append(holder)
        if len(waited_for) == 1:
            may_end.set()
            first.join()
            location.write("table.turn", OF_ANOTHER_MACHINE)
        elif holder == OF_ANOTHER_MACHINE:
            location.remove("table.turn")
        return is_left(holder)

    first.start()
    holds.wait(30)
    monkeypatch.setattr(turns, "_is_left", look)
    with one_writer(location, "table"):
        assert OF_ANOTHER_MACHINE in waited_for
    assert location.entries() == []


def test_who_took_too_long_does_not_give_back_the_turn_of_the_next(
    tmp_path: Path, quick: None
) -> None:
    location = Location(tmp_path)
    with one_writer(location, "table"):
        time.sleep(0.3)
        location.write("table.turn", OF_ANOTHER_MACHINE)
    assert location.read("table.turn") == OF_ANOTHER_MACHINE
    assert [entry.name for entry in location.entries()] == ["table.turn"]


def test_who_was_killed_while_removing_a_turn_keeps_nobody(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = Location(tmp_path)
    killed = f"{this_process().partition('-')[0]}-99999999-x".encode()
    location.write("table.turn", killed)

    def fails(*_: object) -> None:
        raise OSError("planted")

    with monkeypatch.context() as patch:
        patch.setattr(Location, "remove", fails)
        with pytest.raises(OSError, match="planted"), one_writer(location, "table"):
            raise AssertionError("nobody has the turn")
    assert len(location.entries()) == 2
    with one_writer(location, "table"):
        assert location.read("table.turn").decode().startswith(this_process())
    assert location.entries() == []
