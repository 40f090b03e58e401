"""Signing a review: appended to those that are there, never in place of one."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from fastapi import HTTPException

from csfd_core.errors import SourceError
from csfd_core.store.label_notes import LabelBox, LabelNote, read_label_note
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES, is_uid
from csfd_core.web.audit import Action, record
from csfd_core.web.database import drafts, reviews, studies, users
from csfd_core.web.review.blind import has_seen, has_signed, may_be_blind
from csfd_core.web.review.forms import Answer, DrawnBox, ReviewForm
from csfd_core.web.review.label_files import to_moment
from csfd_core.web.security.sessions import Session
from csfd_core.web.services import Services
from csfd_core.web.study_states import OPEN, StudyState

_LEAST_STEP_S: Final = 0.001  # between two reviews of a study, whatever the clock says

Row = Any  # of SQL


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A review that is on record; ``is_new``: by this request."""

    review_id: int
    is_new: bool


def sign(
    services: Services, session: Session, study_uid: str, form: ReviewForm
) -> Signature:
    """Record a review, and what it makes of its study.

    Signing the same twice, as by a double click, is signing once.

    Raises:
        HTTPException: 404 where there is no such study, 409 where it cannot be signed
            as the page has shown it, 422 where nothing is said of it, or a box cannot
            be meant.
    """
    note = _usable_note(services, study_uid)
    boxes = _placed(services.stores, study_uid, form)
    body = {
        "levels": form.answers,
        "boxes": [box.to_json() for box in boxes],
        "comment": form.comment,
    }
    could_be_blind = may_be_blind(services, study_uid)
    user_id = session.user.id
    with services.database.transaction() as connection:
        study = _require_current(connection, study_uid, form.version)
        earlier = signed_reviews(connection, study_uid)
        if earlier and _is_same(earlier[-1], user_id, form.version, body):
            return Signature(review_id=earlier[-1].id, is_new=False)
        signed_at = round(time.time(), 6)
        if earlier:
            signed_at = max(signed_at, earlier[-1].signed_at + _LEAST_STEP_S)
        if note is not None and note.moment >= to_moment(signed_at):
            raise HTTPException(
                409, "The inbox has a label file of this study with a later date."
            )
        was_blind = could_be_blind and not has_signed(connection, user_id, study_uid)
        saw_ai = not was_blind or has_seen(connection, user_id, study_uid)
        made = connection.execute(
            reviews.insert().values(
                study_uid=study_uid,
                user_id=user_id,
                signed_at=signed_at,
                version=form.version,
                prediction=study.prediction,
                saw_ai=saw_ai,
                body=json.dumps(body),
            )
        )
        same_draft = (drafts.c.user_id == user_id) & (drafts.c.study_uid == study_uid)
        connection.execute(drafts.delete().where(same_draft))
        _tell_study(connection, study)
        record(connection, user_id, Action.REVIEW_SIGNED, study_uid)
    (number,) = made.inserted_primary_key or (0,)
    return Signature(review_id=int(number), is_new=True)


def signed_reviews(connection: sa.Connection, study_uid: str) -> list[Row]:
    """Return all reviews of a study with the names of their readers, oldest first."""
    same_study = reviews.c.study_uid == study_uid
    return list(
        connection.execute(
            sa.select(reviews, users.c.name)
            .join(users, users.c.id == reviews.c.user_id)
            .where(same_study)
            .order_by(reviews.c.id)
        )
    )


def newest_of_each(rows: Sequence[Row], version: int) -> list[Row]:
    """Return the newest review of each reader, of one version of a study.

    Args:
        rows: Of ``reviews``, the oldest first.
        version: The version.
    """
    newest = {row.user_id: row for row in rows if row.version == version}
    return list(newest.values())


def levels_that_differ(rows: Sequence[Row]) -> list[str]:
    """Return the levels of which readers say different things.

    Who has said nothing of a level does not differ.
    """
    said = [json.loads(row.body)["levels"] for row in rows]
    return [
        name
        for name in LEVEL_NAMES
        if len({answers[name] for answers in said} - {None}) > 1
    ]


def _usable_note(services: Services, study_uid: str) -> LabelNote | None:
    """Return the label file of the inbox, which a signature will replace."""
    try:
        note = read_label_note(services.inbox, study_uid)
    except SourceError as error:
        raise HTTPException(409, str(error)) from None
    is_gone = note is not None and note.withdrawn is not None
    if is_gone or services.stores.withdrawn.has(study_uid):
        raise HTTPException(409, "This study was withdrawn: it cannot be signed.")
    return note


def _require_current(connection: sa.Connection, study_uid: str, version: int) -> Row:
    """Return a study that is done and of which the page has shown the newest slices."""
    same = studies.c.study_uid == study_uid
    row = connection.execute(sa.select(studies).where(same).with_for_update()).first()
    if row is None:
        raise HTTPException(404, "There is no such study.")
    if row.version != version:
        raise HTTPException(
            409, "This study has a new version. Load the page and look again."
        )
    if row.state in OPEN:
        raise HTTPException(409, "This study is not ready yet. Sign it once it is.")
    if row.state != StudyState.DONE:
        raise HTTPException(409, f"This study was {row.state}: it cannot be signed.")
    return row


def _is_same(row: Row, user_id: int, version: int, body: Mapping[str, Any]) -> bool:
    """Say whether the newest review of a study says what is signed now."""
    is_own = (row.user_id, row.version) == (user_id, version)
    return is_own and json.loads(row.body) == json.loads(json.dumps(body))


def _tell_study(connection: sa.Connection, study: Row) -> None:
    """Write into the row of a study what its reviews come to."""
    newest = newest_of_each(signed_reviews(connection, study.study_uid), study.version)
    values = {
        "signed_version": study.version,
        "signed_count": len(newest),
        "readers_differ": bool(levels_that_differ(newest)),
    }
    same = studies.c.study_uid == study.study_uid
    connection.execute(studies.update().where(same).values(**values))


def _placed(stores: Stores, study_uid: str, form: ReviewForm) -> list[LabelBox]:
    """Return boxes with the instance numbers of their slices.

    Raises:
        HTTPException: 422 if nothing was said, or a box cannot be meant.
    """
    answers = form.answers
    if not any(answers.values()):
        raise HTTPException(422, "Say of at least one level what you see.")
    if not form.boxes:
        return []
    odd = {box.level for box in form.boxes if answers[box.level] != Answer.FRACTURED}
    if odd:
        raise HTTPException(
            422, f"A box lies on {min(odd)}, which is not said to be fractured."
        )
    record = stores.metadata.read_record(study_uid)
    geometry = None if record is None else record.volume_geometry()
    if geometry is None:
        raise HTTPException(409, "The slices of this study are not stored yet.")
    _, rows, columns = geometry.shape_zyx
    numbers = stores.metadata.read_instance_numbers(study_uid)
    sop_uids = stores.metadata.read_sop_uids(study_uid)
    placed = []
    for box in form.boxes:
        _require_inside(box, (len(numbers), rows, columns))
        number, sop_uid = numbers[box.slice_index], sop_uids[box.slice_index]
        if number is None or numbers.count(number) > 1:
            raise HTTPException(
                422,
                "A box lies on a slice without an instance number of its own: it "
                "cannot be kept. Draw it on another one.",
            )
        placed.append(
            LabelBox(
                **box.model_dump(),
                slice_number=number,
                sop_instance_uid=sop_uid if sop_uid and is_uid(sop_uid) else None,
            )
        )
    return placed


def _require_inside(box: DrawnBox, shape_zyx: tuple[int, int, int]) -> None:
    depth, rows, columns = shape_zyx
    fits = box.x + box.width < columns + 1 and box.y + box.height < rows + 1
    if not fits or box.slice_index >= depth:
        raise HTTPException(422, f"A box of {box.level} lies outside of the slices.")
