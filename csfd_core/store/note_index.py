"""Notes of all studies, of which only those of new and changed files are read.

The note of a study stands in the footer of its file. To read the footers of 100,000
files takes minutes on a disk, and most of an hour on S3. So what was read of them is
kept beside each other, in segments below ``metadata/notes/<folder>/``: name, size and
token of a file, and its note. A note counts as long as the listing says the same of its
file. Whoever removes segments loses time and nothing else.

A segment is named by its content and never changed: two writers at once lose nothing,
and a reader that comes while segments are joined reads some footers once more.
"""

import hashlib
import io
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from csfd_core.errors import SourceError
from csfd_core.store import paths
from csfd_core.store.entries import FileEntry
from csfd_core.store.locations import Location
from csfd_core.store.notes import Note
from csfd_core.store.parquet import read_note

_READERS: Final = 16  # reading footers waits for the disk or the network
_MOST_SEGMENTS: Final = 8
_LEAST: Final = 64  # notes of a folder; fewer are read as fast as they are looked up
_SETTLES_S: Final = 5.0  # a file so young may change again within the same time stamp
_SCHEMA: Final = pa.schema(
    [
        ("name", pa.string()),
        ("size_bytes", pa.int64()),
        ("token", pa.string()),
        ("note", pa.string()),
    ]
)
Notes = dict[str, dict[str, Any]]
NoteT = TypeVar("NoteT", bound=Note)


def read_notes(location: Location, folder: str) -> Notes:
    """Return the notes of all studies that have a file in a folder.

    Args:
        location: The store.
        folder: Where there is one Parquet file per study, relative to the store.

    Returns:
        The notes by StudyInstanceUID, in its order.

    Raises:
        SourceError: If a file cannot be read.
        StoreError: If a file has no note.
    """
    entries = [e for e in location.entries(folder) if e.name.endswith(".parquet")]
    segments = _read_segments(location, folder) if len(entries) >= _LEAST else []
    segments = [_without_gone(location, folder, one, entries) for one in segments]
    valid = _valid_notes(segments, entries)
    unknown = [entry for entry in entries if entry.name not in valid]
    with ThreadPoolExecutor(_READERS) as pool:
        read = list(pool.map(lambda entry: _read(location, entry.path), unknown))
    told = {e.name: n for e, n in zip(unknown, read, strict=True) if n is not None}
    gone = {entry.name for entry in unknown} - set(told)
    unknown = [entry for entry in unknown if entry.name in told]
    if len(entries) >= _LEAST:
        _keep(location, folder, segments, [e for e in unknown if _is_settled(e)], told)
    return {
        entry.name.removesuffix(".parquet"): told[entry.name]
        if entry.name in told
        else json.loads(valid[entry.name])
        for entry in entries
        if entry.name not in gone
    }


def _read(location: Location, path: str) -> dict[str, Any] | None:
    """Read a note; ``None`` where its file has just gone, as of a withdrawn study."""
    try:
        return read_note(location, path)
    except (SourceError, FileNotFoundError):
        if location.exists(path):
            raise
        return None


def read_notes_of(
    location: Location, folder: str, kind: type[NoteT]
) -> dict[str, NoteT]:
    """Return the notes of all studies of a folder as what they are.

    Raises:
        StoreError: If one is no such note.
    """
    return {
        uid: kind.read(note, f"{location}/{folder}/{uid}.parquet")
        for uid, note in read_notes(location, folder).items()
    }


def drop_study(location: Location, study_uid: str) -> None:
    """Take a study out of all segments.

    Raises:
        IdentifierError: If ``study_uid`` is no valid UID.
    """
    for folder in paths.NOTED:
        name = paths.of_study(folder, study_uid).rpartition("/")[2]
        for segment in _read_segments(location, folder):
            remaining = segment.table.filter(pc.not_equal(segment.table["name"], name))
            if remaining.num_rows < segment.table.num_rows:
                _replaced(location, folder, segment, remaining)


@dataclass(frozen=True, slots=True)
class _Segment:
    path: str
    table: pa.Table


def _segment_folder(folder: str) -> str:
    return f"{paths.NOTE_SEGMENTS}/{folder.replace('/', '-')}"


def _read_segments(location: Location, folder: str) -> list[_Segment]:
    """Return the segments of a folder; one that is gone or damaged is left out."""
    segments = []
    for entry in location.entries(_segment_folder(folder)):
        try:
            table = pq.read_table(io.BytesIO(location.read(entry.path)))
            segments.append(_Segment(entry.path, table.cast(_SCHEMA)))
        except (SourceError, pa.ArrowException, ValueError):
            continue
    return segments


def _valid_notes(
    segments: Sequence[_Segment], entries: Sequence[FileEntry]
) -> dict[str, str]:
    """Return the notes, as JSON, that still are those of the listed files."""
    listed = {entry.name: (entry.size_bytes, entry.token) for entry in entries}
    notes = {}
    for segment in segments:
        columns = (segment.table[name].to_pylist() for name in _SCHEMA.names)
        for name, size_bytes, token, note in zip(*columns, strict=True):
            if listed.get(name) == (size_bytes, token):
                notes[name] = note
    return notes


def _without_gone(
    location: Location, folder: str, segment: _Segment, entries: Sequence[FileEntry]
) -> _Segment:
    """Take out of a segment what is no file any more, so that nothing outlives one."""
    names = pa.array([entry.name for entry in entries], pa.string())
    remaining = segment.table.filter(pc.is_in(segment.table["name"], names))
    if remaining.num_rows == segment.table.num_rows:
        return segment
    return _replaced(location, folder, segment, remaining)


def _replaced(
    location: Location, folder: str, segment: _Segment, remaining: pa.Table
) -> _Segment:
    new = _write(location, folder, remaining) if remaining.num_rows else segment
    location.remove(segment.path)
    return replace(new, table=remaining)


def _is_settled(entry: FileEntry) -> bool:
    """Say whether a file's token would tell of another change.

    A time stamp has steps: one that was written just now may be written again and look
    the same. What S3 tells is made of the content.
    """
    kind, _, value = entry.token.partition(":")
    if kind != "mtime":
        return True
    return abs(time.time() - float(value)) > _SETTLES_S


def _keep(
    location: Location,
    folder: str,
    segments: Sequence[_Segment],
    entries: Sequence[FileEntry],
    notes: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write what was read as a segment; join small ones where there are many."""
    if not entries:
        return
    new = pa.table(
        {
            "name": [entry.name for entry in entries],
            "size_bytes": [entry.size_bytes for entry in entries],
            "token": [entry.token for entry in entries],
            "note": [json.dumps(notes[entry.name]) for entry in entries],
        },
        schema=_SCHEMA,
    )
    joined = _to_join(segments, new.num_rows)
    _write(location, folder, pa.concat_tables([*(s.table for s in joined), new]))
    for segment in joined:
        location.remove(segment.path)


def _to_join(segments: Sequence[_Segment], rows: int) -> list[_Segment]:
    """Return what a new segment of so many rows is joined with.

    Nothing while there are few; then the small ones, and those that are not larger than
    all of these: a row is written again only when its segment has about doubled.
    """
    if len(segments) < _MOST_SEGMENTS:
        return []
    joined: list[_Segment] = []
    for segment in sorted(segments, key=lambda segment: segment.table.num_rows):
        if joined and segment.table.num_rows > rows:
            break
        joined.append(segment)
        rows += segment.table.num_rows
    return joined


def _write(location: Location, folder: str, table: pa.Table) -> _Segment:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_statistics=False)
    content = sink.getvalue()
    digest = hashlib.sha256(content).hexdigest()[:32]
    path = f"{_segment_folder(folder)}/{digest}.parquet"
    location.write(path, content)
    return _Segment(path, table)
