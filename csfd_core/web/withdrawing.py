"""Taking a study out, as far as the page has it.

The page removes the images that it has taken in and writes a label file that withdraws
the study; the graph does the rest, as after ``csfd withdraw``.
"""

import time
from typing import Final

import sqlalchemy as sa

from csfd_core.store.layout import IMAGES_FOLDER
from csfd_core.text import count
from csfd_core.web.audit import Action, record
from csfd_core.web.database import drafts, reviews, studies
from csfd_core.web.reception.reception import Reception
from csfd_core.web.repeating import Repeating
from csfd_core.web.review.label_files import write_withdrawal
from csfd_core.web.security.users import User
from csfd_core.web.services import Services
from csfd_core.web.study_locks import hold_studies
from csfd_core.web.study_states import OPEN, StudyState
from csfd_core.web.vault import Vault, forget_identities

_LOOK_EVERY_S: Final = 3600.0
_AT_ONCE: Final = 10  # fewer than label files may withdraw between two looks
_DAY_S: Final = 86_400.0
_NOBODY: Final = "csfd"
_BEING_REMOVED: Final = "It was withdrawn, and is being removed."


def withdraw_from_page(
    services: Services,
    reception: Reception,
    study_uid: str,
    reason: str,
    by: User | None,
) -> None:
    """Withdraw a study for good.

    Args:
        services: Stores and database.
        reception: Where its images may still come in.
        study_uid: The study.
        reason: Why, in one line.
        by: Who; ``None``: its time was over.
    """
    # The note first: from then on nothing takes the study up again.
    name = _NOBODY if by is None else by.name
    with hold_studies(services.settings, study_uid):  # who accepts it is done, or waits
        write_withdrawal(services, study_uid, reason, name)
        for entry in services.inbox.entries(f"{IMAGES_FOLDER}/{study_uid}"):
            services.inbox.remove(entry.path)
    reception.forget(study_uid)
    withdrawn = {
        "state": StudyState.REFUSED,
        "reason": _BEING_REMOVED,
        "verdict": "",
        "suspicious": "",
    }
    with services.database.transaction() as connection:
        same = studies.c.study_uid == study_uid
        connection.execute(studies.update().where(same).values(**withdrawn))
        connection.execute(drafts.delete().where(drafts.c.study_uid == study_uid))
        forget_identities(connection, [study_uid])
        number = None if by is None else by.id
        record(connection, number, Action.STUDY_WITHDRAWN, study_uid)


def withdraw_expired(services: Services, reception: Reception) -> int:
    """Withdraw what came in, was never signed and is older than ``CSFD_WEB_KEEP_DAYS``.

    Studies of the source stay, and so do those on their way and those that somebody
    has signed: they have taught models, or will.

    Returns:
        How many studies that were.
    """
    days = services.web.keep_days
    if not days:
        return 0
    with services.database.transaction() as connection:
        expired = connection.scalars(
            sa.select(studies.c.study_uid)
            .where(
                studies.c.slices > 0,  # it came in; of the source nothing is counted
                studies.c.state.not_in(OPEN),
                studies.c.reason != _BEING_REMOVED,
                studies.c.accepted_at < time.time() - days * _DAY_S,
                studies.c.study_uid.not_in(sa.select(reviews.c.study_uid)),
            )
            .order_by(studies.c.accepted_at)
            .limit(_AT_ONCE)
        ).all()
    told = f"Kept for {count(days, 'day')}, and nobody has signed it."
    for uid in expired:
        withdraw_from_page(services, reception, uid, told, None)
    return len(expired)


def retention_of(services: Services, reception: Reception) -> Repeating:
    """Return what looks at once, and then each hour, for what was kept long enough."""

    def look() -> None:
        withdraw_expired(services, reception)
        with services.database.transaction() as connection:
            Vault.forget_expired(connection)

    return Repeating(
        look, _LOOK_EVERY_S, "cannot remove what has expired", is_due_at_once=True
    )
