"""Uploads over HTTP: begin, send parts in any order, complete.

Parts are worked on by few threads, however many arrive: pages keep theirs.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

from csfd_core.web.security.sessions import Session, require_session, services_of
from csfd_core.web.services import Services
from csfd_core.web.uploads import handling
from csfd_core.web.uploads.parts import LARGEST_PART, PART_BYTES, PartError
from csfd_core.web.uploads.records import UnknownUploadError, UploadError

router = APIRouter(tags=["uploads"])

_MOST_PARTS: Final = 100_000
_WORKERS: Final = ThreadPoolExecutor(4, thread_name_prefix="csfd-upload")
_STATUS: Final[dict[type[Exception], int]] = {
    UnknownUploadError: 404,
    handling.TooManyError: 503,
    handling.TooLargeError: 413,
    handling.DigestError: 422,
    PartError: 422,
    handling.DiskFullError: 507,
}

MySession = Annotated[Session, Depends(require_session)]
MyServices = Annotated[Services, Depends(services_of)]
UploadId = Annotated[str, Path(max_length=64)]
Priority = Literal[0, 1, 2]


class Begin(BaseModel):
    """What an upload is begun with."""

    priority: Priority = Field(default=0, description="0 routine, 1 urgent, 2 STAT.")


class Begun(BaseModel):
    """A new upload."""

    id: str
    part_bytes: int = Field(description="About how large a part should be.")


class Taken(BaseModel):
    """A part that has arrived."""

    number: int


class Complete(BaseModel):
    """Says that all parts were sent."""

    parts: Annotated[int, Field(ge=0, le=_MOST_PARTS, description="How many.")]


class UploadedStudy(BaseModel):
    """What became of a study."""

    study_uid: str
    images: int
    added: int
    version: int | None = Field(description="null: nothing was new.")
    told: str


class Result(BaseModel):
    """What became of an upload."""

    studies: list[UploadedStudy]
    passed_over: list[str]
    refused: list[str]


class Progress(BaseModel):
    """What has arrived of an upload."""

    id: str
    state: str
    priority: int
    bytes: int
    parts: list[int] = Field(description="Numbers of the parts that have arrived.")
    images: int
    studies: int
    unfinished: list[int] = Field(description="Numbers of files that are not whole.")
    lost: list[int] = Field(description="Of these, those to send again from 0.")
    passed_over: list[str]
    refused: list[str]
    result: Result | None


@contextmanager
def _told() -> Iterator[None]:
    """Turn what an upload refuses into an answer."""
    try:
        yield
    except handling.IncompleteError:
        raise  # its answer names files
    except (UploadError, PartError) as error:
        raise HTTPException(_STATUS.get(type(error), 409), str(error)) from None


async def _read_part(request: Request) -> bytes:
    """Return the body of a request, if it is not too large."""
    content = bytearray()
    try:
        async for piece in request.stream():
            content += piece
            if len(content) > LARGEST_PART:
                most = LARGEST_PART // 2**20
                raise HTTPException(413, f"A part has {most} MB at most.")
    except ClientDisconnect:
        raise HTTPException(400, "The part was cut off. Send it again.") from None
    return bytes(content)


async def _work(work: Callable[[], Any]) -> Any:  # noqa: ANN401 - of any function
    return await asyncio.get_running_loop().run_in_executor(_WORKERS, work)


@router.post("/uploads", status_code=201)
def begin_upload(begin: Begin, session: MySession, services: MyServices) -> Begun:
    """Begin an upload."""
    with _told():
        upload_id = handling.begin(services, session.user, begin.priority)
    return Begun(id=upload_id, part_bytes=PART_BYTES)


@router.get("/uploads/{upload_id}")
def show_upload(
    upload_id: UploadId, session: MySession, services: MyServices
) -> Progress:
    """Say what has arrived."""
    with _told():
        progress = handling.describe(services, session.user, upload_id)
    return Progress.model_validate(progress)


@router.put(
    "/uploads/{upload_id}/parts/{number}",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {
                    "schema": {"type": "string", "format": "binary"}
                }
            },
        }
    },
)
async def put_part(
    upload_id: UploadId,
    number: Annotated[int, Path(ge=0, lt=_MOST_PARTS)],
    session: MySession,
    services: MyServices,
    content: Annotated[bytes, Depends(_read_part)],
    x_sha256: Annotated[str, Header(pattern="^[0-9a-fA-F]{64}$")],
) -> Taken:
    """Take a part: pieces of files, one behind the other.

    A piece is a header of 24 bytes, big-endian, and its bytes: number of the file
    (uint32), place in the file (uint64), size of the file (uint64), length (uint32).
    """
    with _told():
        await _work(
            partial(
                handling.take_part,
                services,
                session.user,
                upload_id,
                number,
                x_sha256,
                content,
            )
        )
    return Taken(number=number)


@router.post("/uploads/{upload_id}/complete", status_code=201, response_model=Result)
async def complete_upload(
    upload_id: UploadId, given: Complete, session: MySession, services: MyServices
) -> Any:  # noqa: ANN401 - a response, or what becomes one
    """Accept the studies of an upload, and say what became of each."""
    work = partial(handling.complete, services, session.user, upload_id, given.parts)
    try:
        with _told():
            return await _work(work)
    except handling.IncompleteError as error:
        return JSONResponse({"detail": str(error), "files": list(error.files)}, 409)


@router.delete("/uploads/{upload_id}", status_code=204)
def cancel_upload(
    upload_id: UploadId, session: MySession, services: MyServices
) -> Response:
    """Cancel an upload; nothing of it is left."""
    with _told():
        handling.cancel(services, session.user, upload_id)
    return Response(status_code=204)
