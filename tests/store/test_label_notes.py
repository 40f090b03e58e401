"""Label files, which labels count, and every version of them."""

import itertools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.dicom_studies import LABEL_HEADER

from csfd_core.store.label_history import LabelHistory
from csfd_core.store.label_notes import read_label_notes
from csfd_core.store.labels import read_all_labels, read_labels
from csfd_core.store.locations import Location
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES, OVERALL

UID = "1.2.826.0.1.3680043.10"
WHOLE = dict.fromkeys(LEVEL_NAMES, 0)


def write_note(folder: Path, uid: str = UID, **changes: Any) -> Path:
    note = {
        "study_uid": uid,
        "labels": {**WHOLE, "C4": 1},
        "reader": "AB",
        "date": "2026-01-05",
        **changes,
    }
    path = folder / "labels" / f"{uid}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(note))
    return path


def write_row(folder: Path, values: str, uid: str = UID) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.csv").write_text(f"{LABEL_HEADER}{uid},{values}\n")


def labels_in(*folders: Path) -> dict[str, int | None]:
    table = read_all_labels([Location(folder) for folder in folders]).table
    row = table.loc[UID]
    return {n: None if row.isna()[n] else int(row[n]) for n in LABEL_COLUMNS}


def test_a_file_says_who_read_what_and_when(tmp_path: Path) -> None:
    write_note(tmp_path, slices=312)
    (note,) = read_label_notes(Location(tmp_path)).notes.values()
    assert note.labels == {OVERALL: 1, **WHOLE, "C4": 1}
    assert (note.reader, note.date.isoformat(), note.slices) == (
        "AB",
        "2026-01-05",
        312,
    )
    assert labels_in(tmp_path) == note.labels


@pytest.mark.parametrize(
    ("labels", "overall"),
    [
        (WHOLE, 0),
        ({"C1": 1}, 1),
        ({"C1": 0}, None),
        ({**WHOLE, OVERALL: 1}, 1),
        ({"C1": 0, "C2": None}, None),
    ],
)
def test_overall_follows_from_the_levels(
    tmp_path: Path, labels: dict[str, int | None], overall: int | None
) -> None:
    write_note(tmp_path, labels=labels)
    assert labels_in(tmp_path)[OVERALL] == overall


TOMORROW = (datetime.now(UTC) + timedelta(days=3)).date().isoformat()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"labels": {"C1": True}}, "labels.C1"),
        ({"reader": None}, "need a `reader`"),
        ({"labels": {"C1": 2}}, "labels.C1"),
        ({"labels": {"C8": 0}}, "C8"),
        ({"labels": {}}, "neither `labels` nor"),
        ({"study_uid": "1.2.3"}, "of another study"),
        ({"date": "yesterday"}, "date"),
        ({"date": TOMORROW}, "lies in the future"),
        ({"reader": ""}, "reader"),
        ({"slices": 0}, "slices"),
        ({"Labels": {}}, "Labels"),
    ],
)
def test_a_file_that_cannot_be_meant_is_named(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    write_note(tmp_path, **changes)
    write_row(tmp_path, "1,0,1,0,0,0,0,0")
    found = read_labels(Location(tmp_path))
    (note,) = found.notes
    assert told in note
    assert f"{UID}.json" in note
    assert labels_in(tmp_path)["C2"] == 1  # what was there before stays


def test_a_half_written_file_is_left_alone_until_it_is_whole(tmp_path: Path) -> None:
    path = write_note(tmp_path)
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    found = read_labels(Location(tmp_path))
    assert found.table.empty
    assert "1 label files cannot be used" in found.notes[0]
    path.write_text(text)
    assert labels_in(tmp_path)["C4"] == 1


def test_a_name_that_is_no_study_is_not_repeated(tmp_path: Path) -> None:
    write_note(tmp_path).rename(tmp_path / "labels" / "Jane Doe.json")
    (message,) = read_label_notes(Location(tmp_path)).messages
    assert "Jane" not in message


def test_a_file_wins_over_a_row_wherever_it_lies(tmp_path: Path) -> None:
    source, inbox = tmp_path / "source", tmp_path / "inbox"
    write_row(source, "1,0,1,0,0,0,0,0")
    write_note(inbox, labels={**WHOLE, "C7": 1})
    assert labels_in(source, inbox)["C7"] == 1
    assert labels_in(inbox, source)["C7"] == 1


def test_the_newest_file_wins_and_the_first_source_among_equals(tmp_path: Path) -> None:
    source, inbox = tmp_path / "source", tmp_path / "inbox"
    write_note(source, labels={**WHOLE, "C1": 1}, date="2026-01-05")
    write_note(inbox, labels={**WHOLE, "C2": 1}, date="2026-01-05")
    assert labels_in(source, inbox)["C1"] == 1
    assert labels_in(inbox, source)["C2"] == 1
    write_note(inbox, labels={**WHOLE, "C2": 1}, date="2026-01-06")
    assert labels_in(source, inbox)["C2"] == 1


def test_a_withdrawn_study_has_no_labels(tmp_path: Path) -> None:
    write_row(tmp_path / "source", "1,0,1,0,0,0,0,0")
    write_note(tmp_path / "inbox", labels={}, withdrawn="consent taken back")
    places = [Location(tmp_path / "source"), Location(tmp_path / "inbox")]
    assert read_all_labels(places).table.empty


def record(folder: Path, store: Path) -> list[str]:
    """Record what a source says; return what each version says is fractured."""
    history = LabelHistory(Location(store))
    history.record(history.read_labels([Location(folder)]))
    return [
        ",".join(n for n in LEVEL_NAMES if v.labels[n] == 1) or v.origin
        for v in history.versions(UID)
    ]


def test_corrections_are_versions_and_repetitions_are_none(tmp_path: Path) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    write_row(source, "1,0,1,0,0,0,0,0")
    assert record(source, store) == ["C2"]
    assert record(source, store) == ["C2"]
    write_note(source)
    assert record(source, store) == ["C2", "C4"]
    write_note(source, reader="another", date="2026-02-01")
    assert record(source, store) == ["C2", "C4"]  # the same said by another
    write_note(source, labels={**WHOLE, "C2": 1}, date="2026-02-02")
    assert record(source, store) == ["C2", "C4", "C2"]
    third = LabelHistory(Location(store)).versions(UID)[2]
    second = LabelHistory(Location(store)).versions(UID)[1]
    assert third.changes_from(second) == {"C2": "0 to 1", "C4": "1 to 0"}
    assert (second.reader, second.date, second.origin) == ("AB", "2026-01-05", "file")


def test_a_file_that_is_written_anew_loses_no_label_meanwhile(tmp_path: Path) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    write_row(source, "1,0,1,0,0,0,0,0")
    path = write_note(source)
    assert record(source, store) == ["C4"]
    path.write_text(path.read_text()[:40])
    assert record(source, store) == ["C4"]  # neither the row's, nor none
    found = LabelHistory(Location(store)).read_labels([Location(source)])
    assert found.table.loc[UID, "C4"] == 1
    write_note(source, labels={**WHOLE, "C1": 1})
    assert record(source, store) == ["C4", "C1"]


def test_labels_that_are_gone_stay_on_record_and_nulls_take_them_back(
    tmp_path: Path,
) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    write_row(source, ",,,,,,,")
    assert record(source, store) == []
    write_row(source, "1,0,1,0,0,0,0,0")
    assert record(source, store) == ["C2"]
    path = write_note(source)
    assert record(source, store) == ["C2", "C4"]
    path.unlink()  # the inbox is cleared; the row is older than the correction
    assert record(source, store) == ["C2", "C4"]
    (source / "train.csv").unlink()
    assert record(source, store) == ["C2", "C4"]
    table = LabelHistory(Location(store)).read_labels([Location(source)]).table
    assert table.loc[UID, "C4"] == 1
    write_note(source, labels=dict.fromkeys(LEVEL_NAMES), date="2026-02-01")
    assert record(source, store) == ["C2", "C4", "file"]
    table = LabelHistory(Location(store)).read_labels([Location(source)]).table
    assert table.loc[UID].isna().all()


def test_a_correction_that_is_dated_before_the_record_does_not_count(
    tmp_path: Path,
) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    write_note(source, date="2026-02-01")
    record(source, store)
    write_note(source, labels={**WHOLE, "C1": 1}, date="2026-01-31")
    assert record(source, store) == ["C4"]


@pytest.mark.parametrize("left", [1, 2, 8, 20])
def test_a_row_that_is_still_being_written_is_left_alone(
    tmp_path: Path, left: int
) -> None:
    rows = f"{LABEL_HEADER}1.2.3,1,0,1,0,0,0,0,0\n1.2.4,1,0,1,0,0,0,0,0"
    (tmp_path / "train.csv").write_text(rows)
    assert len(read_labels(Location(tmp_path)).table) == 2  # whole, without an end
    (tmp_path / "train.csv").write_text(rows[: len(rows) - left])
    table = read_labels(Location(tmp_path)).table
    assert table.loc["1.2.3"].notna().all()
    assert "1.2.4" not in table.index


@pytest.mark.parametrize("note", [{"slices": 9}, {"withdrawn": "consent taken back"}])
def test_a_file_without_labels_needs_no_reader(
    tmp_path: Path, note: dict[str, Any]
) -> None:
    write_row(tmp_path, "1,0,1,0,0,0,0,0")
    path = tmp_path / "labels" / f"{UID}.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"study_uid": UID, **note}))
    (found,) = read_label_notes(Location(tmp_path)).notes.values()
    assert (found.reader, found.date, found.labels) == (None, None, {})
    table = read_labels(Location(tmp_path)).table
    assert len(table) == ("slices" in note)  # the row's labels count, unless withdrawn


def test_a_study_is_dropped_alone(tmp_path: Path) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    write_note(source)
    write_note(source, uid="1.2.3")
    record(source, store)
    history = LabelHistory(Location(store))
    history.drop_study(UID)
    assert (len(history.versions(UID)), len(history.versions("1.2.3"))) == (0, 1)
    history.record(read_all_labels([Location(source)], [UID]))
    assert history.versions(UID) == []


def test_two_writers_lose_no_version(tmp_path: Path) -> None:
    """Both have read what was recorded before either writes."""
    history = LabelHistory(Location(tmp_path / "store"))
    tables = []
    for level in ("C2", "C5"):
        write_note(tmp_path / level, labels={**WHOLE, level: 1})
        tables.append(read_all_labels([Location(tmp_path / level)]))
    seen = [history.newest(), history.newest()]
    for labels, known in zip(tables, seen, strict=True):
        writer = LabelHistory(Location(tmp_path / "store"))
        writer.newest = lambda known=known: known  # type: ignore[method-assign]
        writer.record(labels)
    found = history.versions(UID)
    assert [version.version for version in found] == [1, 2]
    assert [v.labels["C2"] for v in found] == [1, 0]
    history.record(tables[1])
    assert len(history.versions(UID)) == 2


def test_versions_of_an_older_csfd_are_read(tmp_path: Path) -> None:
    history = LabelHistory(Location(tmp_path / "store"))
    write_note(tmp_path)
    labels = read_all_labels([Location(tmp_path)])
    history.record(labels)
    folder = tmp_path / "store" / "metadata"
    (part,) = (folder / "label_versions").iterdir()
    part.rename(folder / "label_versions.parquet")
    assert len(history.versions(UID)) == 1
    history.record(labels)
    assert len(history.versions(UID)) == 1
    history.drop_study(UID)
    assert history.versions(UID) == []


@pytest.mark.slow
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    readings=st.lists(
        st.one_of(st.none(), st.sampled_from(LEVEL_NAMES)), min_size=1, max_size=8
    )
)
def test_history_is_the_readings_without_repetitions(
    tmp_path_factory: pytest.TempPathFactory, readings: list[str | None]
) -> None:
    folder = tmp_path_factory.mktemp("history")
    found: list[str] = []
    for day, level in enumerate(readings, start=1):
        labels = {**WHOLE, level: 1} if level else WHOLE
        write_note(folder / "source", labels=labels, date=f"2026-01-{day:02d}")
        found = record(folder / "source", folder / "store")
    told = [level or "file" for level in readings]
    assert found == [value for value, _ in itertools.groupby(told)]
