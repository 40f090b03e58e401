"""Notes of all studies: those of the footers, of which only changed ones are read."""

import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from csfd_core.errors import IdentifierError, StoreError
from csfd_core.store import note_index, paths
from csfd_core.store.locations import Location
from csfd_core.store.note_index import drop_study, read_notes
from csfd_core.store.parquet import read_note, write_parquet

FOLDER = paths.CROPS
MANY = note_index._LEAST
UIDS = [f"1.2.3.{1000 + number}" for number in range(MANY)]
LONG_AGO = time.time() - 3600


class Watched(Location):
    """A location that counts the footers which are opened."""

    opened: list[str]

    def open(self, path: str):  # type: ignore[no-untyped-def]
        self.opened.append(path)
        return super().open(path)


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    location = Watched(tmp_path)
    location.opened = []
    for number, uid in enumerate(UIDS):
        write(location, uid, number)
    return location


def write(location: Location, uid: str, value: object, at: float = LONG_AGO) -> None:
    path = f"{FOLDER}/{uid}.parquet"
    write_parquet(location, path, pa.table({"x": [1]}), {"value": value})
    os.utime(Path(location.url) / path, (at, at))


def by_footer(location: Location) -> dict[str, object]:
    """Return every note as its own footer says."""
    plain = Location(location.url)
    return {
        entry.name.removesuffix(".parquet"): read_note(plain, entry.path)
        for entry in plain.entries(FOLDER)
    }


def segments(location: Location) -> list[Path]:
    return sorted((Path(location.url) / paths.NOTE_SEGMENTS).rglob("*.parquet"))


def test_what_is_read_once_is_not_read_again(store: Watched) -> None:
    first = read_notes(store, FOLDER)
    assert first == by_footer(store)
    assert list(first) == UIDS
    assert len(store.opened) == MANY
    store.opened.clear()
    assert read_notes(store, FOLDER) == first
    assert store.opened == []


def test_only_new_and_changed_files_are_read(store: Watched) -> None:
    read_notes(store, FOLDER)
    store.opened.clear()
    write(store, UIDS[3], "another")
    write(store, UIDS[5], 5, at=LONG_AGO + 1)  # touched
    write(store, "1.2.9", "new")
    assert read_notes(store, FOLDER) == by_footer(store)
    assert sorted(Path(path).stem for path in store.opened) == sorted(
        [UIDS[3], UIDS[5], "1.2.9"]
    )


def test_a_young_file_is_read_anew_as_it_may_change_within_its_time_stamp(
    store: Watched,
) -> None:
    now = time.time()
    write(store, UIDS[0], "a", at=now)
    assert read_notes(store, FOLDER)[UIDS[0]] == {"value": "a"}
    write(store, UIDS[0], "b", at=now)  # of the same size, and at the same time
    assert read_notes(store, FOLDER)[UIDS[0]] == {"value": "b"}


def test_few_files_are_kept_nowhere(tmp_path: Path) -> None:
    location = Location(tmp_path)
    for uid in UIDS[: MANY - 1]:
        write(location, uid, uid)
    assert read_notes(location, FOLDER) == by_footer(location)
    assert segments(location) == []
    assert read_notes(location, "not there") == {}


def test_many_arrivals_make_few_segments_of_the_newest_notes(store: Watched) -> None:
    read_notes(store, FOLDER)
    rows = []
    for number in range(60):
        write(store, UIDS[number % 7], ["again", number], at=LONG_AGO + number + 1)
        assert read_notes(store, FOLDER) == by_footer(store)
        assert len(segments(store)) <= note_index._MOST_SEGMENTS
        rows.append(sum(pq.read_metadata(p).num_rows for p in segments(store)))
    assert max(rows) <= MANY + 60
    store.opened.clear()
    read_notes(store, FOLDER)
    assert store.opened == []


@pytest.mark.parametrize("damage", [b"", b"PAR1 no such thing", None])
def test_lost_and_damaged_segments_cost_time_alone(
    store: Watched, damage: bytes | None
) -> None:
    first = read_notes(store, FOLDER)
    for path in segments(store):
        path.unlink() if damage is None else path.write_bytes(damage)
    store.opened.clear()
    assert read_notes(store, FOLDER) == first
    assert len(store.opened) == MANY
    store.opened.clear()
    assert read_notes(store, FOLDER) == first
    assert store.opened == []


def test_a_damaged_file_is_told_with_its_remedy(store: Watched) -> None:
    (Path(store.url) / FOLDER / f"{UIDS[1]}.parquet").write_bytes(b"nothing")
    with pytest.raises(StoreError, match="convert the study again"):
        read_notes(store, FOLDER)


def test_a_study_that_is_dropped_is_in_no_segment(store: Watched) -> None:
    for number in range(3):  # three segments
        write(store, UIDS[number], "newer", at=LONG_AGO + 1)
        read_notes(store, FOLDER)
    assert len(segments(store)) > 1
    assert UIDS[1] in names(store)
    (Path(store.url) / FOLDER / f"{UIDS[1]}.parquet").unlink()
    drop_study(store, UIDS[1])
    assert names(store) == set(UIDS) - {UIDS[1]}
    with pytest.raises(IdentifierError):
        drop_study(store, "../x")


def test_what_is_no_file_any_more_leaves_the_segments_by_itself(store: Watched) -> None:
    read_notes(store, FOLDER)
    for uid in UIDS[:2]:
        (Path(store.url) / FOLDER / f"{uid}.parquet").unlink()
    write(store, UIDS[2], "more", at=LONG_AGO + 1)
    write(store, "1.2.9", "new")
    write(store, "1.2.10", "new")
    assert set(read_notes(store, FOLDER)) == names(store)
    assert not names(store) & set(UIDS[:2])


def names(location: Location) -> set[str]:
    """Return the studies that any segment names."""
    found = set()
    for path in segments(location):
        for name in pq.read_table(path)["name"].to_pylist():
            found.add(name.removesuffix(".parquet"))
    return found
