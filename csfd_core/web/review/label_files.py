"""Signed reviews as label files in the inbox, where the graph takes them up.

The database is what counts: a review is recorded first, and its label file follows from
it. ``write_pending`` compares the two, so that a process which was killed in between
loses nothing.
"""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import Any, Final

import sqlalchemy as sa

from csfd_core.errors import SourceError
from csfd_core.store.label_notes import LabelNote, label_path, read_label_note
from csfd_core.web.database import reviews, users
from csfd_core.web.review.forms import Answer
from csfd_core.web.services import Services

_LOG: Final = logging.getLogger(__name__)
_LOCK: Final = Lock()  # of several threads that write, one at a time
_settled: Final[dict[tuple[str, str], int]] = {}  # inbox and study: newest review


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedReview:
    """A review as it is recorded.

    Attributes:
        id: Reviews are numbered as they are signed.
        study_uid: What was read.
        reader: The name of who has read it.
        signed_at: When.
        body: ``levels``, ``boxes`` and ``comment``.
    """

    id: int
    study_uid: str
    reader: str
    signed_at: datetime
    body: Mapping[str, Any]


def to_moment(seconds: float) -> datetime:
    """Return a time of the database, in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """What became of label files: how many were written, which studies still wait."""

    written: int
    waiting: frozenset[str]


def write_pending(services: Services) -> Writing:
    """Write the label file of each study whose newest review is newer than it.

    What was written is remembered, so that doing it again costs one query. A file that
    withdraws its study is left alone. One that cannot be written, or that another one
    which cannot be used stands in the way of, waits for the next time.
    """
    wanted = sa.select(reviews.c.study_uid, sa.func.max(reviews.c.id).label("newest"))
    with services.database.transaction() as connection:
        rows = connection.execute(wanted.group_by(reviews.c.study_uid)).all()
    written, waiting = 0, set[str]()
    with _LOCK:
        for row in rows:
            key = (services.inbox.url, row.study_uid)
            if _settled.get(key) == row.newest:
                continue
            try:
                review, was_written = _settle(services, row.study_uid)
            except SourceError as error:
                _LOG.warning("A review waits for its label file. %s", error)
                waiting.add(row.study_uid)
                continue
            written += was_written
            _settled[key] = review.id
    return Writing(written=written, waiting=frozenset(waiting))


def write_withdrawal(services: Services, study_uid: str, reason: str, by: str) -> None:
    """Write a label file that withdraws a study; no review replaces it any more.

    Raises:
        SourceError: If it cannot be written.
    """
    note = {"study_uid": study_uid, "withdrawn": reason, "reader": by}
    with _LOCK:
        content = json.dumps(note, indent=2) + "\n"
        services.inbox.write(label_path(study_uid), content.encode())


def is_withdrawn(services: Services, study_uid: str) -> bool:
    """Say whether a study was withdrawn, also where the graph has not seen it yet.

    Raises:
        IdentifierError: If ``study_uid`` is no valid UID.
    """
    if services.stores.withdrawn.has(study_uid):
        return True
    with suppress(SourceError):  # a file that cannot be used withdraws nothing
        note = read_label_note(services.inbox, study_uid)
        return note is not None and note.withdrawn is not None
    return False


def newest_review(services: Services, study_uid: str) -> SignedReview:
    """Return the newest review of a study that has one."""
    with services.database.transaction() as connection:
        row = connection.execute(
            sa.select(reviews, users.c.name)
            .join(users, users.c.id == reviews.c.user_id)
            .where(reviews.c.study_uid == study_uid)
            .order_by(reviews.c.id.desc())
            .limit(1)
        ).one()
    return SignedReview(
        id=row.id,
        study_uid=study_uid,
        reader=row.name,
        signed_at=to_moment(row.signed_at),
        body=json.loads(row.body),
    )


def label_file(review: SignedReview, note: LabelNote | None) -> dict[str, Any]:
    """Return what the label file of a review says; never its comment.

    Args:
        review: The newest of the study.
        note: What its label file has said before.
    """
    answers = {
        name: None if value is None else Answer(value).label
        for name, value in review.body["levels"].items()
    }
    slices = {} if note is None or note.slices is None else {"slices": note.slices}
    return {
        "study_uid": review.study_uid,
        "labels": answers,
        "reader": review.reader,
        "date": review.signed_at.date().isoformat(),
        "signed_at": review.signed_at.isoformat(timespec="microseconds"),
        "boxes": review.body["boxes"],
        **slices,
    }


def _settle(services: Services, study_uid: str) -> tuple[SignedReview, bool]:
    """Write a label file until it is that of the newest review.

    Another process may sign and write at the same time.
    """
    was_written = False
    while True:
        review = newest_review(services, study_uid)
        note = read_label_note(services.inbox, study_uid)
        if _is_pending(services, review, note):
            content = json.dumps(label_file(review, note), indent=2) + "\n"
            services.inbox.write(label_path(study_uid), content.encode())
            was_written = True
        if newest_review(services, study_uid).id == review.id:
            return review, was_written


def _is_pending(
    services: Services, review: SignedReview, note: LabelNote | None
) -> bool:
    if services.stores.withdrawn.has(review.study_uid):
        return False
    if note is None:
        return True
    return note.withdrawn is None and note.moment < review.signed_at
