"""Routes: result objects of a study, and their way to the archives.

What a prediction says of fractures is withheld from readers who must read blind, and so
is whether and where it was sent.
"""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, HTTPException, Response
from pydantic import BaseModel, ConfigDict, Field

from csfd_core.vocabulary import require_uid
from csfd_core.web.audit import Action, record
from csfd_core.web.delivery.artifacts import Artifact, download_of
from csfd_core.web.delivery.deliveries import Delivery, of_study
from csfd_core.web.delivery.peers import all_peers
from csfd_core.web.delivery.planning import ask_by_hand, why_not
from csfd_core.web.review.blind import is_blind, note_sight
from csfd_core.web.review.shown import require_study
from csfd_core.web.review.signing import signed_reviews
from csfd_core.web.security.sessions import Session, require_session, services_of
from csfd_core.web.security.users import User
from csfd_core.web.services import Services
from csfd_core.web.study_states import StudyState

router = APIRouter(prefix="/studies/{study_uid}", tags=["results"])

WhoAsks = Annotated[Session, Depends(require_session)]
Opened = Annotated[Services, Depends(services_of)]

_BLIND: Final = "This study is read blind: sign your review first."
_MOST_PEER: Final = 2**31 - 1


class Push(BaseModel):
    """Where results are to go."""

    model_config = ConfigDict(extra="forbid")

    peer_id: int = Field(ge=1, le=_MOST_PEER)


class PeerFacts(BaseModel):
    """A peer that results may go to."""

    id: int
    name: str
    is_automatic: bool


class DeliveryFacts(BaseModel):
    """How far results are on their way to a peer."""

    id: int
    peer: str
    is_review: bool
    state: str
    told: str
    attempts: int
    next_at: float
    changed_at: float


class ResultFacts(BaseModel):
    """What there is of a study for an archive; ``why_not`` says why it cannot go."""

    why_not: str
    has_review: bool
    peers: list[PeerFacts]
    deliveries: list[DeliveryFacts]


@router.get("/results")
def show_results(study_uid: str, session: WhoAsks, services: Opened) -> ResultFacts:
    """Tell where the results of a study may go, and where they are."""
    uid = require_uid(study_uid)
    _require_sight(services, session, uid)
    return _facts(services, uid, session.user)


@router.post("/push", status_code=202)
def push(
    study_uid: str, wanted: Push, session: WhoAsks, services: Opened
) -> ResultFacts:
    """Send the prediction and what was signed to a peer, also once more."""
    uid = require_uid(study_uid)
    row = _require_sight(services, session, uid)
    if row.state != StudyState.DONE:
        raise HTTPException(409, "This study is not ready yet. Send it once it is.")
    if why := why_not(services, uid, session.user):
        raise HTTPException(409, why)
    with services.database.transaction() as connection:
        active = {peer.id for peer in all_peers(connection, active=True)}
    if wanted.peer_id not in active:
        raise HTTPException(404, "There is no such peer that results may go to.")
    if not ask_by_hand(services, uid, wanted.peer_id):
        raise HTTPException(409, "There is nothing to send, or it is on its way.")
    with services.database.transaction() as connection:
        record(connection, session.user.id, Action.RESULTS_ASKED, uid)
    return _facts(services, uid, session.user)


@router.get("/artifacts/{artifact}", response_class=Response)
def download(
    study_uid: str, artifact: Artifact, session: WhoAsks, services: Opened
) -> Response:
    """Send result objects without the patient, as DICOM."""
    uid = require_uid(study_uid)
    _require_sight(services, session, uid)
    file = download_of(services, uid, artifact)
    with services.database.transaction() as connection:
        note_sight(connection, session.user.id, uid)
        record(connection, session.user.id, Action.DOWNLOADED, uid, artifact)
    name = f'attachment; filename="{file.name}"'
    return Response(
        file.content,
        media_type=file.media_type,
        headers={"Content-Disposition": name},
    )


def _require_sight(services: Services, session: Session, uid: str) -> Any:  # noqa: ANN401
    """Return the row of a study whose prediction a reader may see.

    Raises:
        HTTPException: 404 where there is no such study, 403 for who reads blind.
    """
    with services.database.transaction() as connection:
        row = require_study(connection, uid)
    if is_blind(services, session, uid):
        raise HTTPException(403, _BLIND)
    return row


def _facts(services: Services, uid: str, user: User) -> ResultFacts:
    with services.database.transaction() as connection:
        active = all_peers(connection, active=True)
        deliveries = of_study(connection, uid)
        has_review = bool(signed_reviews(connection, uid))
    return ResultFacts(
        why_not=why_not(services, uid, user),
        has_review=has_review,
        peers=[
            PeerFacts(id=peer.id, name=peer.name, is_automatic=peer.is_automatic)
            for peer in active
        ],
        deliveries=[_delivery(one) for one in deliveries],
    )


def _delivery(one: Delivery) -> DeliveryFacts:
    return DeliveryFacts(
        id=one.id,
        peer=one.peer,
        is_review=one.review_id is not None,
        state=one.state,
        told=one.told,
        attempts=one.attempts,
        next_at=one.next_at,
        changed_at=one.changed_at,
    )
