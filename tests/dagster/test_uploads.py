"""What the sensor of uploads asks for, and what it tells the page."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from support.dicom_studies import write_study
from support.sensing import Place, open_place
from support.uploaded import Asking, accept_study, open_page, row_of

from csfd_core.dicom.findings import Status
from csfd_core.store.locations import Location
from csfd_core.store.metadata import StudyRecord
from csfd_core.store.stores import Stores
from csfd_core.web import study_states
from csfd_core.web.database import Database
from csfd_core.web.study_states import open_studies, try_again
from csfd_dagster import uploads as module
from csfd_dagster.uploads import key_of, priority_of, studies_on_their_way

UID, OTHER = "2.25.111", "2.25.222"
Run = dg.DagsterRunStatus


@pytest.fixture
def page(places: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setenv("CSFD_WEB_DATABASE", f"sqlite:///{places}/web.db")
    database = open_page()
    yield database
    database.close()


@pytest.fixture
def asking(page: Database, places: Path, instance: dg.DagsterInstance) -> Asking:
    return Asking(instance, str(places / "store"))


def write_record(stores: Stores, uid: str, **facts: Any) -> None:
    values: dict[str, Any] = {
        "status": Status.GOOD,
        "findings": (),
        "notes": (),
        "slice_count": 24,
        "slice_thickness_mm": None,
        "transfer_syntax_uid": None,
        "patient_key": None,
        "geometry": None,
        "source_bytes": 1,
        "content_hash": "now",
        "mask_hash": None,
        "fingerprint": "f",
        "mask_fingerprint": None,
        **facts,
    }
    stores.metadata.write_headers(StudyRecord(study_uid=uid, **values), [])


def write_prediction(stores: Stores, uid: str, content_hash: str) -> None:
    note = {"study_uid": uid, "content_hash": content_hash, "unlike": {}}
    stores.root.write(f"predictions/{uid}.json", json.dumps(note).encode())


def ask(asking: Asking, status: Run) -> dg.DagsterRun:
    """Let the sensor ask for the one open study, and record a run in a state."""
    (request,) = asking.tick().run_requests or ()
    return asking.launch(request, status)


def test_where_nobody_uses_the_page_no_database_is_made(
    places: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSFD_WEB_DATABASE", f"sqlite:///{places}/none/web.db")
    result = Asking(instance, str(places / "store")).tick()
    assert "Nobody has used" in str(result.skip_reason)
    assert studies_on_their_way() == frozenset()
    assert not (places / "none").exists()


def test_accepted_study_is_asked_for_once_with_its_priority(
    asking: Asking, page: Database
) -> None:
    accept_study(page, UID, priority=0)
    accept_study(page, OTHER, priority=2)
    first, second = asking.tick().run_requests or ()
    assert (first.run_key, first.partition_key) == (f"{OTHER}-1-0", OTHER)
    assert (second.run_key, second.partition_key) == (f"{UID}-1-0", UID)
    assert first.tags["dagster/priority"] == "20"
    assert second.tags["dagster/priority"] == "0"
    assert asking.instance.get_dynamic_partitions("studies") == [UID, OTHER]
    assert row_of(page, UID).state == "running"
    for request in (first, second):
        asking.launch(request, Run.QUEUED)
    assert not asking.tick().run_requests


def test_study_whose_run_was_never_made_is_asked_for_again_by_the_same_key(
    asking: Asking, page: Database
) -> None:
    accept_study(page, UID)
    keys = [request.run_key for request in asking.tick().run_requests or ()]
    again = [request.run_key for request in asking.tick().run_requests or ()]
    assert keys == again == [f"{UID}-1-0"]


def test_routine_study_rises_after_ten_minutes_also_in_the_queue(
    asking: Asking, page: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept_study(page, UID)
    (one,) = open_studies(page)
    assert priority_of(one, one.accepted_at + 599) == 0
    assert priority_of(one, one.accepted_at + 601) == 10
    run = ask(asking, Run.QUEUED)
    later = time.time() + 601
    monkeypatch.setattr(module.time, "time", lambda: later)
    asking.tick()
    risen = asking.instance.get_run_by_id(run.run_id)
    assert risen is not None
    assert risen.tags["dagster/priority"] == "10"


def test_run_that_has_made_the_prediction_of_these_files_is_done(
    asking: Asking, page: Database, places: Path
) -> None:
    stores = Stores(Location(places / "store"))
    accept_study(page, UID)
    run = ask(asking, Run.SUCCESS)
    write_record(stores, UID)
    write_prediction(stores, UID, "now")
    asking.tick()
    row = row_of(page, UID)
    assert (row.state, row.run_id, row.reason) == ("done", run.run_id, "")
    assert row.done_at is not None


def test_prediction_of_other_files_counts_for_nothing(
    asking: Asking, page: Database, places: Path
) -> None:
    stores = Stores(Location(places / "store"))
    accept_study(page, UID)
    ask(asking, Run.SUCCESS)
    write_record(stores, UID)
    write_prediction(stores, UID, "before")
    asking.tick()
    row = row_of(page, UID)
    assert row.state == "failed"
    assert "Try it again" in row.reason


def test_quarantined_study_is_refused_with_what_to_do(
    asking: Asking, page: Database, places: Path
) -> None:
    accept_study(page, UID)
    ask(asking, Run.SUCCESS)
    stores = Stores(Location(places / "store"))
    finding = ("missing_slices", "1 of 24")
    write_record(stores, UID, status=Status.QUARANTINED, findings=(finding,))
    asking.tick()
    row = row_of(page, UID)
    record = stores.metadata.read_record(UID)
    assert record is not None
    assert (row.state, row.reason) == ("refused", record.reasons[0])


@pytest.mark.parametrize(
    ("status", "word"),
    [(Run.FAILURE, "could not be worked on"), (Run.CANCELED, "stopped")],
)
def test_failure_is_told_and_may_be_tried_again(
    asking: Asking, page: Database, status: Run, word: str
) -> None:
    accept_study(page, UID)
    ask(asking, status)
    asking.tick()
    assert row_of(page, UID).state == "failed"
    assert word in row_of(page, UID).reason
    with page.transaction() as connection:
        assert try_again(connection, UID)
    (request,) = asking.tick().run_requests or ()
    assert request.run_key == f"{UID}-1-1"


def test_run_that_dagster_starts_again_is_waited_for_and_then_asked_for(
    asking: Asking, page: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept_study(page, UID)
    run = ask(asking, Run.STARTED)
    asking.instance.report_run_failed(run)
    asking.instance.add_run_tags(run.run_id, {"dagster/will_retry": "true"})
    assert not asking.tick().run_requests
    assert row_of(page, UID).state == "running"
    later = time.time() + 61
    monkeypatch.setattr(module.time, "time", lambda: later)
    (request,) = asking.tick().run_requests or ()
    assert request.run_key == f"{UID}-1-0~1"
    assert request.tags[module.KEY] == f"{UID}-1-0"


def test_late_slices_are_a_version_of_their_own_and_outlive_the_run_before(
    asking: Asking, page: Database, places: Path
) -> None:
    accept_study(page, UID)
    ask(asking, Run.SUCCESS)
    stores = Stores(Location(places / "store"))
    write_record(stores, UID)
    write_prediction(stores, UID, "now")
    assert accept_study(page, UID, slices=30) == 2
    (request,) = asking.tick().run_requests or ()
    assert request.run_key == f"{UID}-2-0"
    assert row_of(page, UID).state == "running"


def test_what_was_told_is_not_told_again_and_a_killed_sensor_tells_it(
    asking: Asking, page: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    def tell(*given: Any, **named: Any) -> bool:
        told.append(named)
        return study_states.tell(*given, **named)

    monkeypatch.setattr(module, "tell", tell)
    accept_study(page, UID)
    ask(asking, Run.QUEUED)
    asking.tick()
    count = len(told)
    asking.tick()
    assert len(told) == count
    asking.cursor = None
    asking.tick()
    assert len(told) == count + 1


def test_many_studies_are_asked_for_in_several_ticks_the_most_urgent_first(
    asking: Asking, page: Database
) -> None:
    uids = [f"2.25.{index}" for index in range(1, 13)]
    for uid in uids:
        accept_study(page, uid, priority=2 if uid == uids[-1] else 0)
    first = list(asking.tick().run_requests or ())
    assert [one.partition_key for one in first] == [uids[-1], *uids[:9]]
    for request in first:
        asking.launch(request, Run.QUEUED)
    rest = [one.partition_key for one in asking.tick().run_requests or ()]
    assert rest == uids[9:11]


def test_key_names_study_version_and_attempt(page: Database) -> None:
    accept_study(page, UID)
    assert [key_of(one) for one in open_studies(page)] == [f"{UID}-1-0"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("CSFD_WEB_DATABASE", f"sqlite:///{tmp_path}/web.db")
    with open_place(tmp_path) as found:
        yield found


@pytest.mark.slow
def test_sensor_of_new_studies_leaves_uploads_alone_until_they_are_done(
    place: Place,
) -> None:
    database = open_page()
    write_study(place.root / "inbox", UID)
    accept_study(database, UID)
    for _ in range(3):  # before the other sensor has asked for it
        assert place.look() == "Nothing has changed in 0 studies"
    assert place.partitions() == set()
    asking = Asking(place.instance, str(place.root / "store"))
    (request,) = asking.tick().run_requests or ()
    asking.launch(request, Run.CANCELED)
    for _ in range(3):  # and afterwards
        assert place.look() == "Nothing has changed in 0 studies"
    asking.tick()  # failed: it is as every other study now
    place.look()
    assert place.look() == "1 study is taken up"


@pytest.mark.slow
def test_study_that_was_taken_up_before_it_was_accepted_is_asked_for_as_well(
    place: Place,
) -> None:
    write_study(place.root / "inbox", UID)
    place.look()
    assert place.look() == "1 study is taken up"
    database = open_page()
    accept_study(database, UID)
    asking = Asking(place.instance, str(place.root / "store"))
    assert [one.partition_key for one in asking.tick().run_requests or ()] == [UID]
    assert place.partitions() == {UID}
