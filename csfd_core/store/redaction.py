"""A withdrawn study's UID, and what takes its place in records that have to stay.

The stand-in is a UID of its own, made of a digest, so that what reads it goes on as
before. Whoever has the UID finds its records by it; nobody finds the UID by them.
"""

import hashlib
import io
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_TEXTS: Final = (
    ".json", ".jsonl", ".csv", ".html", ".txt", ".yaml", ".out", ".err",
)  # fmt: skip
_PARQUET: Final = ".parquet"
_BY_UUID: Final = "2.25."  # DICOM PS3.5 section B.2: a UID made of 128 bits
_BYTES: Final = 16


def stand_in_of(study_uid: str) -> str:
    """Return the UID that takes the place of a withdrawn study's."""
    digest = hashlib.sha256(study_uid.encode()).digest()
    return f"{_BY_UUID}{int.from_bytes(digest[:_BYTES])}"


def pattern_of(study_uid: str) -> re.Pattern[bytes]:
    """Return what matches a UID in a text, and none that begins or ends alike."""
    uid = re.escape(study_uid.encode())
    return re.compile(rb"(?<![0-9.])" + uid + rb"(?!\.?[0-9])")


@dataclass(frozen=True)
class Redaction:
    """A study's UID, and what takes its place."""

    study_uid: str

    @cached_property
    def stand_in(self) -> str:
        """Return what takes its place."""
        return stand_in_of(self.study_uid)

    @cached_property
    def _pattern(self) -> re.Pattern[bytes]:
        return pattern_of(self.study_uid)

    def of_text(self, content: bytes) -> bytes:
        """Return a text with the stand-in."""
        return self._pattern.sub(self.stand_in.encode(), content)

    @staticmethod
    def can_change(path: str) -> bool:
        """Say whether a file is one that may name studies: text or Parquet."""
        return PurePosixPath(path).suffix in (*_TEXTS, _PARQUET)

    def of_file(self, path: str, content: bytes) -> bytes:
        """Return a file's content with the stand-in, where it is text or Parquet."""
        if not self.can_change(path):
            return content
        is_table = PurePosixPath(path).suffix == _PARQUET
        return self._of_parquet(content) if is_table else self.of_text(content)

    def _of_parquet(self, content: bytes) -> bytes:
        before = pq.read_table(io.BytesIO(content))
        note = before.schema.metadata or {}
        table = before.replace_schema_metadata(
            {key: self.of_text(value) for key, value in note.items()}
        )
        for at, named in enumerate(table.schema):
            if pa.types.is_string(named.type):
                values = table.column(at)
                is_study = pc.equal(values, self.study_uid)
                table = table.set_column(
                    at, named, pc.if_else(is_study, self.stand_in, values)
                )
        if table.equals(before, check_metadata=True):
            return content
        sink = io.BytesIO()
        pq.write_table(
            table,
            sink,
            compression="zstd",
            write_statistics=False,
            use_dictionary=False,
        )
        return sink.getvalue()
