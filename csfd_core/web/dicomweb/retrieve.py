"""WADO-RS: studies, series, objects, their metadata and their frames.

Bodies are made while they are sent, so that a study is never in memory as a whole.
"""

import json
from collections.abc import Iterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import StreamingResponse

from csfd_core.errors import DicomError
from csfd_core.web.dicomweb.access import Caller, WhoReads, note_retrieval
from csfd_core.web.dicomweb.encoding import (
    DICOM,
    Form,
    accepted_in,
    file_in,
    form_of_files,
    frames_in,
)
from csfd_core.web.dicomweb.holdings import (
    Holdings,
    Instance,
    attributes_in,
    find_study,
    names_nobody,
)
from csfd_core.web.dicomweb.multipart import PartWriter
from csfd_core.web.dicomweb.remembered import Remembered
from csfd_core.web.security.sessions import services_of
from csfd_core.web.services import Services

router = APIRouter()

JSON_TYPE: Final = "application/dicom+json"
_JSON_TYPES: Final = (JSON_TYPE, "application/json", "application/*", "*/*")
_KEPT: Final = 8192  # objects whose metadata are remembered; 3 KB each
_MOST_FRAMES: Final = 4096  # of one request
_GONE: Final = "There is no such object."

Opened = Annotated[Services, Depends(services_of)]

_metadata: Final = Remembered[tuple[str, ...], bytes](_KEPT)


@router.get("/studies/{study_uid}")
def study(
    request: Request, study_uid: str, caller: WhoReads, services: Opened
) -> Response:
    """Send every object of a study."""
    holdings = require_study(services, caller, study_uid)
    return _send_files(request, services, caller, holdings, list(holdings.instances))


@router.get("/studies/{study_uid}/series/{series_uid}")
def series(
    request: Request,
    study_uid: str,
    series_uid: str,
    caller: WhoReads,
    services: Opened,
) -> Response:
    """Send every object of a series."""
    holdings = require_study(services, caller, study_uid)
    return _send_files(
        request, services, caller, holdings, _require_series(holdings, series_uid)
    )


@router.get("/studies/{study_uid}/series/{series_uid}/instances/{sop_uid}")
def instance(
    request: Request,
    study_uid: str,
    series_uid: str,
    sop_uid: str,
    caller: WhoReads,
    services: Opened,
) -> Response:
    """Send one object."""
    holdings = require_study(services, caller, study_uid)
    one = _require_instance(holdings, series_uid, sop_uid)
    return _send_files(request, services, caller, holdings, [one])


@router.get("/studies/{study_uid}/metadata")
def study_metadata(
    request: Request, study_uid: str, caller: WhoReads, services: Opened
) -> Response:
    """Send the attributes of every object of a study."""
    holdings = require_study(services, caller, study_uid)
    return _send_metadata(request, services, caller, holdings, list(holdings.instances))


@router.get("/studies/{study_uid}/series/{series_uid}/metadata")
def series_metadata(
    request: Request,
    study_uid: str,
    series_uid: str,
    caller: WhoReads,
    services: Opened,
) -> Response:
    """Send the attributes of every object of a series."""
    holdings = require_study(services, caller, study_uid)
    return _send_metadata(
        request, services, caller, holdings, _require_series(holdings, series_uid)
    )


@router.get("/studies/{study_uid}/series/{series_uid}/instances/{sop_uid}/metadata")
def instance_metadata(
    request: Request,
    study_uid: str,
    series_uid: str,
    sop_uid: str,
    caller: WhoReads,
    services: Opened,
) -> Response:
    """Send the attributes of one object."""
    holdings = require_study(services, caller, study_uid)
    one = _require_instance(holdings, series_uid, sop_uid)
    return _send_metadata(request, services, caller, holdings, [one])


@router.get(
    "/studies/{study_uid}/series/{series_uid}/instances/{sop_uid}/frames/{frames}"
)
def frames_of(
    request: Request,
    study_uid: str,
    series_uid: str,
    sop_uid: str,
    frames: str,
    caller: WhoReads,
    services: Opened,
) -> Response:
    """Send frames of one object, counted from 1."""
    holdings = require_study(services, caller, study_uid)
    one = _require_instance(holdings, series_uid, sop_uid)
    numbers = _numbers_in(frames, one.frames)
    accept = request.headers.get("accept")
    try:
        sent = frames_in(accept, _read(one), one.transfer_syntax_uid, numbers)
    except DicomError:
        raise HTTPException(
            409, "The pixels of this image cannot be decoded."
        ) from None
    note_retrieval(services, caller, holdings.study_uid, has_results=one.is_result)
    if not sent.is_multipart:
        return Response(sent.content[0], media_type=sent.part_type)
    writer = PartWriter(sent.part_type.partition(";")[0])
    parts = ((sent.part_type, content) for content in sent.content)
    return StreamingResponse(writer.body(parts), media_type=writer.content_type)


def metadata_of(holdings: Holdings, one: Instance) -> bytes:
    """Return the attributes of an object as DICOM JSON.

    Raises:
        HTTPException: 404 where its file is gone or tells of a patient by now.
    """
    key = (*holdings.identity[:3], one.location.url, one.path)
    return _metadata.get(key, lambda: _to_json(attributes_in(_read(one))))


def _send_files(
    request: Request,
    services: Services,
    caller: Caller,
    holdings: Holdings,
    instances: list[Instance],
) -> Response:
    form = form_of_files(request.headers.get("accept"))
    first = file_in(form, _read(instances[0]), instances[0].transfer_syntax_uid)
    has_results = any(one.is_result for one in instances)
    note_retrieval(services, caller, holdings.study_uid, has_results=has_results)
    if not form.is_multipart and len(instances) == 1:
        return Response(first[1], media_type=first[0])
    if not form.is_multipart:
        raise HTTPException(
            406, f'Several objects are sent as multipart/related; type="{DICOM}".'
        )
    _require_form(form, instances)
    writer = PartWriter(DICOM)
    return StreamingResponse(
        writer.body(_files(form, first, instances)), media_type=writer.content_type
    )


def _files(
    form: Form, first: tuple[str, bytes], instances: list[Instance]
) -> Iterator[tuple[str, bytes]]:
    yield first
    for one in instances[1:]:
        yield file_in(form, _read(one), one.transfer_syntax_uid)


def _require_form(form: Form, instances: list[Instance]) -> None:
    """Require that all can be sent, before the first byte is.

    Raises:
        HTTPException: 406 if not.
    """
    syntaxes = {one.transfer_syntax_uid for one in instances}
    if not form.is_plain and not all(map(form.keeps, syntaxes)):
        raise HTTPException(406, f"It is stored in {', '.join(sorted(syntaxes))}.")


def _send_metadata(
    request: Request,
    services: Services,
    caller: Caller,
    holdings: Holdings,
    instances: list[Instance],
) -> Response:
    require_json(request)
    has_results = any(one.is_result for one in instances)
    note_retrieval(services, caller, holdings.study_uid, has_results=has_results)
    content = b",".join(metadata_of(holdings, one) for one in instances)
    return Response(b"[" + content + b"]", media_type=JSON_TYPE)


def require_json(request: Request) -> None:
    """Require that DICOM JSON is taken.

    Raises:
        HTTPException: 406 if not.
    """
    accepted = accepted_in(request.headers.get("accept"))
    if not any(one.media_type in _JSON_TYPES for one in accepted):
        raise HTTPException(406, f"Attributes are sent as {JSON_TYPE}.")


def _read(one: Instance) -> bytes:
    """Return the file of an object; what was put in its place is looked at again.

    Raises:
        HTTPException: 404 where it is gone or tells of a patient by now.
        SourceError: If it cannot be read.
    """
    raw = one.read()
    if one.must_name_nobody and not names_nobody(raw):
        raise HTTPException(404, _GONE)
    return raw


def require_study(services: Services, caller: Caller, study_uid: str) -> Holdings:
    """Return what a caller may see of a study; its results are made if need be.

    Raises:
        IdentifierError: If ``study_uid`` is no valid UID.
        HTTPException: 404 where nothing may be served of it.
    """
    sees = caller.sees_results(services, study_uid)
    listed = find_study(services, study_uid, with_results=sees, makes=True)
    holdings = None if listed is None else listed.load()
    if holdings is None:
        raise HTTPException(404, "There is no such study.")
    return holdings


def _require_series(holdings: Holdings, series_uid: str) -> list[Instance]:
    instances = holdings.of_series(series_uid)
    if not instances:
        raise HTTPException(404, "There is no such series.")
    return instances


def _require_instance(holdings: Holdings, series_uid: str, sop_uid: str) -> Instance:
    for one in holdings.of_series(series_uid):
        if one.sop_uid == sop_uid:
            return one
    raise HTTPException(404, _GONE)


def _numbers_in(text: str, frames: int) -> list[int]:
    parts = text.split(",")
    is_list = len(parts) <= _MOST_FRAMES and all(
        part.isascii() and part.isdigit() and len(part) < 7 for part in parts
    )
    if not is_list:
        raise HTTPException(400, "Frames are numbers from 1, with commas between.")
    numbers = [int(part) for part in parts]
    if not all(1 <= number <= frames for number in numbers):
        raise HTTPException(404, f"This object has {frames} frames.")
    if len(set(numbers)) < len(numbers):  # a short address would ask for gigabytes
        raise HTTPException(400, "A frame is sent once.")
    return numbers


def _to_json(attributes: dict[str, Any]) -> bytes:
    return json.dumps(attributes, separators=(",", ":")).encode()
