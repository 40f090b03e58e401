"""A store and its sources are moved: what they are known by stays what it was."""

import errno
import hashlib
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from support.command import csfd_here
from support.dicom_studies import SLICES, STUDY_UID
from support.moved_places import (
    UIDS,
    Places,
    convert,
    due,
    known_by,
    places_in,
    write_places,
)
from support.once import made_once

from csfd_core.errors import CsfdError, SettingsError, SourceError
from csfd_core.store import moving, streams
from csfd_core.store.journal import Copied
from csfd_core.store.locations import Location
from csfd_core.store.record import read_record

IMAGES = f"train_images/{STUDY_UID}"


@pytest.fixture
def places(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Places:
    """Places of one's own, with the times that their files were written at."""
    made = made_once(tmp_path_factory, "places", write_places)
    shutil.copytree(made, tmp_path / "here")
    return places_in(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> Places:
    return places_in(tmp_path / "there")


@pytest.fixture
def no_times(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, a disk keeps no time that it is told."""
    monkeypatch.setattr(streams.os, "utime", lambda *_, **__: None)


def move(origin: str | Path, target: str | Path) -> None:
    planned = moving.plan_move(Location(origin), Location(target))
    moving.copy_files(planned, lambda _: None)
    moving.finish_move(planned)


def move_all(places: Places, there: Places) -> None:
    for origin, target in places.pairs(there):
        move(origin, target)


def contents(folder: str | Path) -> dict[str, str]:
    """Every file but those of the move."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and ".csfd" not in path.parts
    }


def test_nothing_is_due_before_anything_is_moved(places: Places) -> None:
    assert due(places) == {}
    assert len(known_by(places)["label history"][STUDY_UID]) == 2


def test_everything_is_known_by_what_it_was(places: Places, there: Places) -> None:
    before = known_by(places)
    move_all(places, there)
    assert known_by(there) == before
    assert due(there) == {}
    for origin, target in places.pairs(there):
        assert contents(target) == contents(origin)


@pytest.mark.usefixtures("no_times")
def test_other_times_of_files_are_made_up_for(places: Places, there: Places) -> None:
    before = known_by(places)
    move_all(places, there)
    assert {p.stat().st_mtime for p in Path(there.source).rglob("*.dcm")}.isdisjoint(
        p.stat().st_mtime for p in Path(places.source).rglob("*.dcm")
    )
    assert known_by(there) == before
    assert due(there) == {}
    assert convert(there) == ["unchanged"] * len(UIDS)


@pytest.mark.usefixtures("no_times")
def test_without_what_is_kept_of_the_move_everything_is_due(
    places: Places, there: Places
) -> None:
    """As it was before there was ``csfd move``: so the tests above can fail."""
    move_all(places, there)
    for _, target in places.pairs(there):
        shutil.rmtree(Path(target) / ".csfd")
    told = due(there)
    assert set(told["conversion"]) == set(UIDS)
    assert told["table"]
    assert told["manifest"]


@pytest.mark.usefixtures("no_times")
def test_a_file_that_is_another_by_now_is_taken_for_what_it_is(
    places: Places, there: Places
) -> None:
    move_all(places, there)
    path = Path(there.source) / IMAGES / "3.dcm"
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)
    assert due(there)["conversion"] == [STUDY_UID]
    assert convert(there) == ["written", "unchanged", "unchanged"]


@pytest.mark.usefixtures("no_times")
def test_the_next_move_hands_on_what_the_first_has_kept(
    places: Places, there: Places, tmp_path: Path
) -> None:
    before = known_by(places)
    move_all(places, there)
    move_all(there, last := places_in(tmp_path / "last"))
    assert known_by(last) == before


@pytest.mark.parametrize("error", [SourceError, KeyboardInterrupt])
def test_a_move_that_was_cut_off_goes_on_where_it_stopped(
    places: Places,
    there: Places,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    whole, done = moving._copy, []

    def copy(
        planned: moving.Move, entry: moving.FileEntry, told: moving.OnBytes
    ) -> Copied:
        if len(done) == 5:
            raise error("cut")
        done.append(entry.path)
        return whole(planned, entry, told)

    monkeypatch.setattr(moving, "_THREADS", 1)
    monkeypatch.setattr(moving, "_copy", copy)
    with pytest.raises(error, match="cut"):
        move(places.store, there.store)
    assert not (Path(there.store) / "store.json").exists()
    for look in (
        there.stores.metadata.study_uids,
        lambda: read_record(there.stores.root),
    ):
        with pytest.raises(SourceError, match="move from .* was not finished"):
            look()
    again: list[str] = []
    monkeypatch.setattr(
        moving,
        "_copy",
        lambda planned, entry, told: (
            again.append(entry.path) or whole(planned, entry, told)
        ),
    )
    move(places.store, there.store)
    assert sorted([*done, *again]) == sorted(contents(places.store))
    assert contents(there.store) == contents(places.store)
    assert not list((Path(there.store) / ".csfd").rglob("*.jsonl"))


def test_an_origin_that_changes_meanwhile_is_not_passed_off_as_moved(
    places: Places, there: Places
) -> None:
    origin, target = Location(places.source), Location(there.source)
    planned = moving.plan_move(origin, target)
    moving.copy_files(planned, lambda _: None)
    folder = Path(places.source) / IMAGES
    (folder / "2.dcm").unlink()
    (folder / "3.dcm").write_bytes(b"other")
    with pytest.raises(SourceError, match="2 files have changed in"):
        moving.finish_move(planned)
    move(places.source, there.source)
    assert contents(there.source) == contents(places.source)


def test_a_file_that_is_damaged_on_the_way_is_found_and_copied_again(
    places: Places, there: Places
) -> None:
    planned = moving.plan_move(Location(places.source), Location(there.source))
    moving.copy_files(planned, lambda _: None)
    path = Path(there.source) / IMAGES / "2.dcm"
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)
    with pytest.raises(SourceError, match="1 file is not whole"):
        moving.finish_move(planned)
    move(places.source, there.source)
    assert contents(there.source) == contents(places.source)


def test_the_original_is_removed_only_where_all_of_it_is_there(
    places: Places, there: Places, tmp_path: Path
) -> None:
    expected = contents(places.store)
    done = csfd_here("move", places.store, there.store)
    assert done.returncode == 0, done.stderr
    assert Path(places.store).exists()
    late = Path(places.store) / "predictions" / "late.json"
    late.write_text("{}")
    for more in ((), ("--remove",)):
        told = csfd_here("move", places.store, there.store, *more)
        assert told.returncode == 1
        assert "1 file of " in told.stderr
    late.unlink()
    done = csfd_here("move", places.store, there.store, "--remove")
    assert done.returncode == 0, done.stderr
    assert not Path(places.store).exists()
    assert contents(there.store) == expected


@pytest.mark.usefixtures("no_times")
def test_a_removal_that_was_cut_off_goes_on(
    places: Places, there: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (Path(places.store) / "unknown").write_text("sorts behind the record")
    move(places.store, there.store)
    move(there.store, last := tmp_path / "last")
    whole, gone = moving._remove, []

    def remove(origin: Location, entry: moving.FileEntry) -> int | None:
        if len(gone) == 5:
            raise KeyboardInterrupt
        gone.append(entry.path)
        return whole(origin, entry)

    monkeypatch.setattr(moving, "_THREADS", 1)
    monkeypatch.setattr(moving, "_remove", remove)
    cut = csfd_here("move", there.store, last, "--remove")
    assert cut.returncode == 130
    assert gone[0] == "store.json"
    monkeypatch.setattr(moving, "_remove", whole)
    done = csfd_here("move", there.store, last, "--remove")
    assert done.returncode == 0, done.stderr
    assert not Path(there.store).exists()
    assert contents(last) == contents(places.store)


def test_what_links_lead_to_is_copied_and_not_removed(
    places: Places, there: Places, tmp_path: Path
) -> None:
    folder, elsewhere = Path(places.source) / IMAGES, tmp_path / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    done = csfd_here("move", places.source, there.source, "--remove")
    assert f"{SLICES} files lie outside of it" in done.stdout, done.stderr
    assert len(list(elsewhere.iterdir())) == SLICES
    assert len(list((Path(there.source) / IMAGES).iterdir())) == SLICES


REFUSED = {
    "same place": ("here/store", "here/../here/store", "are the same place"),
    "inside": ("here/store", "here/store/new", "one lies in the other"),
    "around": ("here/store", "here", "one lies in the other"),
    "neither": ("here/store/metadata", "new", "neither a store"),
    "nothing": ("absent", "new", "There is nothing in .*absent"),
    "not empty": ("here/store", "here/inbox", "holds .* already"),
}


@pytest.mark.parametrize(("origin", "target", "told"), REFUSED.values(), ids=REFUSED)
def test_places_that_are_none_of_a_move_are_refused(
    places: Places, tmp_path: Path, origin: str, target: str, told: str
) -> None:
    before = contents(tmp_path)
    with pytest.raises(SettingsError, match=told):
        move(tmp_path / origin, tmp_path / target)
    assert contents(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_a_target_of_another_move_is_refused(places: Places, there: Places) -> None:
    moving.plan_move(Location(places.source), Location(there.source))
    with pytest.raises(SettingsError, match="is being moved from .*source, not from"):
        move(places.store, there.source)


def test_a_disk_without_room_is_told_before_anything_is_copied(
    places: Places, there: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(moving.shutil, "disk_usage", lambda _: Usage(10**6))
    with pytest.raises(SourceError, match=r"room for 0\.0 GB"):
        move(places.store, there.store)


def test_a_disk_that_is_full_meanwhile_is_told(
    places: Places, there: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    planned = moving.plan_move(Location(places.store), Location(there.store))
    monkeypatch.setattr(streams, "write_local", write)
    told = "No space left on device.* Run the same command again to go on"
    with pytest.raises(SourceError, match=told):
        moving.copy_files(planned, lambda _: None)
    monkeypatch.undo()
    move(places.store, there.store)
    assert contents(there.store) == contents(places.store)


def test_no_message_repeats_the_name_of_a_file(places: Places, there: Places) -> None:
    (Path(places.source) / IMAGES / "Sensitive^Name.dcm").symlink_to("nowhere")
    with pytest.raises(CsfdError, match="file-[0-9a-f]{8}") as told:
        move(places.source, there.source)
    assert "Sensitive" not in str(told.value)


def test_the_folder_of_a_move_is_no_study(places: Places, there: Places) -> None:
    inbox = Path(places.inbox)
    shutil.rmtree(inbox / "train_images")
    move(inbox, there.inbox)
    assert Path(there.inbox, ".csfd", "moved.json").exists()
    assert [f.name for f in there.sources.studies()] == []
