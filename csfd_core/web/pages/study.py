"""The page of one study: its images, what the model says, what readers say."""

from typing import Annotated, Any, Final

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from fastapi.responses import RedirectResponse

from csfd_core.data_kind import DataKind
from csfd_core.inference.predict import read_prediction
from csfd_core.settings import ScheduleSettings
from csfd_core.vocabulary import LEVEL_NAMES, require_uid
from csfd_core.web.audit import Action, record
from csfd_core.web.database import studies
from csfd_core.web.pages.moments import ago
from csfd_core.web.pages.render import caution_of, render, short_uid
from csfd_core.web.review.blind import is_blind, is_locked, note_sight
from csfd_core.web.review.naming import naming_of
from csfd_core.web.security.sessions import (
    Session,
    require_form,
    require_session,
    services_of,
)
from csfd_core.web.services import Services
from csfd_core.web.status.api import retry
from csfd_core.web.status.triage import neighbours
from csfd_core.web.study_states import OPEN, StudyState
from csfd_core.web.volume_choice.choosing import choose_volume
from csfd_core.web.volume_choice.shown import volumes_of

router = APIRouter()

STEPS: Final = ("reading", "slices", "vertebrae", "crops", "prediction")

MySession = Annotated[Session, Depends(require_session)]
MyServices = Annotated[Services, Depends(services_of)]


@router.get("/studies/{study_uid}")
def show_study(
    study_uid: str, request: Request, session: MySession, services: MyServices
) -> Response:
    """Show the viewer and the review; before there is a result, how far it is."""
    row = row_of(services, study_uid)
    before, after = neighbours(services, study_uid)
    blind = is_blind(services, session, study_uid)
    note = None if row.state in OPEN else read_prediction(services.stores, study_uid)
    if note is not None:
        _note_opened(services, session, row, saw_ai=not blind)
    shown = None if blind else note
    offered = volumes_of(services, study_uid)
    # Of a study that is read anew the old volume is not shown meanwhile.
    is_replaced = row.state in OPEN and offered.made(row.version)
    return render(
        request,
        session,
        "study.html",
        row=row,
        short=short_uid(study_uid),
        age=ago(row.accepted_at),
        before=before,
        after=after,
        is_coming=row.state in OPEN,
        is_refused=row.state == StudyState.REFUSED,
        is_failed=row.state == StudyState.FAILED,
        steps=STEPS,
        has_result=note is not None,
        blind=blind,
        note=shown,
        naming=naming_of(note) if note is not None and blind else [],
        is_locked=is_locked(services.stores, study_uid),
        retrain_studies=ScheduleSettings.read().retrain_studies,
        caution="" if note is None else caution_of(DataKind(note["trained_on"])),
        level=None if shown is None else worst_level(shown),
        has_slices=not is_replaced and _has_slices(services, study_uid),
        is_replaced=is_replaced,
        offered=offered,
    )


@router.post("/studies/{study_uid}/retry")
def retry_study(
    study_uid: str,
    services: MyServices,
    session: Annotated[Session, Depends(require_form)],
) -> Response:
    """Ask once more for a study that has failed."""
    retry(study_uid, session, services)
    return RedirectResponse(f"/studies/{study_uid}", 303)


@router.post("/studies/{study_uid}/volume")
def choose_study_volume(
    study_uid: str,
    services: MyServices,
    session: Annotated[Session, Depends(require_form)],
    slice_uid: Annotated[str, Form(max_length=64)],
    version: Annotated[int, Form(ge=1)],
) -> Response:
    """Let another volume of a study be read."""
    choose_volume(services, session.user, study_uid, slice_uid, version)
    return RedirectResponse(f"/studies/{study_uid}", 303)


def worst_level(note: dict[str, Any]) -> str | None:
    """Return the level that is the most likely to be fractured; ``None``: none is."""
    probabilities = {name: note["probabilities"][name] for name in LEVEL_NAMES}
    assessed = {
        name: value for name, value in probabilities.items() if value is not None
    }
    return max(assessed, key=lambda name: assessed[name]) if assessed else None


def _has_slices(services: Services, study_uid: str) -> bool:
    return services.stores.slices.read_note(study_uid) is not None


def row_of(services: Services, study_uid: str) -> Any:  # noqa: ANN401 - a row of SQL
    """Return the row of a study.

    Raises:
        IdentifierError: If ``study_uid`` is no valid UID.
        HTTPException: 404 where it is not known.
    """
    same = studies.c.study_uid == require_uid(study_uid)
    with services.database.transaction() as connection:
        row = connection.execute(sa.select(studies).where(same)).first()
    if row is None:
        raise HTTPException(404, "There is no such study.")
    return row


def _note_opened(
    services: Services,
    session: Session,
    row: Any,  # noqa: ANN401 - a row of SQL
    *,
    saw_ai: bool,
) -> None:
    with services.database.transaction() as connection:
        record(connection, session.user.id, Action.STUDY_OPENED, row.study_uid)
        if saw_ai:
            note_sight(connection, session.user.id, row.study_uid)
