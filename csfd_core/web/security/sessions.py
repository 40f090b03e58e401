"""Sessions: kept in the database, so that they can be ended; the cookie is a number."""

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from fastapi import HTTPException, Request, Response

from csfd_core.settings import WebSettings
from csfd_core.web.audit import Action, record
from csfd_core.web.database import sessions, users
from csfd_core.web.security.users import User, to_user
from csfd_core.web.services import Services

_BYTES: Final = 32
CSRF_HEADER: Final = "X-CSRF-Token"
CSRF_STALE: Final = "X-CSRF-Stale"  # says that another token would do
CSRF_FIELD: Final = "csrf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Who asks, and the token that their forms carry."""

    user: User
    csrf: str
    token_hash: str


def services_of(request: Request) -> Services:
    """Return what the application was built with; a dependency of FastAPI."""
    services: Services = request.app.state.services
    return services


def begin_session(
    connection: sa.Connection, response: Response, web: WebSettings, user: User
) -> None:
    """Sign a user in: record the session, and send its cookie."""
    now, token = time.time(), secrets.token_urlsafe(_BYTES)
    connection.execute(
        sessions.insert().values(
            token_hash=_hash(token),
            user_id=user.id,
            csrf=secrets.token_urlsafe(_BYTES),
            created_at=now,
            seen_at=now,
        )
    )
    record(connection, user.id, Action.SIGNED_IN)
    response.set_cookie(
        cookie_name(web),
        token,
        max_age=web.session_hours * 3600,
        path="/",
        secure=web.behind_tls,
        httponly=True,
        samesite="lax",
    )


def end_session(connection: sa.Connection, token_hash: str) -> None:
    """End a session for good."""
    connection.execute(sessions.delete().where(sessions.c.token_hash == token_hash))


def find_session(request: Request) -> Session | None:
    """Return the session of a request, ``None`` where there is none any more."""
    services = services_of(request)
    token = request.cookies.get(cookie_name(services.web))
    if not token:
        return None
    now, hashed = time.time(), _hash(token)
    with services.database.transaction() as connection:
        row = connection.execute(
            sa.select(sessions.c.csrf, sessions.c.created_at, sessions.c.seen_at, users)
            .join(users, users.c.id == sessions.c.user_id)
            .where(sessions.c.token_hash == hashed)
        ).first()
        if row is None or not row.is_active:
            return None
        is_old = now - row.created_at > services.web.session_hours * 3600
        if is_old or now - row.seen_at > services.web.idle_minutes * 60:
            end_session(connection, hashed)
            return None
        if now - row.seen_at > 30:  # seconds; not a write for every slice
            same = sessions.c.token_hash == hashed
            connection.execute(sessions.update().where(same).values(seen_at=now))
        return Session(user=to_user(row), csrf=row.csrf, token_hash=hashed)


def require_session(request: Request) -> Session:
    """Return the session of a request; a dependency of every route but the public ones.

    What changes something must carry the session's token as well, in a header or, of a
    form, in a field (``require_form``).

    Raises:
        HTTPException: 401 without a session, 403 without its token.
    """
    session = find_session(request)
    if session is None:
        raise HTTPException(401, "Sign in first.")
    if request.method not in ("GET", "HEAD"):
        given = request.headers.get(CSRF_HEADER, "")
        if not hmac.compare_digest(given.encode(), session.csrf.encode()):
            told, stale = "This page is out of date. Load it again.", {CSRF_STALE: "1"}
            raise HTTPException(403, told, stale)
    return session


async def require_form(request: Request) -> Session:
    """Return the session of a form that was sent; it carries the token in a field.

    Raises:
        HTTPException: 401 without a session, 403 without its token.
    """
    session = find_session(request)
    if session is None:
        raise HTTPException(401, "Sign in first.")
    given = str((await request.form()).get(CSRF_FIELD, ""))
    if not hmac.compare_digest(given.encode(), session.csrf.encode()):
        raise HTTPException(403, "This page is out of date. Load it again.")
    return session


def require_administrator(session: Session) -> None:
    """Require that somebody may change users and withdraw studies.

    Raises:
        HTTPException: 403 if not.
    """
    if not session.user.is_administrator:
        raise HTTPException(403, "This is for administrators.")


def cookie_name(web: WebSettings) -> str:
    """Return the name of the cookie; behind TLS one that no other host can set."""
    return "__Host-csfd" if web.behind_tls else "csfd"


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
