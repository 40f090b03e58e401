"""Uploads in the database: whose they are, their parts, what they held."""

import json
import secrets
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from csfd_core.errors import CsfdError
from csfd_core.web.database import parts, uploads


class UploadState(StrEnum):
    """How far an upload is."""

    OPEN = "open"  # parts may come
    COMPLETING = "completing"  # its studies are being accepted
    COMPLETE = "complete"


class UploadError(CsfdError):
    """An upload cannot go on as it was asked to. The text is for who asked."""


class UnknownUploadError(UploadError):
    """There is no such upload, or it is somebody else's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One upload."""

    id: str
    user_id: int
    state: UploadState
    touched_at: float
    note: dict[str, Any]


def begin(connection: sa.Connection, user_id: int, priority: int) -> str:
    """Record a new upload; return its identity."""
    upload_id, now = secrets.token_hex(16), time.time()
    connection.execute(
        uploads.insert().values(
            id=upload_id,
            user_id=user_id,
            state=UploadState.OPEN,
            created_at=now,
            touched_at=now,
            note=json.dumps({"priority": priority, "bytes": 0}),
        )
    )
    return upload_id


def read(connection: sa.Connection, upload_id: str) -> Upload | None:
    """Return an upload."""
    row = connection.execute(
        sa.select(uploads).where(uploads.c.id == upload_id)
    ).first()
    return None if row is None else _to_upload(row)


def read_all(connection: sa.Connection) -> list[Upload]:
    """Return every upload."""
    return [_to_upload(row) for row in connection.execute(sa.select(uploads))]


def change(
    connection: sa.Connection,
    upload_id: str,
    note: dict[str, Any],
    state: UploadState = UploadState.OPEN,
) -> None:
    """Record how far an upload is, and what it held."""
    values = {"note": json.dumps(note), "state": state, "touched_at": time.time()}
    same = uploads.c.id == upload_id
    connection.execute(uploads.update().where(same).values(**values))


def remove(connection: sa.Connection, upload_id: str) -> None:
    """Remove an upload and its parts."""
    connection.execute(parts.delete().where(parts.c.upload_id == upload_id))
    connection.execute(uploads.delete().where(uploads.c.id == upload_id))


def add_part(
    connection: sa.Connection, upload_id: str, number: int, sha256: str
) -> None:
    """Record a part that was taken."""
    connection.execute(
        parts.insert().values(upload_id=upload_id, number=number, sha256=sha256)
    )


def parts_of(connection: sa.Connection, upload_id: str) -> dict[int, str]:
    """Return the digests of the parts that were taken, by number."""
    taken_parts = sa.select(parts.c.number, parts.c.sha256).where(
        parts.c.upload_id == upload_id
    )
    return {row.number: row.sha256 for row in connection.execute(taken_parts)}


def _to_upload(row: sa.Row[Any]) -> Upload:
    return Upload(
        id=row.id,
        user_id=row.user_id,
        state=UploadState(row.state),
        touched_at=row.touched_at,
        note=json.loads(row.note),
    )
