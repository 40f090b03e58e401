"""What stays of a move: where files come from, and what they were called there.

A file is known by the token of its listing and, once it was read, by the digest of its
content; both are others on S3 than on a disk. So whoever moves files keeps beside them
what they were known by, in the hidden folder ``.csfd``, and every listing
(``Location``) goes on telling that as long as a file lies there as the move has left
it. Nothing else has to know that anything was moved.

``moved.json`` says where the files come from and whether all of them are there;
``identities-<digest>.parquet`` has a row for each file that is not known by what a
listing of this place would tell.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic

from csfd_core.errors import SourceError

HIDDEN: Final = ".csfd"  # not listed
RECORD: Final = f"{HIDDEN}/moved.json"
JOURNAL: Final = f"{HIDDEN}/journal"  # while it is being moved
ETAG: Final = "etag:"  # before a token of S3, which changes with the content alone

Kind = Literal["store", "source"]

_KEY_BYTES: Final = 8
_SCHEMA: Final = pa.schema(
    [
        ("path", pa.uint64()),
        ("size_bytes", pa.int64()),
        ("here", pa.string()),
        ("token", pa.string()),
        ("digest", pa.string()),
        ("xxh3", pa.string()),
    ]
)


class MoveRecord(pydantic.BaseModel):
    """Where the files of a place come from.

    Attributes:
        origin: The place, as it may be shown.
        is_finished: All files are there, and as they were.
        begun: UTC, ISO 8601.
        finished: Likewise.
        files: How many there are.
        size_bytes: Of all of them.
        identities: Name of the table; ``None``: every file is known by its listing.
    """

    schema_version: Literal[1] = 1
    kind: Kind
    origin: str
    is_finished: bool = False
    begun: str
    finished: str | None = None
    files: int = 0
    size_bytes: int = 0
    identities: str | None = None

    @classmethod
    def read(cls, content: bytes, where: str) -> "MoveRecord":
        """Read a record.

        Raises:
            SourceError: If it is none, as when a newer csfd has written it.
        """
        try:
            return cls.model_validate_json(content)
        except pydantic.ValidationError as error:
            raise SourceError(
                f"{where}/{RECORD} is not a record of a move as csfd writes it (schema "
                "version 1). Has a newer csfd written it?"
            ) from error

    def require_finished(self, where: str) -> None:
        """Require that all files are there.

        Raises:
            SourceError: If they are not.
        """
        if not self.is_finished:
            raise SourceError(
                f"{where} is not complete: the move from {self.origin} was not "
                "finished. Run the same csfd move again to go on."
            )


@dataclass(frozen=True, slots=True)
class Identity:
    """What a file was known by before it was moved.

    Attributes:
        here: Its token in the listing of this place, right after the move.
        token: What stands for that.
        digest: Of its content, as it was recorded before.
        xxh3: Of the bytes as they were moved.
    """

    here: str
    token: str
    digest: str
    xxh3: str

    @property
    def is_told(self) -> bool:
        """Whether a listing of this place would tell the same without it."""
        is_remote = self.here.startswith(ETAG)
        listed_digest = self.here if is_remote else self.xxh3
        return self.here == self.token and self.digest == listed_digest


class Identities:
    """What the files of a place were known by; paths are kept as digests alone."""

    def __init__(self, table: pa.Table) -> None:
        """Take a table that is sorted by its keys."""
        self._table = table.combine_chunks()
        self._keys = table["path"].to_numpy()
        self._sizes = table["size_bytes"].to_numpy()

    @classmethod
    def read(cls, content: bytes) -> "Identities":
        """Read a table as ``pack`` makes it."""
        return cls(pq.read_table(io.BytesIO(content)))

    def of(self, paths: Sequence[str], sizes: Sequence[int]) -> list[Identity | None]:
        """Return the identity of each file that has one, in the same order.

        Args:
            paths: Relative to the place.
            sizes: Of the files, in bytes; another size is another file.
        """
        identities: list[Identity | None] = [None] * len(paths)
        if not len(self._keys) or not paths:
            return identities
        keys = _keys_of(paths)
        indices = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        is_known = (self._keys[indices] == keys) & (
            self._sizes[indices] == np.asarray(sizes, np.int64)
        )
        (matched,) = np.nonzero(is_known)
        rows = self._table.take(pa.array(indices[matched]))
        columns = [
            rows[name].to_pylist() for name in ("here", "token", "digest", "xxh3")
        ]
        for index, here, token, digest, xxh3 in zip(
            matched.tolist(), *columns, strict=True
        ):
            identities[index] = Identity(here, token, digest or xxh3, xxh3)
        return identities


def pack(files: Sequence[tuple[str, int, Identity]]) -> tuple[str, bytes]:
    """Return a table of (path, size, identity), and the name that it is kept by."""
    keys = _keys_of([path for path, _, _ in files])
    order = np.argsort(keys, kind="stable")
    rows = [files[index] for index in order.tolist()]
    table = pa.table(
        {
            "path": keys[order],
            "size_bytes": [size for _, size, _ in rows],
            "here": [identity.here for *_, identity in rows],
            "token": [identity.token for *_, identity in rows],
            "digest": [
                None if identity.digest == identity.xxh3 else identity.digest
                for *_, identity in rows
            ],
            "xxh3": [identity.xxh3 for *_, identity in rows],
        },
        schema=_SCHEMA,
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    content = sink.getvalue()
    return f"identities-{hashlib.sha256(content).hexdigest()[:16]}.parquet", content


def is_hidden(path: str) -> bool:
    """Say whether a path is of the hidden folder."""
    return path == HIDDEN or path.startswith(f"{HIDDEN}/")


def _keys_of(paths: Sequence[str]) -> npt.NDArray[np.uint64]:
    encoded = (path.encode(errors="surrogateescape") for path in paths)
    digests = [hashlib.sha256(name).digest()[:_KEY_BYTES] for name in encoded]
    return np.frombuffer(b"".join(digests), dtype="<u8")
