"""STOW-RS: images that a program sends with ``POST /dicom-web/studies``.

The body is read part by part. Each part goes the way of every slice that comes over
the network: de-identified in memory, written durably, answered for. What was whole is
kept although the rest of the body is cut off. The answer names images as their sender
does (PS3.18 section 10.5.3).
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from csfd_core.deid.refusals import Reason, RefusedError
from csfd_core.dicom.limits import MEGABYTE, limits
from csfd_core.errors import CsfdError
from csfd_core.web.dicomweb.access import (
    Caller,
    WhoSends,
    caller_who_sends,
    note_sending,
)
from csfd_core.web.dicomweb.multipart import (
    BodyError,
    MediaType,
    Part,
    PartReader,
    boundary_of,
)
from csfd_core.web.dicomweb.receipts import (
    CANNOT_UNDERSTAND,
    DUPLICATE,
    FAILED,
    LIKE_A_UID,
    MISMATCH,
    NO_ROOM,
    NOT_AUTHORIZED,
    Named,
    Receipt,
)
from csfd_core.web.reception.reception import (
    ConflictError,
    NoRoomError,
    Reception,
    Sender,
    WithdrawnError,
)
from csfd_core.web.security.sessions import services_of

router = APIRouter()

JSON_TYPE: Final = "application/dicom+json"
_PART_TYPE: Final = "application/dicom"
_MOST_AT_ONCE: Final = 8  # bodies: of each, one part is in memory
_MOST_HELD: Final = 32  # studies of one body, the newest
_ASKED_AGAIN_S: Final = 30.0  # whether a token was revoked, or a session has ended
_IDLE_S: Final = 60.0  # without a byte, a body is taken as cut off
_LONGEST_S: Final = 3600.0  # of one body: there are few places


@router.post("/studies")
async def store(request: Request, caller: WhoSends) -> Response:
    """Take in images of any studies."""
    return await _store(request, caller, None)


@router.post("/studies/{study_uid}")
async def store_study(request: Request, study_uid: str, caller: WhoSends) -> Response:
    """Take in images of one study, as its sender calls it."""
    if LIKE_A_UID.fullmatch(study_uid) is None:
        raise HTTPException(400, "The address names no study: a UID is needed.")
    return await _store(request, caller, study_uid)


async def _store(request: Request, caller: Caller, study_uid: str | None) -> Response:
    media_type = _require_type(request)
    _require_json(request)
    most = services_of(request).web.max_upload_mb * MEGABYTE
    _require_length(request, most)
    try:
        reader = PartReader(boundary_of(media_type), limits().file_bytes)
    except BodyError as error:
        raise HTTPException(400, str(error)) from None
    receipt, is_over = Receipt(), False
    with _body_slot(request), _Holding(_reception_of(request)) as holding:
        size = 0
        try:
            async for piece in _pieces(request):
                room = most - size
                size += len(piece)
                for part in reader.feed(piece[:room]):
                    await run_in_threadpool(
                        _keep, request, caller, study_uid, part, receipt, holding
                    )
                if is_over := size > most:
                    break
            if not is_over:
                reader.finish()
        except BodyError as error:
            receipt.spoil(str(error))
    if not (is_over or receipt.stored or receipt.failed or receipt.others):
        receipt.spoil("The body holds no image.")
    return _answer(request, caller, receipt, 413 if is_over else receipt.status())


def _answer(
    request: Request, caller: Caller, receipt: Receipt, status: int
) -> Response:
    url = ""
    # Who may not read is not told how csfd calls a study.
    if caller.may_read and len(receipt.study_uids) == 1:
        (uid,) = receipt.study_uids
        url = f"{request.base_url}dicom-web/studies/{uid}"
    headers = {"Retry-After": "60"} if status == 507 else {}
    if told := " ".join(" ".join(receipt.sentences()).split()):
        quoted = told.replace('"', "'").encode("ascii", "replace").decode()
        headers["Warning"] = f'299 csfd "{quoted}"'
    return JSONResponse(
        receipt.to_json(url), status, headers=headers, media_type=JSON_TYPE
    )


def _keep(
    request: Request,
    caller: Caller,
    study_uid: str | None,
    part: Part,
    receipt: Receipt,
    holding: "_Holding",
) -> None:
    """Keep one part; note what became of it.

    Raises:
        BodyError: If its sender may not send any more.
    """
    holding.ask_again(request)
    if part.content is None:
        receipt.refuse(Named(), Reason.TOO_LARGE)
        return
    named = Named.of(part.content)
    if part.media_type.name not in ("", "text/plain", _PART_TYPE):
        receipt.fail(named, CANNOT_UNDERSTAND, f"Parts must be {_PART_TYPE}.")
        return
    if study_uid is not None and named.sop_uid and named.study_uid != study_uid:
        told = "Images of another study than the address names were not kept."
        receipt.fail(named, MISMATCH, told)
        return
    try:
        ct_slice = holding.reception.keep(part.content, _sender_of(caller))
        if ct_slice.study_uid not in receipt.study_uids:
            holding.hold(ct_slice.study_uid)
            note_sending(services_of(request), caller, ct_slice.study_uid)
    except RefusedError as error:
        receipt.refuse(named, error.reason)
    except Exception as error:  # noqa: BLE001 - whatever it is, the sender is told
        told = str(error) if isinstance(error, CsfdError) else ""
        receipt.fail(named, _code_of(error), told)
    else:
        receipt.stored.append(named)
        receipt.study_uids.add(ct_slice.study_uid)


def _code_of(error: Exception) -> int:
    for kind, code in (
        (ConflictError, DUPLICATE),
        (WithdrawnError, NOT_AUTHORIZED),
        (NoRoomError, NO_ROOM),
    ):
        if isinstance(error, kind):
            return code
    return FAILED


class _Holding:
    """Keeps studies from being accepted as long as their body goes on."""

    def __init__(self, reception: Reception) -> None:
        self.reception = reception
        self._held: list[int] = []
        self._asked_at = time.monotonic()

    def __enter__(self) -> "_Holding":
        return self

    def __exit__(self, *error: object) -> None:
        for descriptor in self._held:
            os.close(descriptor)

    def ask_again(self, request: Request) -> None:
        """Require, every now and then, that who began may still send.

        Raises:
            BodyError: If it is not so.
        """
        now = time.monotonic()
        if now - self._asked_at < _ASKED_AGAIN_S:
            return
        self._asked_at = now
        try:
            caller_who_sends(request)
        except HTTPException:
            raise BodyError("You may not send any more. What came is kept.") from None

    def hold(self, study_uid: str) -> None:
        self._held.append(self.reception.hold(study_uid))
        if len(self._held) > _MOST_HELD:  # descriptors are few
            os.close(self._held.pop(0))


def _sender_of(caller: Caller) -> Sender:
    token = caller.token
    if token is None:
        return Sender(name="page")
    return Sender(
        name=token.name, priority=token.priority, keeps_identity=token.keeps_identity
    )


def _reception_of(request: Request) -> Reception:
    state = request.app.state
    reception: Reception | None = getattr(state, "reception", None)
    if reception is None:
        reception = state.reception = Reception(services_of(request))
    return reception


@contextmanager
def _body_slot(request: Request) -> Iterator[None]:
    """Take one of the places for bodies, so that memory stays bounded.

    Raises:
        HTTPException: 503 where there is none.
    """
    state = request.app.state
    under_way = getattr(state, "bodies_under_way", 0)  # the event loop's thread alone
    if under_way >= _MOST_AT_ONCE:
        raise HTTPException(
            503, "Too many programs send at once. Send again.", {"Retry-After": "5"}
        )
    state.bodies_under_way = under_way + 1
    try:
        yield
    finally:
        state.bodies_under_way -= 1


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    """Yield a body as it comes; end where its sender falls silent, or is too slow."""
    stream, until = request.stream(), time.monotonic() + _LONGEST_S
    while (left_s := until - time.monotonic()) > 0:
        try:
            async with asyncio.timeout(min(_IDLE_S, left_s)):
                piece = await anext(stream)
        except (StopAsyncIteration, TimeoutError):
            return
        yield piece


def _require_type(request: Request) -> MediaType:
    media_type = MediaType.of(request.headers.get("content-type", ""))
    is_related = media_type.name == "multipart/related"
    if not is_related or media_type.related not in ("", _PART_TYPE):
        raise HTTPException(
            415, f'Send multipart/related; type="{_PART_TYPE}"; boundary=…'
        )
    return media_type


def _require_json(request: Request) -> None:
    accepted = request.headers.get("accept", "*/*").lower()
    if not any(word in accepted for word in ("*/*", "json", "application/*")):
        raise HTTPException(406, f"The answer is {JSON_TYPE}.")


def _require_length(request: Request, most: int) -> None:
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > most:
        raise HTTPException(
            413,
            f"The request is larger than {most // MEGABYTE} MB "
            "(CSFD_WEB_MAX_UPLOAD_MB). Send a study in several.",
        )
