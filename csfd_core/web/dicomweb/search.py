"""QIDO-RS: which studies, series and objects there are (PS3.18 section 10.6)."""

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response

from csfd_core.web.dicomweb.access import Caller, WhoReads
from csfd_core.web.dicomweb.holdings import (
    Found,
    Holdings,
    Instance,
    find_study,
    served_studies,
)
from csfd_core.web.dicomweb.matching import USUAL, Query, query_of
from csfd_core.web.dicomweb.remembered import Remembered
from csfd_core.web.dicomweb.retrieve import (
    metadata_of,
    require_json,
    require_study,
)
from csfd_core.web.security.sessions import services_of
from csfd_core.web.services import Services

router = APIRouter()

_JSON_TYPE: Final = "application/dicom+json"
_STUDY_UID: Final = "0020000D"
_SERIES_UID: Final = "0020000E"
_RETRIEVE_URL: Final = "00081190"
_KEPT: Final = 4096  # studies of which a search need look at no file
# Attributes that are told unasked (PS3.18 tables 10.6.3-3 to 10.6.3-5).
_OF_STUDY: Final = {
    "00080020": "DA",  # StudyDate
    "00080030": "TM",  # StudyTime
    "00080050": "SH",  # AccessionNumber
    "00080090": "PN",  # ReferringPhysicianName
    "00100010": "PN",  # PatientName
    "00100020": "LO",  # PatientID
    "00100030": "DA",  # PatientBirthDate
    "00100040": "CS",  # PatientSex
    "0020000D": "UI",  # StudyInstanceUID
    "00200010": "SH",  # StudyID
}
_OF_SERIES: Final = {
    "00080060": "CS",  # Modality
    "0008103E": "LO",  # SeriesDescription
    "00180015": "CS",  # BodyPartExamined
    "0020000E": "UI",  # SeriesInstanceUID
    "00200011": "IS",  # SeriesNumber
}

Opened = Annotated[Services, Depends(services_of)]
Json = dict[str, Any]
Level = str  # studies, series or instances
# What is told of it, and what finds the rest: of matches that are passed over, nobody.
Match = tuple[Json, Callable[[], Json]]

_summaries: Final = Remembered[tuple[str, ...], Json | None](_KEPT)


@router.get("/studies")
def search_studies(request: Request, caller: WhoReads, services: Opened) -> Response:
    """Search studies."""
    return _search(request, caller, services, "studies")


@router.get("/series")
def search_all_series(request: Request, caller: WhoReads, services: Opened) -> Response:
    """Search series of all studies."""
    return _search(request, caller, services, "series")


@router.get("/instances")
def search_all_instances(
    request: Request, caller: WhoReads, services: Opened
) -> Response:
    """Search objects of all studies."""
    return _search(request, caller, services, "instances")


@router.get("/studies/{study_uid}/series")
def search_series(
    request: Request, study_uid: str, caller: WhoReads, services: Opened
) -> Response:
    """Search the series of a study."""
    return _search(request, caller, services, "series", study_uid)


@router.get("/studies/{study_uid}/instances")
def search_instances(
    request: Request, study_uid: str, caller: WhoReads, services: Opened
) -> Response:
    """Search the objects of a study."""
    return _search(request, caller, services, "instances", study_uid)


@router.get("/studies/{study_uid}/series/{series_uid}/instances")
def search_series_instances(
    request: Request,
    study_uid: str,
    series_uid: str,
    caller: WhoReads,
    services: Opened,
) -> Response:
    """Search the objects of a series."""
    return _search(request, caller, services, "instances", study_uid, series_uid)


def _search(
    request: Request,
    caller: Caller,
    services: Services,
    level: Level,
    study_uid: str | None = None,
    series_uid: str | None = None,
) -> Response:
    require_json(request)
    query = query_of(request.query_params.multi_items())
    base = f"{request.base_url}dicom-web/studies"
    if study_uid is None:
        studies = _candidates(services, caller, query)
        matches = (
            _studies(studies, query, base)
            if level == "studies"
            else _all(studies, query, level, base)
        )
    else:
        holdings = require_study(services, caller, study_uid)
        matches = _within(holdings, query, level, base, series_uid)
    limit = query.limit
    if limit is None:  # what a study has is told as a whole
        limit = USUAL if study_uid is None else sys.maxsize - query.offset - 1
    selected = list(islice(matches, query.offset, query.offset + limit + 1))
    notes = list(query.notes)
    if len(selected) > limit:
        del selected[limit:]
        notes.append("There are further matches: ask with offset.")
    headers = {"Warning": f'299 csfd "{" ".join(notes)}"'} if notes else {}
    if not selected:
        return Response(status_code=204, headers=headers)
    chosen = [told | further() for told, further in selected]
    content = json.dumps(chosen, separators=(",", ":"))
    return Response(content, headers=headers, media_type=_JSON_TYPE)


def _candidates(services: Services, caller: Caller, query: Query) -> Iterator[Found]:
    """Yield the studies that may match, as far as the caller may see them."""
    wanted = query.uids(_STUDY_UID)
    for uid in served_studies(services):
        if wanted is None or uid in wanted:
            sees = caller.sees_results(services, uid)
            study = find_study(services, uid, with_results=sees)
            if study is not None:
                yield study


def _studies(studies: Iterator[Found], query: Query, base: str) -> Iterator[Match]:
    for one in studies:
        summary = _summaries.get(one.identity, partial(_load_summary, one))
        if summary is None or not query.matches(summary):
            continue
        told = summary | _url(f"{base}/{one.study_uid}")
        yield told, partial(_further_of_study, one, query)


def _all(
    studies: Iterator[Found], query: Query, level: Level, base: str
) -> Iterator[Match]:
    for one in studies:
        holdings = one.load()
        if holdings is not None:
            yield from _matches(holdings, query, level, base)


def _within(
    holdings: Holdings, query: Query, level: Level, base: str, series_uid: str | None
) -> Iterator[Match]:
    """Yield matches of one study, without what the address tells already."""
    implied = _OF_STUDY if series_uid is None else {**_OF_STUDY, **_OF_SERIES}
    for told, further in _matches(holdings, query, level, base, series_uid):
        yield told if query.tells_all else _without(told, implied, query), further


def _matches(
    holdings: Holdings,
    query: Query,
    level: Level,
    base: str,
    series_uid: str | None = None,
) -> Iterator[Match]:
    summary = _summary_of(holdings)
    for uid in holdings.series_uids() if series_uid is None else [series_uid]:
        instances = holdings.of_series(uid)
        if not instances:
            continue
        series = summary | _series_of(holdings, uid, len(instances))
        url = f"{base}/{holdings.study_uid}/series/{uid}"
        if level == "series":
            if query.matches(series):
                further = partial(_further, holdings, instances[0], query)
                yield series | _url(url), further
            continue
        for one in instances:
            attributes = series | one.attributes
            if query.matches(attributes):
                told = attributes | _url(f"{url}/instances/{one.sop_uid}")
                yield told, partial(_further, holdings, one, query)


def _load_summary(study: Found) -> Json | None:
    holdings = study.load()
    return None if holdings is None else _summary_of(holdings)


def _summary_of(holdings: Holdings) -> Json:
    first = holdings.first[holdings.instances[0].series_uid]
    told = {tag: first.get(tag, {"vr": vr}) for tag, vr in _OF_STUDY.items()}
    modalities = {
        value
        for attributes in holdings.first.values()
        for value in attributes.get("00080060", {}).get("Value", [])
    }
    return told | {
        "00080056": {"vr": "CS", "Value": ["ONLINE"]},
        "00080061": {"vr": "CS", "Value": sorted(modalities)},
        "00201206": {"vr": "IS", "Value": [len(holdings.series_uids())]},
        "00201208": {"vr": "IS", "Value": [len(holdings.instances)]},
    }


def _series_of(holdings: Holdings, series_uid: str, instances: int) -> Json:
    first = holdings.first[series_uid]
    told = {tag: first.get(tag, {"vr": vr}) for tag, vr in _OF_SERIES.items()}
    return told | {"00201209": {"vr": "IS", "Value": [instances]}}


def _url(address: str) -> Json:
    return {_RETRIEVE_URL: {"vr": "UR", "Value": [address]}}


def _further_of_study(study: Found, query: Query) -> Json:
    if not query.fields and not query.tells_all:
        return {}
    holdings = study.load()
    return {} if holdings is None else _further(holdings, holdings.instances[0], query)


def _further(holdings: Holdings, one: Instance, query: Query) -> Json:
    """Return what includefield asks for; absent attributes are not told."""
    if not query.fields and not query.tells_all:
        return {}
    metadata: Json = json.loads(metadata_of(holdings, one))
    if query.tells_all:
        return metadata
    return {tag: metadata[tag] for tag in query.fields if tag in metadata}


def _without(match: Json, tags: dict[str, str], query: Query) -> Json:
    """Return a match without what its address tells already, but for the UIDs."""
    retained = {_STUDY_UID, _SERIES_UID, "00080060", *query.fields, *query.keys}
    computed = ("00080061", "00201206", "00201208")
    return {
        tag: value
        for tag, value in match.items()
        if tag in retained or (tag not in tags and tag not in computed)
    }
