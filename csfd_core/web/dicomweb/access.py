"""Who may use ``/dicom-web``: a program with a token, or somebody who is signed in.

Programs send ``Authorization: Bearer TOKEN``, or Basic with any user name and the token
as password, as PACS often can do no other. A browser is never asked for Basic: it would
keep the token, and send it along from other sites.
"""

import base64
import binascii
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Annotated, Final

from fastapi import Depends, HTTPException, Request

from csfd_core.web.audit import Action, record
from csfd_core.web.review.blind import is_blind, note_sight
from csfd_core.web.security.sessions import (
    Session,
    find_session,
    require_session,
    services_of,
)
from csfd_core.web.security.tokens import LockedError, Token, check_token
from csfd_core.web.security.users import SignInError
from csfd_core.web.services import Services

_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="csfd"'}
_LONGEST: Final = 512  # characters of a token, with what is around it
_AUDITED_S: Final = 3600.0  # a study read slice by slice is one entry in that time
_REMEMBERED: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks: either a session or a token."""

    session: Session | None = None
    token: Token | None = None

    @property
    def may_read(self) -> bool:
        """Whether studies may be searched and retrieved."""
        return self.token is None or self.token.may_read

    def sees_results(self, services: Services, study_uid: str) -> bool:
        """Say whether the results of a study may be shown.

        A reader who has to read it blind does not see them; a program that may read
        sees all.

        Raises:
            IdentifierError: If ``study_uid`` is no valid UID.
        """
        if self.session is None:
            return self.may_read
        return not is_blind(services, self.session, study_uid)


def caller_who_reads(request: Request) -> Caller:
    """Return who asks, if they may search and retrieve; a dependency of FastAPI.

    Raises:
        HTTPException: 401 for nobody, 403 for a token that may only send, 429 after too
            many wrong tokens.
    """
    caller = _caller_of(request)
    if not caller.may_read:
        raise HTTPException(403, "This token may send, and not read.")
    return caller


def caller_who_sends(request: Request) -> Caller:
    """Return who asks, if they may store images; a dependency of FastAPI.

    Raises:
        HTTPException: 401 for nobody, 403 for a token that may only read or a page
            without the token of its session, 429 after too many wrong tokens.
    """
    caller = _caller_of(request)
    if caller.token is not None and not caller.token.may_send:
        raise HTTPException(403, "This token may read, and not send.")
    return caller


WhoReads = Annotated[Caller, Depends(caller_who_reads)]
WhoSends = Annotated[Caller, Depends(caller_who_sends)]


class _Recent:
    """What was audited within the hour, so that 350 slices are not 350 entries."""

    def __init__(self) -> None:
        self._at: OrderedDict[tuple[object, ...], float] = OrderedDict()
        self._lock = Lock()

    def is_new(self, key: tuple[object, ...]) -> bool:
        now = time.monotonic()
        with self._lock:
            last = self._at.pop(key, None)
            is_new = last is None or now - last > _AUDITED_S
            self._at[key] = now if last is None or is_new else last
            while len(self._at) > _REMEMBERED:
                self._at.popitem(last=False)
        return is_new

    @contextmanager
    def noted(self, key: tuple[object, ...]) -> Iterator[bool]:
        """Yield whether it is new; it stays so where the block fails."""
        is_new = self.is_new(key)
        try:
            yield is_new
        except BaseException:
            with self._lock:
                self._at.pop(key, None)
            raise


_RECENT: Final = _Recent()


def note_retrieval(
    services: Services, caller: Caller, study_uid: str, *, has_results: bool
) -> None:
    """Audit that a study was retrieved, once an hour for each caller.

    Args:
        services: Where the audit log is.
        caller: By whom.
        study_uid: The study.
        has_results: Results were among what was retrieved: a reader has seen them.
    """
    who = caller.session.user.id if caller.session else None
    key = (services.web.database, who, caller.token and caller.token.id, study_uid)
    with _RECENT.noted((*key, has_results)) as is_new:
        if is_new:
            _record_retrieval(services, caller, study_uid, has_results=has_results)


def _record_retrieval(
    services: Services, caller: Caller, study_uid: str, *, has_results: bool
) -> None:
    who = caller.session.user.id if caller.session else None
    with services.database.transaction() as connection:
        if caller.token is not None:  # entries of one transaction follow each other
            record(connection, None, Action.TOKEN_USED, str(caller.token.id))
        if who is not None and has_results:
            note_sight(connection, who, study_uid)
        record(connection, who, Action.DOWNLOADED, study_uid)


def note_sending(services: Services, caller: Caller, study_uid: str) -> None:
    """Audit that a token has sent images of a study, once an hour."""
    if caller.token is None:
        return
    key = (services.web.database, "sent", caller.token.id, study_uid)
    with _RECENT.noted(key) as is_new:
        if is_new:
            with services.database.transaction() as connection:
                record(connection, None, Action.TOKEN_USED, str(caller.token.id))


def _caller_of(request: Request) -> Caller:
    text = _token_in(request.headers.get("authorization"))
    if text is None:
        if find_session(request) is None:
            raise HTTPException(401, "Sign in first, or send a token.", _CHALLENGE)
        return Caller(session=require_session(request))
    address = request.client.host if request.client else ""
    token_or_error = check_token(services_of(request).database, address, text)
    if isinstance(token_or_error, SignInError):
        if isinstance(token_or_error, LockedError):
            raise HTTPException(429, str(token_or_error), {"Retry-After": "60"})
        raise HTTPException(401, str(token_or_error), _CHALLENGE)
    return Caller(token=token_or_error)


def _token_in(header: str | None) -> str | None:
    """Return the token of an Authorization header; ``None`` where there is none."""
    if header is None:
        return None
    scheme, _, value = header.partition(" ")
    if len(value) > _LONGEST:
        return ""
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        decoded = base64.b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        return ""
    return decoded.decode("utf-8", "replace").partition(":")[2]
