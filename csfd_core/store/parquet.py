"""Parquet files with a JSON note in their footer.

Every per-study file of the store is such a file: columns per slice, and what holds for
the whole study under one key of the file metadata. The same input gives the same bytes.
"""

import io
import json
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from csfd_core.errors import StoreError
from csfd_core.store.locations import Location
from csfd_core.store.notes import Note

NoteT = TypeVar("NoteT", bound=Note)
_KEY: Final = b"csfd"
# Of files with images, so that a few slices can be read without the others. Tables of
# small columns, which are compressed, are one group: many cost more than their rows.
_ROWS_PER_GROUP: Final = 32


def write_parquet(
    location: Location,
    path: str,
    table: pa.Table,
    note: dict[str, Any],
    compression: str = "zstd",
) -> int:
    """Write a table and its note atomically.

    Returns:
        Size of the file in bytes.
    """
    content = parquet_bytes(table, note, compression)
    location.write(path, content)
    return len(content)


def parquet_bytes(
    table: pa.Table, note: dict[str, Any], compression: str = "zstd"
) -> bytes:
    """Return a table and its note as a file."""
    text = json.dumps(note, sort_keys=True, separators=(",", ":"))
    sink = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata({_KEY: text.encode()}),
        sink,
        compression=compression,
        row_group_size=_ROWS_PER_GROUP if compression == "none" else None,
        write_statistics=False,
        use_dictionary=False,
    )
    return sink.getvalue()


def read_parquet(
    location: Location, path: str, columns: Sequence[str] | None = None
) -> tuple[pa.Table, dict[str, Any]]:
    """Read a table, or some of its columns, and its note.

    Raises:
        SourceError: If the file is absent.
        StoreError: If it is no such file.
    """
    with _open(location, path) as file:
        table = file.read(columns=None if columns is None else list(columns))
        return table, _note(file, location, path)


def read_rows(
    location: Location, path: str, start: int, stop: int
) -> tuple[pa.Table, dict[str, Any]]:
    """Read the rows from ``start`` to before ``stop``, and the note."""
    with _open(location, path) as file:
        groups = range(start // _ROWS_PER_GROUP, -(-stop // _ROWS_PER_GROUP))
        table = file.read_row_groups(list(groups))
        skip = start - groups.start * _ROWS_PER_GROUP
        return table.slice(skip, stop - start), _note(file, location, path)


def read_note(location: Location, path: str) -> dict[str, Any]:
    """Read the note of a file without its rows."""
    with _open(location, path) as file:
        return _note(file, location, path)


def read_note_of(location: Location, path: str, kind: type[NoteT]) -> NoteT | None:
    """Read the note of a file as what it is; ``None`` where there is no such file.

    Raises:
        StoreError: If it is no such note.
    """
    if not location.exists(path):
        return None
    return kind.read(read_note(location, path), f"{location}/{path}")


def _open(location: Location, path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(location.open(path))
    except pa.ArrowInvalid as error:
        raise StoreError(
            f"{location}/{path} is no Parquet file. Remove it and convert the study "
            "again."
        ) from error


def _note(file: pq.ParquetFile, location: Location, path: str) -> dict[str, Any]:
    metadata = file.schema_arrow.metadata or {}
    if _KEY not in metadata:
        raise StoreError(
            f"{location}/{path} was not written by csfd: its footer has no note. "
            "Remove it and convert the study again."
        )
    note = json.loads(metadata[_KEY])
    return dict(note)
