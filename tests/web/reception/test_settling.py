"""The end of a transfer: when a study is accepted, and what survives what."""

import os
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import SimpleNamespace

import pytest
from support.kills import CONTEXT
from support.receiving import SENDER, Place

from csfd_core.errors import SourceError
from csfd_core.store.locations import Location
from csfd_core.store.withdrawn import Withdrawal
from csfd_core.web import acceptance
from csfd_core.web.reception import settling
from csfd_core.web.reception.reception import Reception, Sender
from csfd_core.web.reception.waiting import Waiting
from csfd_core.web.study_locks import hold_studies

READ = "csfd_core.web.reception.reception"
_KILLED = 9


@pytest.fixture
def clock(monkeypatch):
    """A monotonic clock that stands still until it is moved."""
    stands = SimpleNamespace(now=1000.0)
    fake = SimpleNamespace(monotonic=lambda: stands.now)
    monkeypatch.setattr(f"{READ}.time", fake)
    return stands


def keep_all(place: Place, files: list[bytes], sender: Sender = SENDER) -> str:
    uids = {place.reception.keep(content, sender).study_uid for content in files}
    (uid,) = uids
    return uid


def test_a_study_is_accepted_once_no_slice_has_come_for_the_quiet_time(
    place, files, clock
):
    uid = keep_all(place, files[:-1])
    assert place.reception.settle() == []
    clock.now += 0.9
    assert place.reception.settle() == []
    keep_all(place, files[-1:])  # which begins the time anew
    clock.now += 0.2
    assert place.reception.settle() == []
    clock.now += 0.9
    assert place.reception.settle() == []
    clock.now += 0.2
    assert place.reception.settle() == [uid]
    (row,) = place.rows()
    assert (row.study_uid, row.slices, row.version) == (uid, len(files), 1)
    assert (row.state, row.user_id) == ("accepted", None)
    assert len(place.in_inbox()) == len(files)
    assert not place.waiting()
    assert place.audited() == ["study accepted"]
    assert place.reception.settle() == []


@pytest.mark.parametrize("age_s", [10 * 365 * 86_400, -10 * 365 * 86_400])
def test_a_clock_that_is_set_makes_no_study_complete(place, files, clock, age_s):
    uid = keep_all(place, files[:3])
    folder = place.waiting()[0].parent
    moment = time.time() - age_s
    for path in (*folder.iterdir(), folder):
        os.utime(path, (moment, moment))
    assert place.reception.settle() == []
    clock.now += 1.1
    assert place.reception.settle() == [uid]


def test_a_study_is_not_accepted_while_it_is_being_sent(place, files, clock):
    uid = keep_all(place, files[:3])
    held = place.reception.hold(uid)
    place.reception.settle()
    clock.now += 100
    assert place.reception.settle() == []
    assert place.another().settle(quiet_s=0) == []
    os.close(held)
    assert place.reception.settle() == [uid]


def test_who_is_asked_may_say_that_a_study_is_being_sent(place, files):
    uid = keep_all(place, files[:3])
    assert place.reception.settle(lambda asked: asked == uid, quiet_s=0) == []
    assert place.reception.settle(lambda asked: asked != uid, quiet_s=0) == [uid]


def test_a_process_that_is_killed_holds_nothing(place, files):
    uid = keep_all(place, files[:3])

    def hold() -> None:
        place.reception.hold(uid)
        time.sleep(60)

    process = CONTEXT.Process(target=hold)
    process.start()
    until = time.monotonic() + 20
    while place.settle() and time.monotonic() < until:  # it has begun
        time.sleep(0.01)
    process.kill()
    process.join()
    place.settle()
    assert [row.study_uid for row in place.rows()] == [uid]


def test_slices_that_come_late_make_a_new_version_as_urgent_as_before(place, files):
    keep_all(place, files[:20], Sender(name="ER", priority=2))
    place.settle()
    keep_all(place, files[20:])
    place.settle()
    (row,) = place.rows()
    assert (row.version, row.slices, row.priority) == (2, len(files), 2)
    assert len(place.in_inbox()) == len(files)
    assert place.audited() == ["study accepted", "study accepted"]


def test_two_that_look_at_once_accept_a_study_once(place, files):
    keep_all(place, files)
    others = [place.another() for _ in range(4)]
    start = threading.Barrier(len(others))
    settled: list[str] = []

    def look(reception: Reception) -> None:
        start.wait()
        settled.extend(reception.settle(quiet_s=0))

    threads = [threading.Thread(target=look, args=(one,)) for one in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(settled) == 1
    assert [row.version for row in place.rows()] == [1]
    assert place.audited() == ["study accepted"]
    assert not list((place.home / "data" / "received").iterdir())


def _die_in(
    module: object, name: str, after: int, is_before: bool
) -> Callable[[pytest.MonkeyPatch], None]:
    """Let a process die at the n-th call of something."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        real, calls = getattr(module, name), []

        def die(*arguments: object, **named: object) -> object:
            calls.append(1)
            is_last = len(calls) > after
            if is_last and is_before:
                os._exit(_KILLED)
            result = real(*arguments, **named)
            if is_last:
                os._exit(_KILLED)
            return result

        monkeypatch.setattr(module, name, die)

    return patch


MOMENTS = {
    "before the mark": _die_in(acceptance, "_write_mark", 0, True),
    "after the mark": _die_in(acceptance, "_write_mark", 0, False),
    "after some slices": _die_in(Location, "write", 10, True),
    "when all slices are there": _die_in(settling, "put_all", 0, False),
    "in the transaction": _die_in(settling, "accept_put", 0, False),
    "after the transaction": _die_in(Waiting, "remove", 0, True),
    "while it removes": _die_in(os, "unlink", 30, True),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("is_known", [False, True])
def test_whenever_it_is_killed_the_study_is_accepted_once(
    place, files, monkeypatch, moment, is_known
):
    if is_known:  # the study is there with other slices
        keep_all(place, files[:2])
        place.settle()
        files = files[2:]
    keep_all(place, files)

    def settle() -> None:
        with pytest.MonkeyPatch.context() as patch:
            MOMENTS[moment](patch)
            place.another().settle(quiet_s=0)

    process = CONTEXT.Process(target=settle)
    process.start()
    process.join()
    assert process.exitcode == _KILLED
    place.settle()
    place.settle()
    (row,) = place.rows()
    assert row.version == 1 + is_known
    assert row.slices == len(place.in_inbox()) == len(files) + 2 * is_known
    assert place.audited() == ["study accepted"] * row.version
    assert not list((place.home / "data" / "received").iterdir())


def test_slices_wait_where_the_inbox_cannot_be_written(
    place, files, monkeypatch, caplog
):
    uid = keep_all(place, files)

    def fail(*_arguments: object) -> None:
        raise SourceError("PLANTEDNAME^HANS")

    with monkeypatch.context() as patch:
        patch.setattr(Location, "write", fail)
        assert place.settle() == []
    assert len(place.waiting()) == len(files)
    assert not place.rows()
    assert "cannot be accepted: SourceError" in caplog.text
    assert "PLANTEDNAME" not in caplog.text
    assert place.settle() == [uid]
    assert len(place.in_inbox()) == len(files)


def test_a_study_that_is_withdrawn_while_it_waits_is_not_accepted(place, files):
    uid = keep_all(place, files)
    place.services.stores.withdrawn.add(
        Withdrawal(study_uid=uid, reason="asked for", by="admin")
    )
    assert place.settle() == []
    assert not place.rows()
    assert not place.in_inbox()
    assert not place.waiting()


def test_a_study_that_is_forgotten_does_not_wait_any_more(place, files):
    uid = keep_all(place, files)
    place.reception.forget(uid)
    assert not place.waiting()
    assert place.settle() == []


def test_a_slice_that_comes_while_its_study_is_accepted_comes_later(
    place, files, monkeypatch
):
    """It waits until the folder is emptied, and makes a new version."""
    keep_all(place, files[:20])
    begun, kept = threading.Event(), threading.Event()
    put_all = settling.put_all

    def slowly(*arguments: object) -> object:
        begun.set()
        time.sleep(0.3)
        assert not kept.is_set()
        return put_all(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(settling, "put_all", slowly)
    thread = threading.Thread(target=place.settle)
    thread.start()
    begun.wait(10)
    place.another().keep(files[20], SENDER)
    kept.set()
    thread.join()
    monkeypatch.undo()
    assert len(place.waiting()) == 1
    place.reception.settle(quiet_s=0)
    (row,) = place.rows()
    assert (row.version, row.slices) == (2, 21)


def test_the_lock_of_a_study_is_held_across_processes(place):
    settings = place.services.settings

    def take(connection: Connection) -> None:
        connection.recv()
        with hold_studies(settings, "1.2.3"):
            connection.send(time.monotonic())

    here, there = CONTEXT.Pipe()
    process = CONTEXT.Process(target=take, args=(there,), daemon=True)
    process.start()  # before: what is forked has the locks of who has forked it
    with hold_studies(settings, "1.2.3", "1.2.4"):
        here.send("go on")
        assert not here.poll(0.3)
        let_go = time.monotonic()
    assert here.poll(10)
    assert here.recv() >= let_go
    process.join()
