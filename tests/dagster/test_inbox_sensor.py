"""What the sensor takes up from the inbox, what it leaves alone, what it takes out."""

import functools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from support.dicom_studies import neck_mask, volume_affine_ras, write_mask, write_study
from support.sensing import Place, copy_of, open_place

from csfd_core.lineage.forward import files_of
from csfd_core.vocabulary import LABEL_COLUMNS
from csfd_dagster import sensors
from csfd_dagster.definitions import build_defs
from csfd_dagster.partitions import range_tags
from csfd_dagster.sensors import Seen

pytestmark = pytest.mark.slow

UID, OTHER, NEW = (f"1.2.826.0.1.3680043.{last}" for last in (11, 12, 19))
HEADER = ",".join(["StudyInstanceUID", *LABEL_COLUMNS])
READER = "Dr. Curious Name"


def note(place: Place, uid: str, **facts: Any) -> None:
    """Write a label file into the inbox."""
    path = place.root / "inbox" / "labels" / f"{uid}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {"study_uid": uid, "reader": READER, "date": "2026-01-05", **facts}
    path.write_text(json.dumps(told))


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Two studies, one with a mask, ingested."""
    folder = tmp_path_factory.mktemp("settled")
    for uid in (UID, OTHER):
        write_study(folder / "source", uid)
    write_mask(folder / "source", neck_mask(), volume_affine_ras(), UID)
    rows = [HEADER, *(f"{uid},1,0,1,0,0,0,0,0" for uid in (UID, OTHER))]
    (folder / "source" / "train.csv").write_text("\n".join(rows) + "\n")
    with open_place(folder) as found:
        assert "Nothing has changed in 2 studies." in found.settle()
    return found


@pytest.fixture
def place(settled: Place, tmp_path: Path) -> Iterator[Place]:
    """A copy of them, in which nothing has changed."""
    with copy_of(settled, tmp_path) as found:
        assert found.look() == "Nothing has changed in 2 studies"
        yield found


def copy_again(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "new", copy_function=shutil.copyfile)
    shutil.rmtree(folder)
    (folder.parent / "new").rename(folder)


def touch(folder: Path) -> None:
    for path in folder.iterdir():
        os.utime(path)


@pytest.mark.parametrize("again", [touch, copy_again], ids=["touched", "copied"])
def test_same_bytes_lead_to_runs_that_change_nothing(place: Place, again: Any) -> None:
    before, count = place.stored(), len(place.runs)
    again(place.images(UID))
    os.utime(place.root / "source" / "segmentations" / f"{UID}.nii")
    assert place.settle() == "Nothing has changed in 2 studies."
    runs = place.runs[count:]
    assert all(run.success for run in runs)
    told = {
        (event.asset_key.to_user_string(), event.partition): (
            event.materialization.metadata["outcome"].value
        )
        for run in runs
        for event in run.get_asset_materialization_events()
        if "outcome" in event.materialization.metadata
    }
    steps = ("study_headers", "slice_store", "mask_store")
    assert told == {(step, UID): "unchanged" for step in steps}
    assert place.stored() == before


def test_same_bytes_make_no_report_due_and_a_new_label_does(place: Place) -> None:
    evaluate = functools.partial(
        dg.evaluate_automation_conditions,
        build_defs(place.resources),
        asset_selection=dg.AssetSelection.groups("eda"),
        instance=place.instance,
    )
    first = evaluate()
    touch(place.images(UID))
    place.settle()
    second = evaluate(cursor=first.cursor)
    assert second.total_requested == 0
    note(place, UID, labels={"C5": 1})
    place.settle()
    assert evaluate(cursor=second.cursor).total_requested == 2


def test_study_that_lacks_slices_of_its_label_file_is_left_alone(place: Place) -> None:
    folder = write_study(place.root / "inbox", NEW)
    late = {path: path.read_bytes() for path in sorted(folder.iterdir())[:10]}
    for path in late:
        path.unlink()
    (folder / ".25.dcm").write_bytes(b"hidden")
    (folder / "26.dcm").write_bytes(b"")
    note(place, NEW, labels={"C1": 0}, slices=24)
    reason = place.settle()
    assert f"1 study waits for files: {NEW} has 14 of 24." in reason
    assert READER not in reason
    assert NEW not in place.partitions()
    (folder / ".25.dcm").unlink()
    (folder / "26.dcm").unlink()
    for path, content in late.items():
        path.write_bytes(content)
    waits = place.tick()  # it may still grow
    assert "1 study has changed" in str(waits.skip_reason)
    assert place.settle() == "Nothing has changed in 3 studies."
    assert place.stores.slices.read_note(NEW) is not None


def test_label_file_that_is_put_right_lets_its_study_in(place: Place) -> None:
    write_study(place.root / "inbox", NEW)
    note(place, NEW, labels={"C1": 0}, slices=25)
    assert "24 of 25" in place.settle()
    note(place, NEW, labels={"C1": 0}, slices=24)
    assert place.settle() == "Nothing has changed in 3 studies."


def test_one_that_waits_holds_up_neither_others_nor_the_table(place: Place) -> None:
    write_study(place.root / "inbox", NEW)
    note(place, NEW, labels={"C1": 0}, slices=25)
    place.images("1.2.3", "inbox").mkdir()  # not a file of it yet
    write_study(place.root / "inbox", f"{NEW}.1")
    note(place, UID, labels={"C5": 1})
    assert "24 of 25" in place.settle()
    table = place.stores.metadata.read_studies().set_index("study_uid")
    assert set(table.index) == {UID, OTHER, f"{NEW}.1"}
    assert table.loc[UID, "C5"] == 1
    assert all(run.success for run in place.runs)


def test_study_has_to_stay_as_it_is_for_a_minute(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CSFD_SETTLE_S")
    clock = Clock(monkeypatch)
    folder = write_study(place.root / "inbox", NEW)
    late = (folder / "24.dcm").read_bytes()
    (folder / "24.dcm").unlink()
    assert "1 study has changed" in place.look()
    clock.now += 40
    (folder / "24.dcm").write_bytes(late)  # what came until now counts no more
    assert "1 study has changed" in place.look()
    clock.now += 59
    assert "1 study has changed" in place.look()
    assert place.partitions() == {UID, OTHER}
    clock.now += 1
    assert place.look() == "1 study is taken up"
    assert place.partitions() == {UID, OTHER, NEW}


def test_large_sources_are_looked_at_less_often(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    digest = sensors.listing_digest

    def slow(*given: Any) -> str:
        clock.now += 7
        return digest(*given)

    monkeypatch.setattr(sensors, "listing_digest", slow)
    write_study(place.root / "inbox", NEW)
    assert "1 study has changed" in place.look()
    clock.now += 55
    assert "looked at less often" in place.look()
    clock.now += 2
    assert place.look() == "1 study is taken up"


def finish(place: Place) -> None:
    """Let every study that has slices have its mask and crops."""
    for entry in place.stores.root.entries("slices"):
        for folder in ("predicted_masks", "crops"):
            place.stores.root.write(f"{folder}/{entry.name}", b"made")


def test_of_many_that_arrive_at_once_some_are_taken_up_at_a_time(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "_AT_ONCE", 2)
    monkeypatch.setattr(sensors, "_WATCHED", 3)
    monkeypatch.setattr(sensors, "_UNDER_WAY", 4)
    finish(place)
    place.settle()
    new = {f"{NEW}.{number}" for number in range(7)}
    for uid in new:
        write_study(place.root / "inbox", uid)

    def look() -> str:
        said, before = place.look(), place.partitions()
        seen = Seen.model_validate_json(place.cursor or "")
        assert len(seen.unsettled) <= 3
        assert len(seen.asked) <= 4
        assert set(seen.asked) <= before
        return said

    assert "7 studies have changed" in look()
    assert look() == "2 studies are taken up, 5 more wait"
    assert look() == "2 studies are taken up, 3 more wait"
    assert look() == "4 studies are taken up and not done: 3 more wait"
    assert look() == "4 studies are taken up and not done: 3 more wait"
    place.follow()
    finish(place)
    while "Nothing has changed" not in look():
        place.follow()
        finish(place)
    assert place.partitions() == {UID, OTHER, *new}
    assert set(place.stores.metadata.read_studies()["study_uid"]) == {UID, OTHER, *new}
    assert place.look() == "Nothing has changed in 9 studies"


def test_what_was_not_done_is_taken_up_the_next_day_however_much(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "_AT_ONCE", 2)
    finish(place)
    place.settle()
    for number in range(3):
        write_study(place.root / "inbox", f"{NEW}.{number}")
    while "taken up" not in place.look() or "more" in place.look():
        pass
    seen = Seen.model_validate_json(place.cursor or "")
    assert len(seen.asked) == 3
    place.cursor = seen.model_copy(update={"day": "2000-01-01"}).model_dump_json()
    assert place.look() == "3 studies are taken up"


class Clock:
    """In place of the sensor's clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(sensors.time, "time", lambda: self.now)


def test_label_file_withdraws_its_study_once(place: Place) -> None:
    note(place, UID, withdrawn="consent withdrawn")
    assert place.partitions() == {UID, OTHER}
    place.tick()
    assert place.partitions() == {OTHER}
    assert files_of(place.stores, UID) == []
    record = place.stores.withdrawn.read(UID)
    assert record is not None
    assert (record.by, record.reason) == (READER, "consent withdrawn")
    assert place.follow() == [{"metadata_table"}]
    touch(place.images(UID))
    note(place, UID, withdrawn="again", date="2026-01-06")
    assert place.settle() == "Nothing has changed in 1 study."
    assert place.stores.withdrawn.read(UID) == record
    assert set(place.stores.metadata.read_studies()["study_uid"]) == {OTHER}


def test_withdrawal_that_was_cut_off_is_finished(place: Place) -> None:
    left = place.root / "store" / "slices" / f"{UID}.parquet"
    kept = left.read_bytes()
    note(place, UID, withdrawn="consent withdrawn")
    place.tick()
    left.write_bytes(kept)
    place.cursor = None  # nor does the sensor remember
    place.tick()
    assert not left.exists()


def test_reader_stands_in_no_log_of_dagster(place: Place) -> None:
    note(place, UID, withdrawn="consent withdrawn")
    note(place, OTHER, labels={"C1": 1})
    place.settle()
    logs = [
        str(record)
        for run in place.runs
        for record in place.instance.all_logs(run.run_id)
    ]
    assert len(logs) > 20
    assert READER not in " ".join([*logs, str(place.cursor)])


@pytest.mark.parametrize("empty", [True, False], ids=["empty folder", "no folder"])
def test_study_that_vanishes_is_kept_and_named(place: Place, empty: bool) -> None:
    before = place.stored()
    shutil.rmtree(place.images(UID))
    if empty:
        place.images(UID).mkdir()
    assert place.settle() == "Nothing has changed in 1 study."
    result = place.run(range_tags([UID, OTHER]))  # a backfill
    assert result.success
    *_, event = [
        event
        for event in result.get_asset_materialization_events()
        if event.partition == UID and event.asset_key == dg.AssetKey("slice_store")
    ]
    metadata = event.materialization.metadata
    assert metadata["outcome"].value == "unchanged"
    assert "in no source any more" in str(metadata["note"].value)
    (table,) = result.asset_materializations_for_node("metadata_table")
    assert "No source has images of 1 study of the store" in str(
        table.metadata["notes"].value
    )
    assert place.stored() == before


def test_vanished_study_without_its_slices_fails(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between tries
    shutil.rmtree(place.images(UID))
    (place.root / "store" / "slices" / f"{UID}.parquet").unlink()
    result = place.run(range_tags([UID, OTHER]))
    checks = {c.check_name: c for c in result.get_asset_check_evaluations()}
    assert not checks["no_study_failed"].passed
    assert UID in str(checks["no_study_failed"].metadata["failed"].value)


def notes_of(place: Place) -> str:
    result = place.run({}, [dg.AssetKey("metadata_table")])
    (table,) = result.get_asset_materialization_events()
    return str(table.materialization.metadata["notes"].value)


def test_study_in_source_and_inbox_is_told_and_the_source_counts(place: Place) -> None:
    before = place.stored()
    folder = write_study(place.root / "inbox", OTHER)
    assert place.settle() == "Nothing has changed in 2 studies."
    told = notes_of(place)
    assert "1 study lies in more than one source, with the same files" in told
    (folder / "3.dcm").unlink()
    told = notes_of(place)
    assert f"with other files, such as {OTHER}; the first source counts" in told
    assert place.stored() == before
