"""What a reader is shown of the reviews of a study."""

import json
from typing import Any

import sqlalchemy as sa
from fastapi import HTTPException

from csfd_core.store.stores import Stores
from csfd_core.web.database import drafts, studies
from csfd_core.web.review.blind import has_signed, may_be_blind
from csfd_core.web.review.label_files import to_moment
from csfd_core.web.review.signing import (
    Row,
    levels_that_differ,
    newest_of_each,
    signed_reviews,
)
from csfd_core.web.security.sessions import Session
from csfd_core.web.services import Services


def review_facts(
    services: Services, session: Session, study_uid: str
) -> dict[str, Any]:
    """Return the draft of a reader and all signed reviews as JSON.

    While they read blind, those of others are withheld.

    Raises:
        HTTPException: 404 where there is no such study.
    """
    could_be_blind = may_be_blind(services, study_uid)
    user_id = session.user.id
    with services.database.transaction() as connection:
        study = require_study(connection, study_uid)
        draft = connection.execute(
            sa.select(drafts).where(
                drafts.c.user_id == user_id, drafts.c.study_uid == study_uid
            )
        ).first()
        has_own = has_signed(connection, user_id, study_uid)
        reviews = signed_reviews(connection, study_uid)
    blind = could_be_blind and not has_own
    seen = [row for row in reviews if row.user_id == user_id] if blind else reviews
    of_version = [] if blind else newest_of_each(reviews, study.version)
    return {
        "study_uid": study_uid,
        "version": study.version,
        "state": study.state,
        "reader": session.user.name,
        "blind": blind,
        "has_signed": has_own,
        "draft": None if draft is None else _draft(draft),
        "reviews": to_json(services.stores, seen, user_id),
        "readers": len(of_version),
        "differ": levels_that_differ(of_version),
    }


def require_study(connection: sa.Connection, study_uid: str) -> Row:
    """Return the row of a study.

    Raises:
        HTTPException: 404 where it is not known.
    """
    same = studies.c.study_uid == study_uid
    row = connection.execute(sa.select(studies).where(same)).first()
    if row is None:
        raise HTTPException(404, "There is no such study.")
    return row


def to_json(stores: Stores, rows: list[Row], user_id: int) -> list[dict[str, Any]]:
    """Return reviews of one study as JSON, in their order.

    Boxes lie on the slices as they are numbered now; without one that is gone.
    """
    bodies = [json.loads(row.body) for row in rows]
    index_of: dict[str | None, int] = {}
    if any(body["boxes"] for body in bodies):
        sop_uids = stores.metadata.read_sop_uids(rows[0].study_uid)
        index_of = {uid: index for index, uid in enumerate(sop_uids)}
    return [
        {
            "id": row.id,
            "reader": row.name,
            "is_mine": row.user_id == user_id,
            "signed_at": to_moment(row.signed_at).isoformat(),
            "version": row.version,
            "saw_ai": row.saw_ai,
            "levels": body["levels"],
            "boxes": [_box(box, index_of) for box in body["boxes"]],
            "comment": body["comment"],
        }
        for row, body in zip(rows, bodies, strict=True)
    ]


def _box(box: dict[str, Any], index_of: dict[str | None, int]) -> dict[str, Any]:
    sop_uid = box.get("sop_instance_uid")
    now = box["slice_index"] if sop_uid is None else index_of.get(sop_uid)
    return {**box, "slice_index": now}


def _draft(row: Row) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(row.body)
    return {**told, "saved_at": to_moment(row.saved_at).isoformat()}
