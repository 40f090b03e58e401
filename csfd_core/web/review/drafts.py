"""Drafts: what a reader has said of a study and not signed yet, one for each."""

import json
import time

import sqlalchemy as sa

from csfd_core.web.database import drafts
from csfd_core.web.review.forms import ReviewForm


def save_draft(
    connection: sa.Connection, user_id: int, study_uid: str, form: ReviewForm
) -> float:
    """Keep a draft in place of the one before; return when, in seconds since 1970."""
    now = time.time()
    same_draft = (drafts.c.user_id == user_id) & (drafts.c.study_uid == study_uid)
    values = {"body": json.dumps(form.model_dump(mode="json")), "saved_at": now}
    changed = drafts.update().where(same_draft).values(**values)
    if connection.execute(changed).rowcount:
        return now
    row = {"user_id": user_id, "study_uid": study_uid, **values}
    try:
        with connection.begin_nested():  # another tab may be first
            connection.execute(drafts.insert().values(**row))
    except sa.exc.IntegrityError:
        connection.execute(changed)
    return now


def drop_draft(connection: sa.Connection, user_id: int, study_uid: str) -> None:
    """Forget a draft, if there is one."""
    same_draft = (drafts.c.user_id == user_id) & (drafts.c.study_uid == study_uid)
    connection.execute(drafts.delete().where(same_draft))
