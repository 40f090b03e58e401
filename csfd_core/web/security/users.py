"""Users of the page: who they are, what they may do, and their passwords."""

import re
import secrets
import time
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from csfd_core.errors import SettingsError
from csfd_core.web.audit import Action, record
from csfd_core.web.database import Database, addresses, sessions, users

LEAST_PASSWORD: Final = 12  # characters
MOST_PASSWORD: Final = 200
_NAME: Final = re.compile(r"[\w.@-]{1,60}")  # letters of every language
_FREE_FAILURES: Final = 5  # of one user
_SHARED: Final = 4  # as many more of an address: a department may share one
_FIRST_LOCK_S: Final = 30.0
_LONGEST_LOCK_S: Final = 900.0


class Role(StrEnum):
    """What a user may do; an administrator may read as well."""

    READER = "reader"
    ADMINISTRATOR = "administrator"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody who may sign in."""

    id: int
    name: str
    role: Role
    is_active: bool = True
    has_password: bool = True

    @property
    def is_administrator(self) -> bool:
        """Whether users, the audit log and withdrawals are theirs."""
        return self.role is Role.ADMINISTRATOR


class SignInError(Exception):
    """Somebody may not sign in; the text may be shown to them."""


def first_administrator(connection: sa.Connection) -> str | None:
    """Make ``admin`` where there is no user yet; return the password, to show once."""
    if connection.scalar(sa.select(sa.func.count()).select_from(users)):
        return None
    password = secrets.token_urlsafe(15)
    add_user(connection, None, "admin", password, Role.ADMINISTRATOR)
    return password


def add_user(
    connection: sa.Connection,
    by: int | None,
    name: str,
    password: str | None,
    role: Role,
) -> int:
    """Add a user; return their number.

    Args:
        connection: Of a transaction.
        by: Who adds them.
        name: By which they sign in.
        password: Their first one; ``None``: they sign in with OpenID Connect.
        role: What they may do.

    Raises:
        SettingsError: If the name is taken or cannot be used, or the password is short.
    """
    if _NAME.fullmatch(name) is None:
        raise SettingsError(
            "A user's name has up to 60 letters, digits, points, hyphens or @."
        )
    if password is not None:
        _require_password(password)
    if connection.scalar(sa.select(users.c.id).where(users.c.name == name)) is not None:
        raise SettingsError("There is a user of this name already.")
    made = connection.execute(
        users.insert().values(
            name=name,
            password_hash="" if password is None else _hasher().hash(password),
            role=role,
            is_active=True,
            failures=0,
            locked_until=0.0,
            created_at=time.time(),
            settings="{}",
        )
    )
    (number,) = made.inserted_primary_key or (0,)
    record(connection, by, Action.USER_ADDED, str(number))
    return int(number)


def change_password(
    connection: sa.Connection, by: int | None, user_id: int, password: str
) -> None:
    """Set a password, and end all sessions of that user.

    Raises:
        SettingsError: If it is too short.
    """
    _require_password(password)
    changed = {"password_hash": _hasher().hash(password), "failures": 0}
    same = users.c.id == user_id
    connection.execute(users.update().where(same).values(**changed, locked_until=0.0))
    connection.execute(sessions.delete().where(sessions.c.user_id == user_id))
    record(connection, by, Action.PASSWORD_CHANGED, str(user_id))


def change_user(
    connection: sa.Connection, by: int, user_id: int, *, role: Role, is_active: bool
) -> None:
    """Change what a user may do; one who is not active has no session any more.

    Raises:
        SettingsError: If no active administrator would be left.
    """
    is_other = (users.c.id != user_id) & users.c.is_active
    others = connection.scalar(
        sa.select(sa.func.count())
        .select_from(users)
        .where(is_other, users.c.role == Role.ADMINISTRATOR)
    )
    if not others and not (is_active and role is Role.ADMINISTRATOR):
        raise SettingsError("There must be an active administrator.")
    same = users.c.id == user_id
    connection.execute(
        users.update().where(same).values(role=role, is_active=is_active)
    )
    if not is_active:
        connection.execute(sessions.delete().where(sessions.c.user_id == user_id))
    record(connection, by, Action.USER_CHANGED, str(user_id))


def all_users(connection: sa.Connection) -> list[User]:
    """Return every user, by name."""
    return [
        to_user(row) for row in connection.execute(sa.select(users).order_by("name"))
    ]


def check_password(
    database: Database, address: str, name: str, password: str
) -> User | SignInError:
    """Return who signs in, or why they may not.

    Each failure beyond the fifth doubles the pause, for the user and for the address.
    An unknown name takes as long as a wrong password and is told in the same words.
    """
    now = time.time()
    with database.transaction() as connection:
        row = connection.execute(sa.select(users).where(users.c.name == name)).first()
        origin = connection.execute(
            sa.select(addresses).where(addresses.c.address == address)
        ).first()
    locks = [entry.locked_until for entry in (row, origin) if entry is not None]
    if (wait_s := max(locks, default=0.0) - now) > 0:
        return SignInError(
            f"Too many attempts. Try again in {max(1, round(wait_s / 60))} min."
        )
    # Takes a tenth of a second on purpose: not while others wait for the database.
    hashed = row.password_hash if row else ""
    is_right = _verify(hashed or _nobody(), password)
    with database.transaction() as connection:
        if row is not None and row.is_active and hashed and is_right:
            same = users.c.id == row.id
            connection.execute(users.update().where(same).values(failures=0))
            connection.execute(addresses.delete().where(addresses.c.address == address))
            return to_user(row)
        count_failure(connection, row, address)
    return SignInError("Name or password is wrong.")


def count_failure(
    connection: sa.Connection,
    row: Any,  # noqa: ANN401 - of the users, or None
    address: str,
    action: Action = Action.SIGN_IN_FAILED,
    *,
    is_guess: bool = True,
) -> None:
    """Count a failure, in the database: others may fail at the same time.

    Args:
        connection: Of a transaction.
        row: The user; ``None``: nobody that is known.
        address: From where.
        action: What has failed.
        is_guess: Whether a password of the user was tried; else the address alone
            waits, so that nobody can lock out somebody else.
    """
    now = time.time()
    if row is not None and is_guess:
        _raise_failures(connection, users, users.c.id == row.id, now, 1)
    is_known = connection.scalar(
        sa.select(addresses.c.address).where(addresses.c.address == address)
    )
    if is_known is None:
        none = {"address": address, "failures": 0, "locked_until": 0.0}
        connection.execute(addresses.insert().values(**none))
    same = addresses.c.address == address
    _raise_failures(connection, addresses, same, now, _SHARED)
    record(connection, None, action, str(row.id) if row else "")


def _raise_failures(
    connection: sa.Connection,
    table: sa.Table,
    same: sa.ColumnElement[bool],
    now: float,
    lenience: int,
) -> None:
    failures = (connection.scalar(sa.select(table.c.failures).where(same)) or 0) + 1
    until = _locked(now, failures // lenience)
    values = {"failures": failures, "locked_until": until}
    connection.execute(table.update().where(same).values(**values))


def to_user(row: sa.Row[tuple[object, ...]]) -> User:
    """Return the user of a row."""
    return User(
        id=row.id,
        name=row.name,
        role=Role(row.role),
        is_active=bool(row.is_active),
        has_password=bool(row.password_hash),
    )


def _locked(now: float, failures: int) -> float:
    beyond = failures - _FREE_FAILURES
    if beyond < 0:
        return 0.0
    return now + min(_FIRST_LOCK_S * 2.0 ** min(beyond, 10), _LONGEST_LOCK_S)


def _require_password(password: str) -> None:
    if not LEAST_PASSWORD <= len(password) <= MOST_PASSWORD:
        raise SettingsError(
            f"A password has {LEAST_PASSWORD} to {MOST_PASSWORD} characters."
        )


@cache
def _hasher() -> PasswordHasher:
    return PasswordHasher()  # argon2id with the parameters of RFC 9106


@cache
def _nobody() -> str:
    return _hasher().hash(secrets.token_urlsafe(16))


def _verify(hashed: str, password: str) -> bool:
    try:
        return _hasher().verify(hashed, password[:MOST_PASSWORD])
    except (VerificationError, InvalidHashError):
        return False
