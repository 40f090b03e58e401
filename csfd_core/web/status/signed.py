"""What readers have signed of the studies of a list: read at once, not one by one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from csfd_core.vocabulary import LEVEL_NAMES
from csfd_core.web.database import reviews, studies
from csfd_core.web.review.blind import may_be_blind
from csfd_core.web.review.forms import Answer
from csfd_core.web.security.sessions import Session
from csfd_core.web.services import Services


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedAnswer:
    """What the newest signature says; ``kind``: ``fractured``, ``whole`` or neither."""

    words: str
    kind: str


def answers_of(
    services: Services, session: Session, rows: Sequence[Any]
) -> dict[str, SignedAnswer]:
    """Return what was signed last of the newest version of each study, by its UID.

    Args:
        services: The database.
        session: Who looks; what they read blind and have not signed is left out.
        rows: Of ``studies``.
    """
    uids = [row.study_uid for row in rows]
    of_version = (
        sa.select(reviews.c.study_uid, reviews.c.user_id, reviews.c.body)
        .join(studies, studies.c.study_uid == reviews.c.study_uid)
        .where(reviews.c.study_uid.in_(uids), reviews.c.version == studies.c.version)
        .order_by(reviews.c.id)
    )
    with services.database.transaction() as connection:
        signed = connection.execute(of_version).all() if uids else []
    newest = {row.study_uid: row.body for row in signed}
    own = {row.study_uid for row in signed if row.user_id == session.user.id}
    return {
        uid: told_answer(json.loads(body)["levels"])
        for uid, body in newest.items()
        if uid in own or not may_be_blind(services, uid)
    }


def told_answer(levels: Mapping[str, str | None]) -> SignedAnswer:
    """Say in words what was signed of the levels."""
    said = {name: levels.get(name) for name in LEVEL_NAMES}
    fractured = [name for name in said if said[name] == Answer.FRACTURED]
    open_ = [name for name in said if said[name] != Answer.WHOLE]
    if fractured:
        words = f"fractured {', '.join(fractured)}"
        return SignedAnswer(words=words, kind="fractured")
    if len(open_) == len(said):
        return SignedAnswer(words="not assessable", kind="")
    rest = f", not assessed: {', '.join(open_)}" if open_ else ""
    return SignedAnswer(words=f"no fracture{rest}", kind="whole")
