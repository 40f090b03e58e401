"""Label files with a time and boxes: which count, and what follows from them."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csfd_core.ingest.plan import survey
from csfd_core.ingest.studies_table import label_inputs
from csfd_core.store.label_history import LabelHistory
from csfd_core.store.label_notes import LabelBox, read_label_notes
from csfd_core.store.labels import digest_labels, read_all_boxes, read_all_labels
from csfd_core.store.locations import Location
from csfd_core.store.parquet import read_parquet, write_parquet
from csfd_core.store.slices import ConversionSettings
from csfd_core.store.source import Source, Sources
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES

UID = "1.2.826.0.1.3680043.10"
WHOLE = dict.fromkeys(LEVEL_NAMES, 0)
BOX = {"level": "C4", "slice_number": 7, "x": 10.5, "y": 20, "width": 5, "height": 6}
BOXES_HEADER = "StudyInstanceUID,x,y,width,height,slice_number\n"
COLUMNS = ["x", "y", "width", "height", "slice_number"]


def write_note(folder: Path, uid: str = UID, **changes: Any) -> Path:
    note = {
        "study_uid": uid,
        "labels": {**WHOLE, "C4": 1},
        "reader": "AB",
        "signed_at": "2026-01-05T10:00:00+00:00",
        **changes,
    }
    path = folder / "labels" / f"{uid}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(note))
    return path


def fractured(*folders: Path) -> list[str]:
    table = read_all_labels([Location(folder) for folder in folders]).table
    return [name for name in LEVEL_NAMES if table.loc[UID, name] == 1]


def boxes_in(*folders: Path, without: tuple[str, ...] = ()) -> list[list[float]]:
    locations = [Location(folder) for folder in folders]
    table = read_all_boxes(locations, without).table
    own = table[table["study_uid"] == UID]
    return [[float(value) for value in row] for row in own[COLUMNS].to_numpy()]


def labels_version(folder: Path) -> str:
    stores = Stores(Location(folder / "store"))
    return label_inputs(stores, Sources([Source(folder)]))


def test_a_time_takes_the_place_of_the_date(tmp_path: Path) -> None:
    write_note(tmp_path, signed_at="2026-01-05T23:30:00-08:00")
    (note,) = read_label_notes(Location(tmp_path)).notes.values()
    assert note.date is not None
    assert note.date.isoformat() == "2026-01-05"  # where it was signed
    assert note.moment == datetime(2026, 1, 6, 7, 30, tzinfo=UTC)
    assert fractured(tmp_path) == ["C4"]


SOON = (datetime.now(UTC) + timedelta(hours=2)).isoformat()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"signed_at": "2026-01-05T10:00:00"}, "signed_at"),
        ({"signed_at": "2026-01-05"}, "signed_at"),
        ({"signed_at": 1767607200}, "signed_at"),
        ({"signed_at": "1767607200"}, "signed_at"),
        ({"signed_at": "0001-01-01T00:00:00+10:00"}, "of the year 1"),
        ({"signed_at": SOON}, "lies in the future"),
        ({"date": "2026-01-04"}, "is not the day"),
        ({"reader": None}, "need a `reader`"),
        ({"signed_at": None}, "`date` or `signed_at`"),
        ({"labels": {}, "boxes": [BOX], "slices": 3}, "`boxes` need `labels`"),
        ({"boxes": [{**BOX, "level": "C3"}]}, "C3, which is labelled 0"),
        ({"boxes": [{**BOX, "level": "T1"}]}, "boxes.0.level"),
        ({"boxes": [{**BOX, "width": 0}]}, "boxes.0.width"),
        ({"boxes": [{**BOX, "x": -1}]}, "boxes.0.x"),
        ({"boxes": [{**BOX, "x": float("nan")}]}, "boxes.0.x"),
        ({"boxes": [{**BOX, "height": float("inf")}]}, "boxes.0.height"),
        ({"boxes": [{**BOX, "y": "20"}]}, "boxes.0.y"),
        ({"boxes": [{**BOX, "x": 65000, "width": 600}]}, "beyond any slice"),
        ({"boxes": [{**BOX, "slice_number": 7.5}]}, "boxes.0.slice_number"),
        ({"boxes": [{**BOX, "slice_number": True}]}, "boxes.0.slice_number"),
        ({"boxes": [{**BOX, "slice_index": -1}]}, "boxes.0.slice_index"),
        ({"boxes": [{**BOX, "sop_instance_uid": "../x"}]}, "no valid UID"),
        ({"boxes": [{**BOX, "Jane Doe": 1}]}, "boxes.0.an unknown key"),
        ({"boxes": [BOX] * 201}, "boxes"),
        ({"boxes": {}}, "boxes"),
    ],
)
def test_a_time_or_box_that_cannot_be_meant_is_named(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    write_note(tmp_path, **changes)
    found = read_label_notes(Location(tmp_path))
    (message,) = found.messages
    assert told in message
    assert "Jane" not in message
    assert found.unusable == {UID}


def test_clocks_that_differ_a_little_are_no_future(tmp_path: Path) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=1)
    write_note(tmp_path, signed_at=soon.isoformat())
    assert fractured(tmp_path) == ["C4"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2026-01-05T09:00:00+00:00", "2026-01-05T09:00:00.000001+00:00"),
        ("2026-01-05T09:00:00+00:00", "2026-01-05T08:30:00-01:00"),
        ("2026-01-05T23:00:00+00:00", "2026-01-05T22:00:00-08:00"),
        ("2026-01-06T01:00:00+10:00", "2026-01-05T20:00:00+00:00"),
    ],
)
def test_of_one_day_the_later_signature_counts(
    tmp_path: Path, first: str, second: str
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    write_note(a, signed_at=first, labels={**WHOLE, "C1": 1})
    write_note(b, signed_at=second, labels={**WHOLE, "C2": 1})
    assert fractured(a, b) == fractured(b, a) == ["C2"]


def test_a_time_counts_before_the_same_day_alone(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    write_note(a, signed_at=None, date="2026-01-05", labels={**WHOLE, "C1": 1})
    write_note(b, labels={**WHOLE, "C2": 1})
    assert fractured(a, b) == ["C2"]
    write_note(a, signed_at=None, date="2026-01-06", labels={**WHOLE, "C1": 1})
    assert fractured(a, b) == ["C1"]


def test_boxes_of_a_label_file_replace_those_of_the_table(tmp_path: Path) -> None:
    source, inbox = tmp_path / "source", tmp_path / "inbox"
    source.mkdir()
    rows = f"{UID},1,2,3,4,5\n1.2.3,9,9,9,9,9\n"
    (source / "train_bounding_boxes.csv").write_text(BOXES_HEADER + rows)
    write_note(inbox)
    assert boxes_in(source, inbox) == [[1, 2, 3, 4, 5]]  # it tells nothing of boxes
    write_note(inbox, boxes=[BOX])
    assert boxes_in(source, inbox) == boxes_in(inbox, source) == [[10.5, 20, 5, 6, 7]]
    write_note(inbox, boxes=[])
    assert boxes_in(source, inbox) == []  # no place was found
    table = read_all_boxes([Location(source), Location(inbox)]).table
    assert table["study_uid"].tolist() == ["1.2.3"]


def test_boxes_count_in_the_order_of_the_labels(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    write_note(a, boxes=[BOX])
    write_note(b, boxes=[{**BOX, "x": 99}], signed_at="2026-01-05T10:00:01+00:00")
    assert boxes_in(a, b) == boxes_in(b, a) == [[99, 20, 5, 6, 7]]
    write_note(b, boxes=[{**BOX, "x": 99}])  # of the same moment: the first source
    assert boxes_in(a, b) == [[10.5, 20, 5, 6, 7]]


def test_boxes_of_withdrawn_studies_are_left_out(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    write_note(a, boxes=[BOX])
    assert boxes_in(a, without=(UID,)) == []
    (a / "train_bounding_boxes.csv").write_text(f"{BOXES_HEADER}{UID},1,2,3,4,5\n")
    write_note(b, labels={}, withdrawn="consent taken back")
    assert boxes_in(a, b) == []


def test_a_file_that_cannot_be_used_tells_no_boxes(tmp_path: Path) -> None:
    path = write_note(tmp_path, boxes=[BOX])
    path.write_text(path.read_text()[:-9])
    (tmp_path / "train_bounding_boxes.csv").write_text(
        f"{BOXES_HEADER}{UID},1,2,3,4,5\n"
    )
    assert boxes_in(tmp_path) == [[1, 2, 3, 4, 5]]


def test_a_second_signature_of_the_day_is_taken_up(tmp_path: Path) -> None:
    stores, sources = Stores(Location(tmp_path / "store")), Sources([Source(tmp_path)])
    images = tmp_path / "train_images" / UID
    images.mkdir(parents=True)
    (images / "1.dcm").write_bytes(b"a slice")

    def look() -> tuple[str, str]:
        found = survey(stores, sources, ConversionSettings(jpeg_quality=96))
        return found.labels_version, found.studies[UID].version

    write_note(tmp_path)
    first = look()
    assert look() == first
    write_note(tmp_path, signed_at="2026-01-05T10:00:01+00:00")
    second = look()
    assert second[0] != first[0]
    assert second[1] == first[1]  # the same was said again: nothing is to be made anew
    write_note(tmp_path, labels={**WHOLE, "C2": 1}, signed_at="2026-01-05T10:00:02Z")
    third = look()
    assert third[0] != second[0]
    assert third[1] != second[1]
    box = {**BOX, "level": "C2"}
    later: dict[str, Any] = {"signed_at": "2026-01-05T10:00:03Z", "boxes": [box]}
    write_note(tmp_path, labels={**WHOLE, "C2": 1}, **later)
    fourth = look()
    assert fourth[0] != third[0]
    assert fourth[1] != third[1]


def record(source: Path, store: Path) -> list[str]:
    history = LabelHistory(Location(store))
    history.record(history.read_labels([Location(source)]))
    return [
        ",".join(n for n in LEVEL_NAMES if v.labels[n] == 1) or v.origin
        for v in history.versions(UID)
    ]


def test_the_record_remembers_the_time(tmp_path: Path) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    write_note(source)
    assert record(source, store) == ["C4"]
    earlier: dict[str, Any] = {"signed_at": "2026-01-05T09:59:59Z", "labels": WHOLE}
    write_note(source, **earlier)
    assert record(source, store) == ["C4"]  # an older copy came back
    write_note(source, signed_at="2026-01-05T10:00:01+00:00", labels=WHOLE)
    assert record(source, store) == ["C4", "file"]
    newest = LabelHistory(Location(store)).versions(UID)[-1]
    assert newest.signed_at == "2026-01-05T10:00:01+00:00"
    assert newest.date == "2026-01-05"


def test_versions_that_know_days_alone_are_read(tmp_path: Path) -> None:
    """As csfd 0.2 has written them."""
    source, store = tmp_path / "source", Location(tmp_path / "store")
    write_note(source, signed_at=None, date="2026-01-05")
    record(source, tmp_path / "store")
    (entry,) = store.entries("metadata/label_versions")
    table, _ = read_parquet(store, entry.path)
    write_parquet(store, entry.path, table.drop_columns(["signed_at"]), {})
    (version,) = LabelHistory(store).versions(UID)
    assert (version.date, version.signed_at) == ("2026-01-05", None)
    write_note(source, labels=WHOLE)  # the same day, with a time
    assert record(source, tmp_path / "store") == ["C4", "file"]


LEVELS = st.sampled_from(LEVEL_NAMES)
NUMBERS = st.one_of(
    st.integers(0, 40_000), st.floats(-0.99, 40_000, allow_nan=False, width=64)
)
SIDES = st.floats(0.001, 20_000, allow_nan=False)
DRAWN = st.builds(
    LabelBox,
    level=LEVELS,
    slice_number=st.integers(-1000, 100_000),
    x=NUMBERS,
    y=NUMBERS,
    width=SIDES,
    height=SIDES,
    slice_index=st.none() | st.integers(0, 5000),
    sop_instance_uid=st.none() | st.just("1.2.3.4"),
)


@pytest.mark.slow
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    boxes=st.lists(DRAWN, max_size=12),
    labels=st.dictionaries(LEVELS, st.sampled_from([0, 1, None])),
    at=st.datetimes(
        datetime(1990, 1, 1), datetime(2026, 11, 1), timezones=st.just(UTC)
    ),
)
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    boxes: list[LabelBox],
    labels: dict[str, int | None],
    at: datetime,
) -> None:
    folder = tmp_path_factory.mktemp("signed")
    told = {**labels, **{box.level: 1 for box in boxes}, "C1": 1}
    write_note(
        folder,
        labels=told,
        signed_at=at.isoformat(),
        boxes=[box.to_json() for box in boxes],
    )
    (note,) = read_label_notes(Location(folder)).notes.values()
    assert note.boxes == tuple(boxes)
    assert note.signed_at == note.moment == at
    assert {name: note.labels[name] for name in told} == told
    expected = pd.DataFrame([[getattr(b, n) for n in COLUMNS] for b in boxes])
    assert boxes_in(folder) == expected.to_numpy(dtype=float).tolist()
    table = read_all_labels([Location(folder)]).table
    drawn = read_all_boxes([Location(folder)]).table
    plain = digest_labels(table, drawn.iloc[:0])
    assert (digest_labels(table, drawn) == plain) is (not boxes)
