"""What becomes of a study that was uploaded, from accepted to done.

The web accepts; whoever runs the graph (``csfd_dagster``) asks for a study, tells its
steps and its end. A row changes only here.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa

from csfd_core.web.database import (
    Database,
    deliveries,
    drafts,
    references,
    reviews,
    sights,
    studies,
    vault,
)


class StudyState(StrEnum):
    """Where an uploaded study is on its way."""

    ACCEPTED = "accepted"  # stored in the inbox; nobody has asked for it yet
    RUNNING = "running"  # asked for: in the queue, or under way
    DONE = "done"
    REFUSED = "refused"  # quarantined: its files cannot be trusted
    FAILED = "failed"  # something else went wrong; may be tried again


OPEN: Final = (StudyState.ACCEPTED, StudyState.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A study whose files lie in the inbox.

    Attributes:
        study_uid: Keyed, as in the files.
        slices: How many files it has now.
        priority: 0 routine, 1 urgent, 2 STAT.
        user_id: Who has uploaded it; ``None``: it came over the network.
        references: Keyed digests of what it may be searched by.
    """

    study_uid: str
    slices: int
    priority: int
    user_id: int | None
    references: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStudy:
    """A study that was accepted and is not done."""

    study_uid: str
    state: StudyState
    version: int
    attempt: int
    priority: int
    accepted_at: float
    run_id: str


def accept(connection: sa.Connection, one: Accepted) -> int:
    """Record a study whose files are in the inbox; return its version.

    A study that comes again with further slices, or of which another volume is to be
    read, is a new version of the same study.
    """
    now = time.time()
    row = connection.execute(
        sa.select(studies.c.version).where(studies.c.study_uid == one.study_uid)
    ).first()
    version = 1 if row is None else row.version + 1
    values: dict[str, Any] = {
        "state": StudyState.ACCEPTED,
        "step": "",
        "reason": "",
        "version": version,
        "slices": one.slices,
        "priority": one.priority,
        "user_id": one.user_id,
        "accepted_at": now,
        "done_at": None,
        "run_id": "",
        "attempt": 0,
    }
    if row is None:
        connection.execute(studies.insert().values(study_uid=one.study_uid, **values))
    else:
        same = studies.c.study_uid == one.study_uid
        connection.execute(studies.update().where(same).values(**values))
    recorded = set(
        connection.scalars(
            sa.select(references.c.digest).where(
                references.c.study_uid == one.study_uid
            )
        )
    )
    for digest in sorted(one.references - recorded):
        connection.execute(
            references.insert().values(digest=digest, study_uid=one.study_uid)
        )
    return version


def open_studies(database: Database) -> list[OpenStudy]:
    """Return what is not done: the most urgent first, then the oldest."""
    wanted = (
        sa.select(studies)
        .where(studies.c.state.in_(OPEN))
        .order_by(studies.c.priority.desc(), studies.c.accepted_at)
    )
    with database.transaction() as connection:
        return [
            OpenStudy(
                study_uid=row.study_uid,
                state=StudyState(row.state),
                version=row.version,
                attempt=row.attempt,
                priority=row.priority,
                accepted_at=row.accepted_at,
                run_id=row.run_id,
            )
            for row in connection.execute(wanted)
        ]


def tell(
    database: Database,
    one: OpenStudy,
    state: StudyState,
    *,
    step: str = "",
    reason: str = "",
    run_id: str = "",
) -> bool:
    """Say where a study is now, unless a newer version or attempt has come meanwhile.

    Returns:
        Whether it was said.
    """
    values: dict[str, Any] = {"state": state, "step": step, "reason": reason}
    if run_id:
        values["run_id"] = run_id
    if state not in OPEN:
        values["done_at"] = time.time()
    told = (
        studies.update()
        .where(
            studies.c.study_uid == one.study_uid,
            studies.c.version == one.version,
            studies.c.attempt == one.attempt,
        )
        .values(**values)
    )
    with database.transaction() as connection:
        return connection.execute(told).rowcount == 1


def try_again(connection: sa.Connection, study_uid: str) -> bool:
    """Accept a failed study once more; return whether it had failed."""
    again = (
        studies.update()
        .where(studies.c.study_uid == study_uid, studies.c.state == StudyState.FAILED)
        .values(
            state=StudyState.ACCEPTED,
            step="",
            reason="",
            run_id="",
            attempt=studies.c.attempt + 1,
            done_at=None,
        )
    )
    return connection.execute(again).rowcount == 1


def forget(connection: sa.Connection, study_uids: Iterable[str]) -> None:
    """Remove withdrawn studies, with all that was said of them but the audit log."""
    uids = list(study_uids)
    for table in (vault, deliveries, references, drafts, sights, reviews, studies):
        connection.execute(table.delete().where(table.c.study_uid.in_(uids)))
