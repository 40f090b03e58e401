"""Access tokens: what programs sign in with at ``/dicom-web``.

An administrator makes one for each program. It is shown once; the database holds its
SHA-256 alone. A token has 256 random bits and cannot be guessed, so one that is right
is let in whatever else comes from its address.
"""

import hashlib
import re
import secrets
import time
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from csfd_core.errors import SettingsError
from csfd_core.web.audit import Action, record
from csfd_core.web.database import Database, addresses, tokens
from csfd_core.web.security.users import SignInError, count_failure

HIGHEST_PRIORITY: Final = 2  # STAT
_NAME: Final = re.compile(r"[\w.@-]{1,60}")  # letters of every language
_PREFIX: Final = "csfd_"  # so that searches for leaked secrets find one
_BYTES: Final = 32
_USE_NOTED_S: Final = 60.0
_PLACE: Final = " /dicom-web"  # counted apart from the sign-ins of the same address


class LockedError(SignInError):
    """Too many wrong tokens have come from one address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What a program may do with its token.

    Attributes:
        id: Number in the database.
        name: Of the program.
        may_send: Store images (STOW-RS).
        may_read: Search and retrieve (QIDO-RS, WADO-RS).
        priority: Of the studies that it sends: 0 routine, 1 urgent, 2 STAT.
        keeps_identity: The vault keeps how its studies are called, so that results can
            go back.
        is_active: Whether it was not revoked.
        created_at: When it was made, in seconds since 1970.
        used_at: When it was last used; ``None``: never.
    """

    id: int
    name: str
    may_send: bool
    may_read: bool
    priority: int = 0
    keeps_identity: bool = False
    is_active: bool = True
    created_at: float = 0.0
    used_at: float | None = None


def add_token(
    connection: sa.Connection,
    by: int | None,
    name: str,
    *,
    may_send: bool,
    may_read: bool,
    priority: int = 0,
    keeps_identity: bool = False,
) -> str:
    """Make a token; return its text, to show once.

    Raises:
        SettingsError: If the name is taken or cannot be used, or it may do nothing.
    """
    if _NAME.fullmatch(name) is None:
        raise SettingsError(
            "A token's name has up to 60 letters, digits, points, hyphens or @."
        )
    if not may_send and not may_read:
        raise SettingsError("A token must be allowed to send, to read, or both.")
    if not 0 <= priority <= HIGHEST_PRIORITY:
        raise SettingsError(f"A priority is 0, 1 or 2. Received: {priority}.")
    same_name = sa.select(tokens.c.id).where(tokens.c.name == name)
    if connection.scalar(same_name) is not None:
        raise SettingsError(
            "There is a token of this name already; a revoked one keeps its name."
        )
    text = _PREFIX + secrets.token_urlsafe(_BYTES)
    made = connection.execute(
        tokens.insert().values(
            name=name,
            token_hash=_hash(text),
            may_send=may_send,
            may_read=may_read,
            priority=priority,
            keeps_identity=keeps_identity and may_send,
            is_active=True,
            created_at=time.time(),
        )
    )
    (number,) = made.inserted_primary_key or (0,)
    record(connection, by, Action.TOKEN_ADDED, str(number))
    return text


def revoke_token(connection: sa.Connection, by: int | None, token_id: int) -> None:
    """Let a token open nothing any more."""
    same_token = (tokens.c.id == token_id) & tokens.c.is_active
    revoked = connection.execute(
        tokens.update().where(same_token).values(is_active=False)
    )
    if revoked.rowcount:
        record(connection, by, Action.TOKEN_REVOKED, str(token_id))


def all_tokens(connection: sa.Connection) -> list[Token]:
    """Return every token, by name, those that were revoked at the end."""
    ordered = sa.select(tokens).order_by(tokens.c.is_active.desc(), tokens.c.name)
    return [_to_token(row) for row in connection.execute(ordered)]


def check_token(database: Database, address: str, text: str) -> Token | SignInError:
    """Return the token of a text, or why it opens nothing.

    Failures are counted by address, as those of the sign-in are: each beyond the
    twentieth doubles the pause.
    """
    now, address_key = time.time(), f"{address}{_PLACE}"
    with database.transaction() as connection:
        same = tokens.c.token_hash == _hash(text)
        row = connection.execute(sa.select(tokens).where(same)).first()
        origin = connection.execute(
            sa.select(addresses).where(addresses.c.address == address_key)
        ).first()
        if row is not None and row.is_active:
            if row.used_at is None or now - row.used_at > _USE_NOTED_S:
                connection.execute(tokens.update().where(same).values(used_at=now))
            if origin is not None:
                same_address = addresses.c.address == address_key
                connection.execute(addresses.delete().where(same_address))
            return _to_token(row)
        if origin is not None and origin.locked_until > now:
            minutes = max(1, round((origin.locked_until - now) / 60))
            return LockedError(f"Too many attempts. Try again in {minutes} min.")
        count_failure(connection, None, address_key, Action.TOKEN_REFUSED)
    return SignInError("The token is unknown or was revoked.")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def _to_token(row: sa.Row[tuple[object, ...]]) -> Token:
    return Token(
        id=row.id,
        name=row.name,
        may_send=bool(row.may_send),
        may_read=bool(row.may_read),
        priority=row.priority,
        keeps_identity=bool(row.keeps_identity),
        is_active=bool(row.is_active),
        created_at=row.created_at,
        used_at=row.used_at,
    )
