"""A store and its sources go to S3 and come back, and nothing is made anew."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.command import csfd_here
from support.dicom_studies import STUDY_UID
from support.moved_places import (
    UIDS,
    Places,
    convert,
    due,
    known_by,
    make,
    places_in,
    write_places,
)
from support.s3_bucket import Bucket

from csfd_core.errors import SourceError
from csfd_core.ingest import files
from csfd_core.store import moving, streams
from csfd_core.store.locations import Location

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Places:
    """Three places that nobody changes."""
    return write_places(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def known(made: Places) -> dict[str, Any]:
    assert due(made) == {}
    return known_by(made)


@pytest.fixture
def remote(bucket: Bucket) -> Places:
    return places_in(bucket.url("csfd"))


def move_all(places: Places, there: Places) -> None:
    for origin, target in places.pairs(there):
        done = csfd_here("move", origin, target)
        assert done.returncode == 0, done.stderr
        assert "all of them as they were" in done.stdout


def contents(folder: str | Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and ".csfd" not in path.parts
    }


def made_parts(places: Places) -> dict[str, str]:
    """Slices, masks and crops, byte by byte."""
    found = contents(places.store)
    made = ("slices/", "masks/", "crops/", "metadata/slices/")
    return {name: digest for name, digest in found.items() if name.startswith(made)}


def touch(folder: str | Path) -> None:
    for path in Path(folder).rglob("*"):
        if path.is_file() and ".csfd" not in path.parts:
            os.utime(path, (7, 7))


def test_from_a_folder_to_s3_and_back(
    made: Places,
    known: dict[str, Any],
    remote: Places,
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files, "BEGINNING_BYTES", 4096)  # of slices of 9 KB
    move_all(made, remote)
    assert known_by(remote) == known
    assert due(remote) == {}
    for name, place in (("source", made.source), ("store", made.store)):
        objects = {
            key.removeprefix(f"csfd/{name}/"): etag.strip('"')
            for key, (etag, _) in bucket.objects(f"csfd/{name}/").items()
            if "/.csfd/" not in key
        }
        assert objects == contents(place)  # the ETag of one PUT is the MD5
    before = bucket.objects("csfd/store")
    assert convert(remote) == ["unchanged"] * len(UIDS)
    assert bucket.objects("csfd/store") == before

    move_all(remote, back := places_in(tmp_path / "back"))
    assert known_by(back) == known
    assert due(back) == {}
    for origin, target in made.pairs(back):
        assert contents(target) == contents(origin)
    touch(back.source)
    touch(back.inbox)
    assert set(due(back)["conversion"]) == set(UIDS)
    parts = made_parts(back)
    assert convert(back) == ["unchanged"] * len(UIDS)
    assert due(back) == {}
    assert made_parts(back) == parts


@pytest.fixture
def born(made: Places, bucket: Bucket) -> Places:
    """A source and a store that were on S3 from the beginning."""
    places = places_in(bucket.url("born"))
    bucket.upload(Path(made.source), "born/source")
    bucket.upload(Path(made.inbox), "born/inbox")
    make(places)
    return places


def test_from_s3_to_a_folder_and_on_and_back(
    born: Places, bucket: Bucket, tmp_path: Path
) -> None:
    assert due(born) == {}
    known = known_by(born)
    move_all(born, here := places_in(tmp_path / "here"))
    assert known_by(here) == known
    assert due(here) == {}
    # Whatever is touched is read again, and known by its content.
    touch(here.source)
    touch(here.inbox)
    parts = made_parts(here)
    assert convert(here) == ["unchanged"] * len(UIDS)
    assert due(here) == {}
    assert made_parts(here) == parts
    again = known_by(here)
    assert again["read again"] == known["read again"]
    assert again["labels"] == known["labels"]
    # And all of that is handed on.
    move_all(here, last := places_in(tmp_path / "last"))
    assert known_by(last) == again
    move_all(last, back := places_in(bucket.url("back")))
    assert known_by(back) == again
    assert due(back) == {}


def test_without_what_is_kept_of_the_move_everything_is_due(
    born: Places, tmp_path: Path
) -> None:
    move_all(born, here := places_in(tmp_path / "here"))
    for place in (here.source, here.inbox):
        shutil.rmtree(Path(place) / ".csfd")
    told = due(here)
    assert set(told["conversion"]) == set(UIDS)
    assert told["table"]
    assert convert(here) == ["written"] * len(UIDS)


def test_an_object_that_is_another_by_now_is_taken_for_what_it_is(
    made: Places, remote: Places, bucket: Bucket
) -> None:
    move_all(made, remote)
    key = f"csfd/source/train_images/{STUDY_UID}/3.dcm"
    raw = bytearray(bucket.get(key))
    bucket.put(key, bytes(raw))  # the same once more is no change
    assert due(remote) == {}
    raw[-5] ^= 1
    bucket.put(key, bytes(raw))
    assert due(remote)["conversion"] == [STUDY_UID]
    assert convert(remote) == ["written", "unchanged", "unchanged"]


def test_a_large_file_goes_in_parts_and_comes_back(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BLOCK_BYTES", 5 * 2**20)
    here = tmp_path / "store"
    (here / "models").mkdir(parents=True)
    (here / "store.json").write_text('{"profile": "demo"}')
    (here / "models" / "weights.npz").write_bytes(os.urandom(11 * 2**20))
    (here / "models" / "empty").touch()
    read_back = []
    whole = moving._xxh3_of
    monkeypatch.setattr(
        moving, "_xxh3_of", lambda *of: read_back.append(of) or whole(*of)
    )
    done = csfd_here("move", here, bucket.url("store"), "--remove")
    assert done.returncode == 0, done.stderr
    assert not here.exists()
    assert not read_back  # the ETag tells that it is whole
    assert bucket.objects()["store/models/weights.npz"][0].strip('"')[-2:] == "-3"
    assert bucket.unfinished_uploads() == []
    expected = bucket.get("store/models/weights.npz")
    done = csfd_here("move", bucket.url("store"), tmp_path / "back", "--remove")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back" / "models" / "weights.npz").read_bytes() == expected
    assert (tmp_path / "back" / "models" / "empty").read_bytes() == b""
    assert bucket.objects() == {}


def test_a_large_file_that_cannot_be_read_to_its_end_leaves_nothing(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BLOCK_BYTES", 5 * 2**20)

    def blocks() -> Iterator[bytes]:
        yield from [bytes(5 * 2**20)] * 2
        raise SourceError("lost")

    with pytest.raises(SourceError, match="lost"):
        Location(bucket.url("store")).write_blocks("large", blocks())
    assert bucket.objects() == {}
    assert bucket.unfinished_uploads() == []


def test_a_move_to_s3_that_was_cut_off_goes_on(
    made: Places, remote: Places, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, done = moving._copy, []

    def copy(planned: Any, entry: Any, told: Any) -> Any:
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(entry.path)
        return whole(planned, entry, told)

    monkeypatch.setattr(moving, "_THREADS", 1)
    monkeypatch.setattr(moving, "_copy", copy)
    cut = csfd_here("move", made.store, remote.store)
    assert cut.returncode == 130
    assert "Run the same command again to go on." in cut.stderr
    refused = csfd_here("convert", made.source, remote.store)
    assert refused.returncode == 1
    assert "was not finished" in refused.stderr
    assert "csfd/store/store.json" not in bucket.objects()
    before = {
        key: found for key, found in bucket.objects().items() if "/.csfd/" not in key
    }
    assert len(before) == 5
    monkeypatch.setattr(moving, "_copy", whole)
    assert csfd_here("move", made.store, remote.store).returncode == 0
    after = bucket.objects()
    assert {key: after[key] for key in before} == before


def test_a_bucket_that_is_not_there_is_named(made: Places) -> None:
    told = csfd_here("move", made.store, "s3://csfd-is-not-there/store")
    assert told.returncode == 1
    assert "s3://csfd-is-not-there/store" in told.stderr
    assert "Traceback" not in told.stderr
