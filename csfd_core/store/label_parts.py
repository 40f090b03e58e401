"""The files of label versions: facts that several writers add, and none rewrites.

``metadata/label_versions/<digest>.parquet`` holds what was recorded at once, one row
per study, and is named by what it says: two writers of the same write one file. A file
is never changed. Where a study is taken out, or many files become one, the new file is
there before the old ones go; so a reader that looks until it finds nothing new has
missed nothing, whatever is written meanwhile.

A withdrawal is noted in the store before it looks for files, and who adds a file looks
for withdrawals afterwards: one of the two sees the other.
"""

import functools
import hashlib
import io
import json
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from csfd_core.errors import SourceError
from csfd_core.store import paths
from csfd_core.store.locations import FileEntry, Location
from csfd_core.store.parquet import write_parquet
from csfd_core.store.withdrawn import WithdrawnStore
from csfd_core.vocabulary import LABEL_COLUMNS

RECORDED_AT: Final = "recorded_at"
SCHEMA: Final = pa.schema(
    [
        ("study_uid", pa.string()),
        ("version", pa.int64()),
        *((name, pa.int8()) for name in LABEL_COLUMNS),
        ("origin", pa.string()),
        ("reader", pa.string()),
        ("date", pa.string()),
        ("signed_at", pa.string()),
        (RECORDED_AT, pa.string()),
    ]
)
_SAID: Final = [name for name in SCHEMA.names if name != RECORDED_AT]
_READERS: Final = 16  # reading small files waits for the disk or the network
_MOST_PARTS: Final = 64  # files; more become one
_CACHED_PARTS: Final = 2 * _MOST_PARTS  # in memory; each is read once

Row = dict[str, Any]


class LabelParts:
    """The files of label versions of one store."""

    def __init__(self, location: Location) -> None:
        """Take the root of the store."""
        self._location = location

    def rows(self) -> list[Row]:
        """Return all facts, each once, as the rows of ``SCHEMA``, in no order.

        Raises:
            SourceError: If they cannot be read.
        """
        rows: list[Row] = _joined(self._read().values()).to_pylist()
        return rows

    def add(self, rows: list[Row]) -> None:
        """Add facts; then take out what was withdrawn, here or meanwhile."""
        if rows:
            self._write(pa.Table.from_pylist(rows, schema=SCHEMA))
            self._merge()
        self.take_out()

    def take_out(self, *study_uids: str) -> None:
        """Remove all facts of studies, and of every one that was withdrawn."""
        while True:
            gone = WithdrawnStore(self._location).study_uids() | {*study_uids}
            affected = {
                path: table for path, table in self._read().items() if _has(table, gone)
            }
            if not affected:
                return
            for path, table in affected.items():
                remaining = table.filter(pc.invert(_is_in(table, gone)))
                if remaining.num_rows:
                    self._write(remaining)
                self._location.remove(path)

    def _merge(self) -> None:
        """Let many files become one; that of an older csfd, too."""
        parts = self._read()
        if len(parts) <= _MOST_PARTS and paths.OLD_LABEL_VERSIONS not in parts:
            return
        merged = self._write(_joined(parts.values()))
        for path in parts:
            if path != merged:
                self._location.remove(path)

    def _write(self, table: pa.Table) -> str:
        """Write a file unless it is there; return its path."""
        table = table.sort_by([(name, "ascending") for name in SCHEMA.names])
        said = json.dumps(table.select(_SAID).to_pylist()).encode()
        digest = hashlib.sha256(said).hexdigest()[:32]
        path = f"{paths.LABEL_VERSIONS}/{digest}.parquet"
        if not self._location.exists(path):
            write_parquet(self._location, path, table, {})
        return path

    def _read(self) -> dict[str, pa.Table]:
        """Read every file; what others write or merge meanwhile, too."""
        by_path: dict[str, pa.Table | None] = {}
        with ThreadPoolExecutor(_READERS) as pool:
            while new := [one for one in self._entries() if one.path not in by_path]:
                tables = pool.map(self._read_part, new)
                by_path |= {e.path: t for e, t in zip(new, tables, strict=True)}
        return {path: table for path, table in by_path.items() if table is not None}

    def _entries(self) -> list[FileEntry]:
        entries = self._location.entries(paths.LABEL_VERSIONS)
        if self._location.exists(paths.OLD_LABEL_VERSIONS):
            old = FileEntry(path=paths.OLD_LABEL_VERSIONS, size_bytes=0, token="")
            return [old, *entries]
        return entries

    def _read_part(self, entry: FileEntry) -> pa.Table | None:
        """Read a file; ``None`` where it has just gone: what took its place is new."""
        try:
            if not entry.token:
                return _read_table(self._location.url, entry.path)
            return _read_cached(self._location.url, entry.path, entry.token)
        except SourceError:
            if self._location.exists(entry.path):
                raise
            return None


@functools.lru_cache(maxsize=_CACHED_PARTS)
def _read_cached(url: str, path: str, _token: str) -> pa.Table:
    """Read a file, unless it was read; the token changes with it."""
    return _read_table(url, path)


def _read_table(url: str, path: str) -> pa.Table:
    """Read a file as it is written now; older ones know days alone."""
    table = pq.read_table(io.BytesIO(Location(url).read(path)))
    for field in SCHEMA:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(SCHEMA.names).cast(SCHEMA)


def _joined(tables: Collection[pa.Table]) -> pa.Table:
    """Return every fact once, as it was recorded first."""
    if not tables:
        return SCHEMA.empty_table()
    groups = pa.concat_tables(tables).group_by(_SAID, use_threads=False)
    first = groups.aggregate([(RECORDED_AT, "min")])
    return first.rename_columns([*_SAID, RECORDED_AT]).select(SCHEMA.names).cast(SCHEMA)


def _has(table: pa.Table, study_uids: Collection[str]) -> bool:
    return bool(pc.any(_is_in(table, study_uids)).as_py())


def _is_in(table: pa.Table, study_uids: Collection[str]) -> pa.ChunkedArray:
    wanted = pa.array(sorted(study_uids), pa.string())
    return pc.is_in(table["study_uid"], value_set=wanted)
