"""What readers say of a study: drafts, signatures, and the prediction beside them."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Response
from fastapi.responses import JSONResponse

from csfd_core.inference.predict import read_prediction
from csfd_core.reports.summary_pdf import summary_pdf
from csfd_core.vocabulary import require_uid
from csfd_core.web.audit import Action, record
from csfd_core.web.review.blind import is_blind, note_sight
from csfd_core.web.review.drafts import drop_draft, save_draft
from csfd_core.web.review.forms import ReviewForm, body_of, described
from csfd_core.web.review.label_files import to_moment, write_pending
from csfd_core.web.review.shown import require_study, review_facts, to_json
from csfd_core.web.review.signing import sign, signed_reviews
from csfd_core.web.review.summary import summary_of
from csfd_core.web.security.sessions import Session, require_session, services_of
from csfd_core.web.services import Services

router = APIRouter(prefix="/studies/{study_uid}", tags=["review"])

WhoAsks = Annotated[Session, Depends(require_session)]
Opened = Annotated[Services, Depends(services_of)]
Sent = Annotated[ReviewForm, Depends(body_of(ReviewForm))]

_BLIND = "This study is read blind: sign your review first."


@router.get("/review")
def show_review(study_uid: str, session: WhoAsks, services: Opened) -> dict[str, Any]:
    """Tell the reader's draft, the signed reviews, and where readers differ."""
    return review_facts(services, session, require_uid(study_uid))


@router.put("/draft", openapi_extra=described(ReviewForm))
def put_draft(
    study_uid: str, session: WhoAsks, services: Opened, form: Sent
) -> dict[str, str]:
    """Keep what a reader has said so far; the last that was sent counts."""
    uid = require_uid(study_uid)
    with services.database.transaction() as connection:
        require_study(connection, uid)
        saved_at = save_draft(connection, session.user.id, uid, form)
    return {"saved_at": to_moment(saved_at).isoformat()}


@router.delete("/draft", status_code=204)
def delete_draft(study_uid: str, session: WhoAsks, services: Opened) -> Response:
    """Forget what a reader has said so far."""
    uid = require_uid(study_uid)
    with services.database.transaction() as connection:
        require_study(connection, uid)
        drop_draft(connection, session.user.id, uid)
    return Response(status_code=204)


@router.post("/sign", status_code=201, openapi_extra=described(ReviewForm))
def post_signature(
    study_uid: str, session: WhoAsks, services: Opened, form: Sent
) -> Response:
    """Sign a review: it is appended, and becomes the label file of the study.

    What was signed already, as by a double click, is answered with 200.
    """
    uid = require_uid(study_uid)
    signed = sign(services, session, uid, form)
    waiting = write_pending(services).waiting
    with services.database.transaction() as connection:
        rows = [
            row for row in signed_reviews(connection, uid) if row.id == signed.review_id
        ]
    (review,) = to_json(services.stores, rows, session.user.id)
    content = {**review, "label_file_waits": uid in waiting}
    return JSONResponse(content, 201 if signed.is_new else 200)


@router.get("/prediction")
def show_prediction(
    study_uid: str, session: WhoAsks, services: Opened
) -> dict[str, Any]:
    """Tell what the model says; a reader who has seen it is noted."""
    return _opened_prediction(services, session, require_uid(study_uid))


@router.get("/prediction.json")
def download_prediction(study_uid: str, session: WhoAsks, services: Opened) -> Response:
    """Send the prediction as a file."""
    uid = require_uid(study_uid)
    note = _opened_prediction(services, session, uid)
    with services.database.transaction() as connection:
        record(connection, session.user.id, Action.DOWNLOADED, uid, "prediction")
    name = f'attachment; filename="{uid}_prediction.json"'
    return JSONResponse(note, headers={"Content-Disposition": name})


@router.get("/summary.pdf")
def download_summary(study_uid: str, session: WhoAsks, services: Opened) -> Response:
    """Send one page on the study as PDF, for the file; it is no report."""
    uid = require_uid(study_uid)
    note = _opened_prediction(services, session, uid)
    content = summary_pdf(summary_of(services, uid, note))
    with services.database.transaction() as connection:
        record(connection, session.user.id, Action.DOWNLOADED, uid, "summary")
    name = f'attachment; filename="{uid}_summary.pdf"'
    return Response(
        content, media_type="application/pdf", headers={"Content-Disposition": name}
    )


def _opened_prediction(
    services: Services, session: Session, study_uid: str
) -> dict[str, Any]:
    """Return a prediction, and note that the reader has seen it.

    Raises:
        HTTPException: 403 for who reads blind, 404 where there is none.
    """
    with services.database.transaction() as connection:
        require_study(connection, study_uid)
    if is_blind(services, session, study_uid):
        raise HTTPException(403, _BLIND)
    note = read_prediction(services.stores, study_uid)
    if note is None:
        raise HTTPException(404, "This study has no prediction yet.")
    with services.database.transaction() as connection:
        if note_sight(connection, session.user.id, study_uid):
            record(connection, session.user.id, Action.STUDY_OPENED, study_uid)
    return note
