"""Which user somebody is who has signed in at the provider.

The first time it is the user of that name; from then on the account at the provider
that came first, whatever it is called, so that a name that is given to somebody else
there opens nothing here.
"""

import hashlib
import json
import time
from typing import Any, Final

import sqlalchemy as sa

from csfd_core.errors import SettingsError
from csfd_core.web.audit import Action, record
from csfd_core.web.database import Database, addresses, subjects, users
from csfd_core.web.security.oidc.asking import ProviderError
from csfd_core.web.security.oidc.attempts import Attempt
from csfd_core.web.security.oidc.provider import Answer, Identity, Provider
from csfd_core.web.security.users import (
    Role,
    SignInError,
    User,
    add_user,
    count_failure,
    to_user,
)

_PLACE: Final = " /sign-in/oidc"  # counted apart from the passwords of the same address

INACTIVE: Final = "You may not sign in here any more. Ask an administrator."
NAMELESS: Final = (
    "The sign-in service gives no name by which you could be known here. Tell an "
    "administrator."
)
TAKEN: Final = (
    "Another account of the sign-in service belongs to the user of your name. Ask an "
    "administrator."
)
HAS_PASSWORD: Final = "An administrator who has a password signs in with it."


def sign_in(
    database: Database,
    address: str,
    provider: Provider,
    attempt: Attempt,
    given: Answer,
) -> User | SignInError:
    """Return who signs in, or why they may not.

    What is wrong with the provider counts as nobody's failure; everything else does, by
    address, as wrong passwords do.
    """
    address_key = f"{address}{_PLACE}"
    with database.transaction() as connection:
        until = addresses.c.locked_until
        same = addresses.c.address == address_key
        wait_s = (connection.scalar(sa.select(until).where(same)) or 0.0) - time.time()
    if wait_s > 0:
        minutes = max(1, round(wait_s / 60))
        return SignInError(f"Too many attempts. Try again in {minutes} min.")
    try:
        identity: Identity | SignInError = provider.identify(attempt, given)
    except ProviderError as error:
        return error
    except SignInError as error:
        identity = error
    with database.transaction() as connection:
        row: Any = None
        refused = identity if isinstance(identity, SignInError) else None
        if isinstance(identity, Identity):
            row, refused = _find(connection, identity, provider.settings.role)
        if refused is None:
            connection.execute(addresses.delete().where(same))
            return to_user(row)
        count_failure(connection, row, address_key, is_guess=False)
        return refused


def release_account(connection: sa.Connection, by: int, user_id: int) -> None:
    """Let a user's next sign-in at the provider be by name again."""
    same_user = subjects.c.user_id == user_id
    if connection.execute(subjects.delete().where(same_user)).rowcount:
        record(connection, by, Action.ACCOUNT_RELEASED, str(user_id))


def bound_users(connection: sa.Connection) -> set[int]:
    """Return the numbers of users whose account at the provider is known."""
    return {row.user_id for row in connection.execute(sa.select(subjects.c.user_id))}


def _find(
    connection: sa.Connection, identity: Identity, role: str
) -> tuple[Any, SignInError | None]:
    """Return the user's row, where there is one, and why they may not sign in."""
    digest = _digest(identity)
    bound = connection.execute(
        sa.select(users)
        .join(subjects, subjects.c.user_id == users.c.id)
        .where(subjects.c.digest == digest)
    ).first()
    if bound is not None:
        return bound, None if bound.is_active else SignInError(INACTIVE)
    if not identity.name:
        return None, SignInError(NAMELESS)
    same = users.c.name == identity.name
    row = connection.execute(sa.select(users).where(same)).first()
    if row is None:
        refused = _add(connection, identity.name, role)
        if refused is not None:
            return None, refused
        row = connection.execute(sa.select(users).where(same)).one()
    refused = _objection(connection, row)
    if refused is None:
        values = {"digest": digest, "user_id": row.id, "bound_at": time.time()}
        connection.execute(subjects.insert().values(**values))
        record(connection, None, Action.ACCOUNT_BOUND, str(row.id))
    return row, refused


def _add(connection: sa.Connection, name: str, role: str) -> SignInError | None:
    if role != Role.READER:
        return SignInError(
            f"There is no user {name[:60]} here. Ask an administrator to add this name."
        )
    try:
        add_user(connection, None, name, None, Role.READER)
    except SettingsError:
        return SignInError(NAMELESS)
    return None


def _objection(
    connection: sa.Connection,
    row: Any,  # noqa: ANN401 - of the users
) -> SignInError | None:
    """Say why an account that is not known yet cannot be that of a user."""
    if not row.is_active:
        return SignInError(INACTIVE)
    if row.id in bound_users(connection):
        return SignInError(TAKEN)
    if row.role == Role.ADMINISTRATOR and row.password_hash:
        return SignInError(HAS_PASSWORD)
    return None


def _digest(identity: Identity) -> str:
    content = json.dumps([identity.issuer, identity.subject]).encode()
    return hashlib.sha256(content).hexdigest()
