"""The worklist, and the page to upload."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from csfd_core.web.pages.moments import ago
from csfd_core.web.pages.render import render
from csfd_core.web.reception.waiting import waiting_studies
from csfd_core.web.security.sessions import Session, require_session, services_of
from csfd_core.web.services import Services
from csfd_core.web.status.shown import is_hidden
from csfd_core.web.status.signed import answers_of
from csfd_core.web.status.triage import PAGE, SHOWN, UNREAD, Band, Listed, list_studies

router = APIRouter()

_BANDS = {
    Band.FIRST: "Read first",
    Band.BLIND: "Read blind",
    Band.NEEDS_EYES: "Needs eyes",
    Band.OTHER: "Not suspicious",
    Band.COMING: "On the way",
    Band.READ: "Signed",
}
_URGENCY = {0: "", 1: "urgent", 2: "STAT"}

MySession = Annotated[Session, Depends(require_session)]
MyServices = Annotated[Services, Depends(services_of)]


@router.get("/")
def show_worklist(
    request: Request,
    session: MySession,
    services: MyServices,
    state: Literal["unread", "signed", "coming", "all"] = "unread",
    q: Annotated[str, Query(max_length=100)] = "",
    page: Annotated[int, Query(ge=0, le=100_000)] = 0,
    part: bool = False,
) -> Response:
    """Show the worklist; ``part``: its table alone, which the page puts in place."""
    worklist = list_studies(services, state, q, page)
    signed = [one.row for one in worklist.studies if one.is_read]
    answers = answers_of(services, session, signed)
    rows = [
        _row(one, services, session) | {"answer": answers.get(one.study_uid)}
        for one in worklist.studies
    ]
    unread = sum(worklist.counts.get(band, 0) for band in UNREAD)
    return render(
        request,
        session,
        "worklist_table.html" if part else "worklist.html",
        rows=rows,
        shown=state,
        kinds=SHOWN,
        query=q,
        page=page,
        total=worklist.total,
        pages=(worklist.total + PAGE - 1) // PAGE,
        unread=unread,
        first=worklist.counts.get(Band.FIRST, 0),
        coming=worklist.counts.get(Band.COMING, 0),
        max_wait=services.web.max_wait,
        arriving=len(waiting_studies(services.settings)),
    )


@router.get("/upload")
def show_upload(request: Request, session: MySession) -> Response:
    """Show the page to upload studies."""
    return render(request, session, "upload.html")


def _row(one: Listed, services: Services, session: Session) -> dict[str, Any]:
    row = one.row
    hidden = is_hidden(services, session, row)
    return {
        "uid": one.study_uid,
        "band": one.band.name.lower(),
        "title": _BANDS[one.band],
        "waited": one.has_waited,
        "state": row.state,
        "step": row.step,
        "reason": row.reason,
        "version": row.version,
        "urgency": _URGENCY[row.priority],
        "age": ago(row.accepted_at),
        "hidden": hidden,
        "verdict": "" if hidden else row.verdict,
        "suspicious": [] if hidden else row.suspicious.split(),
        "ratio": 0.0 if hidden else row.ratio,
        "overall": None if hidden else row.overall,
        "eyes": row.needs_eyes and not hidden,
        "signed": row.signed_count if one.is_read else 0,
        "differ": row.readers_differ,
    }
