"""Several who write at once: what each has written is there, and nothing comes back."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.conversion import digests, tasks
from support.dicom_studies import LABEL_HEADER, STUDY_UID, write_study

from csfd_core.ingest import studies_table
from csfd_core.ingest.convert import convert_study
from csfd_core.ingest.outcomes import Outcome
from csfd_core.ingest.studies_table import write_studies_table
from csfd_core.lineage.withdrawal import withdraw
from csfd_core.store import label_parts, note_index
from csfd_core.store import metadata as metadata_module
from csfd_core.store.label_history import LabelHistory
from csfd_core.store.label_parts import LabelParts
from csfd_core.store.locations import Location
from csfd_core.store.notes import CropNote
from csfd_core.store.slices import SliceStore
from csfd_core.store.source import Source, Sources
from csfd_core.store.stores import Stores
from csfd_core.store.withdrawn import Withdrawal, WithdrawnStore
from csfd_core.vocabulary import LEVEL_NAMES

UID, OTHER = "1.2.826.0.1.3680043.11", "1.2.826.0.1.3680043.12"
PARTS = "metadata/label_versions"


def say(source: Path, *rows: str) -> None:
    """Let ``train.csv`` say which level of each study is fractured, or none."""
    source.mkdir(exist_ok=True)
    lines = []
    for row in rows:
        uid, level = row.split()
        values = [int(name == level) for name in LEVEL_NAMES]
        lines.append(",".join(map(str, [uid, max(values), *values])))
    (source / "train.csv").write_text("\n".join([LABEL_HEADER.strip(), *lines, ""]))


def told(store: Path, uid: str = UID) -> list[str]:
    """Return what each version says is fractured."""
    versions = LabelHistory(Location(store)).versions(uid)
    return [
        ",".join(name for name in LEVEL_NAMES if one.labels[name]) for one in versions
    ]


def files(store: Path) -> list[str]:
    return [entry.path for entry in Location(store).entries(PARTS)]


def test_who_has_read_earlier_does_not_undo_what_was_recorded_since(
    tmp_path: Path,
) -> None:
    """One reads; the source is corrected twice, and another records both."""
    source, store = tmp_path / "source", tmp_path / "store"
    places = [Location(source)]
    slow, fast = LabelHistory(Location(store)), LabelHistory(Location(store))
    say(source, f"{UID} -")
    fast.record(fast.read_labels(places))
    before = slow.read_labels(places)
    say(source, f"{UID} C2")
    between = slow.read_labels(places)
    for level in ("C2", "C5"):
        say(source, f"{UID} {level}")
        fast.record(fast.read_labels(places))
    for late in (before, between):
        newest = slow.record(late)[UID]
        assert (newest.version, newest.labels["C5"]) == (3, 1)
    assert told(store) == ["", "C2", "C5"]


def test_a_correction_that_only_the_slow_writer_has_seen_is_kept(
    tmp_path: Path,
) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    slow, fast = LabelHistory(Location(store)), LabelHistory(Location(store))
    say(source, f"{UID} C1")
    fast.record(fast.read_labels([Location(source)]))
    say(source, f"{UID} C2")
    seen = slow.read_labels([Location(source)])
    time.sleep(0.01)  # versions are ordered by milliseconds
    say(source, f"{UID} C5")
    fast.record(fast.read_labels([Location(source)]))
    assert slow.record(seen)[UID].labels["C5"] == 1
    assert told(store) == ["C1", "C2", "C5"]
    say(source, f"{UID} C2")
    slow.record(slow.read_labels([Location(source)]))
    assert told(store) == ["C1", "C2", "C5", "C2"]


def test_two_writers_of_the_same_write_one_file(tmp_path: Path) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    say(source, f"{UID} C1", f"{OTHER} C2")
    writers = [LabelHistory(Location(store)) for _ in range(2)]
    read = [writer.read_labels([Location(source)]) for writer in writers]
    for writer, labels in zip(writers, read, strict=True):
        writer.record(labels)
    assert len(files(store)) == 1
    assert told(store) == ["C1"]


def test_many_intakes_become_few_files_and_readers_miss_none(tmp_path: Path) -> None:
    location = Location(tmp_path)
    done: list[int] = []

    def add(writer: int) -> None:
        for number in range(60):
            LabelParts(location).add([row_of(f"1.2.{writer}.{number}")])
            done.append(1)

    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(add, writer) for writer in range(1, 4)]
        while not all(one.done() for one in writing):
            least = len(done)
            assert len(LabelParts(location).rows()) >= least
        for one in writing:
            one.result()
    assert len(LabelParts(location).rows()) == 180
    assert len(files(tmp_path)) < 80


def row_of(uid: str) -> dict[str, Any]:
    empty = dict.fromkeys(("reader", "date", "signed_at"))
    labels = dict.fromkeys(("patient_overall", *LEVEL_NAMES), 1)
    at = "2026-11-28T06:00:00.000+00:00"
    return {"study_uid": uid, "version": 1, **labels, **empty, "recorded_at": at} | {
        "origin": "table"
    }


def test_two_who_find_the_file_of_an_older_csfd_lose_nothing_of_it(
    tmp_path: Path,
) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    say(source, f"{UID} C1", f"{OTHER} C2")
    history = LabelHistory(Location(store))
    history.record(history.read_labels([Location(source)]))
    (part,) = (store / PARTS).iterdir()
    part.rename(store / f"{PARTS}.parquet")
    say(source, f"{UID} C3", f"{OTHER} C2")
    read = [history.read_labels([Location(source)]) for _ in range(2)]
    begin = threading.Barrier(2)

    def record(labels: Any) -> None:
        begin.wait()
        LabelHistory(Location(store)).record(labels)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(record, read))
    assert (told(store), told(store, OTHER)) == (["C1", "C3"], ["C2"])
    assert not (store / f"{PARTS}.parquet").exists()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_labels_of_a_study_that_is_withdrawn_meanwhile_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Before and after the file is written that was read before the withdrawal."""
    source, store = tmp_path / "source", tmp_path / "store"
    say(source, f"{UID} C1", f"{OTHER} C2")
    history = LabelHistory(Location(store))
    labels = history.read_labels([Location(source)])
    write = LabelParts._write

    def withdrawn(self: LabelParts, table: Any) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(LabelParts, "_write", write)
            path = write(self, table) if moment == "after" else ""
            WithdrawnStore(Location(store)).add(
                Withdrawal(study_uid=UID, reason="x", by="y")
            )
            LabelHistory(Location(store)).drop_study(UID)
        return path or write(self, table)

    monkeypatch.setattr(LabelParts, "_write", withdrawn)
    history.record(labels)
    monkeypatch.undo()
    assert (told(store), told(store, OTHER)) == ([], ["C2"])
    assert UID.encode() not in b"".join(Location(store).read(p) for p in files(store))


def test_two_withdrawals_at_once_undo_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second has read the file of both before the first takes its own study out."""
    source, store = tmp_path / "source", tmp_path / "store"
    third = "1.2.826.0.1.3680043.13"
    say(source, f"{UID} C1", f"{OTHER} C2", f"{third} C3")
    history = LabelHistory(Location(store))
    history.record(history.read_labels([Location(source)]))
    withdrawn = WithdrawnStore(Location(store))
    write = LabelParts._write

    def overtaken(self: LabelParts, table: Any) -> str:
        monkeypatch.setattr(LabelParts, "_write", write)
        withdrawn.add(Withdrawal(study_uid=OTHER, reason="x", by="y"))
        LabelHistory(Location(store)).drop_study(OTHER)
        return write(self, table)

    withdrawn.add(Withdrawal(study_uid=UID, reason="x", by="y"))
    monkeypatch.setattr(LabelParts, "_write", overtaken)
    history.drop_study(UID)
    assert [told(store, uid) for uid in (UID, OTHER, third)] == [[], [], ["C3"]]
    assert len(files(store)) == 1


def test_who_reads_while_a_file_is_replaced_reads_what_took_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    say(source, f"{UID} C1", f"{OTHER} C2")
    history = LabelHistory(Location(store))
    history.record(history.read_labels([Location(source)]))
    read = LabelParts._read_part

    def replaced(self: LabelParts, entry: Any) -> Any:
        monkeypatch.setattr(LabelParts, "_read_part", read)
        LabelHistory(Location(store)).drop_study(OTHER)
        label_parts._read_cached.cache_clear()
        return read(self, entry)

    monkeypatch.setattr(LabelParts, "_read_part", replaced)
    assert told(store) == ["C1"]


@pytest.mark.parametrize("way", ["alone", "with all others"])
def test_a_study_that_is_withdrawn_while_it_is_read_has_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    write_study(source)
    (task,) = tasks(source, store)
    convert_study(task)
    metadata = task.stores.metadata
    read = metadata_module.read_note

    def gone(location: Location, path: str) -> Any:
        location.remove(path)
        return read(location, path)

    monkeypatch.setattr(metadata_module, "read_note", gone)
    monkeypatch.setattr(note_index, "read_note", gone)
    if way == "alone":
        assert metadata.read_record(STUDY_UID) is None
    else:
        assert metadata.read_records() == []


def test_a_study_that_is_withdrawn_while_it_is_written_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    write_study(source)
    write = SliceStore.write

    def withdrawn(self: SliceStore, *given: Any) -> int:
        size = write(self, *given)
        withdraw(Stores(Location(store)), STUDY_UID, "a test", "tester")
        return size

    monkeypatch.setattr(SliceStore, "write", withdrawn)
    (task,) = tasks(source, store)
    assert convert_study(task).action is Outcome.WITHDRAWN
    assert {name.partition("/")[0] for name in digests(store)} == {"withdrawn"}


def test_what_is_made_of_a_study_that_is_withdrawn_meanwhile_is_not_kept(
    tmp_path: Path,
) -> None:
    stores = Stores(Location(tmp_path))
    note = CropNote(
        study_uid=UID, inputs="", crop={}, model_id="", standing="", levels=()
    )
    stores.crops.write(OTHER, [], note)
    for uid in (UID, OTHER):
        stores.withdrawn.add(Withdrawal(study_uid=uid, reason="x", by="y"))
    stores.crops.write(UID, [], note)
    assert [e.name for e in stores.root.entries("crops")] == [f"{OTHER}.parquet"]


def test_a_study_that_arrives_while_the_table_is_written_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another has written the table with it before this one writes its own."""
    source, store = tmp_path / "source", tmp_path / "store"
    write_study(source, UID)
    write_study(source, OTHER)
    first, second = tasks(source, store)
    stores, sources = Stores(Location(store)), Sources([Source(source)])
    convert_study(first)
    build = studies_table._build

    def overtaken(*given: Any) -> Any:
        built = build(*given)
        monkeypatch.setattr(studies_table, "_build", build)
        convert_study(second)
        write_studies_table(stores, sources)
        return built

    monkeypatch.setattr(studies_table, "_build", overtaken)
    table, _ = write_studies_table(stores, sources)
    assert list(table["study_uid"]) == [UID, OTHER]
    assert list(stores.metadata.read_studies()["study_uid"]) == [UID, OTHER]
