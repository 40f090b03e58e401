"""Who reads blind: shown nothing of a prediction, nor of other readers, until signing.

Readers who have seen a prediction lean towards it, and what they sign trains the next
model. Patients of the locked test set are read blind in any case: their labels judge
the models.
"""

import time
from functools import lru_cache
from typing import Final

import sqlalchemy as sa

from csfd_core.evaluation.folds import is_test, key_of
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import require_uid
from csfd_core.web.database import reviews, sights, studies
from csfd_core.web.security.sessions import Session
from csfd_core.web.services import Services

_REMEMBERED: Final = 65536  # studies


class _UnknownPatientError(Exception):
    """The headers of a study are not in the store yet."""


def is_blind(services: Services, session: Session, study_uid: str) -> bool:
    """Say whether a reader must not see what is said of a study yet.

    It is so until they have signed its newest version, where readers read blind, or its
    patient is in the locked test set. Administrators are readers as well.

    Raises:
        IdentifierError: If ``study_uid`` is no valid UID.
    """
    if not may_be_blind(services, study_uid):
        return False
    with services.database.transaction() as connection:
        return not has_signed(connection, session.user.id, study_uid)


def may_be_blind(services: Services, study_uid: str) -> bool:
    """Say whether a study is read blind by those who have not signed it."""
    return is_locked(services.stores, study_uid) or services.web.blind


def is_locked(stores: Stores, study_uid: str) -> bool:
    """Say whether a study is of a patient of the locked test set.

    Raises:
        IdentifierError: If ``study_uid`` is no valid UID.
    """
    uid = require_uid(study_uid)
    try:
        return _is_locked(stores, uid)
    except _UnknownPatientError:
        return is_test(uid)


@lru_cache(_REMEMBERED)  # the patient of a study does not change
def _is_locked(stores: Stores, study_uid: str) -> bool:
    record = stores.metadata.read_record(study_uid)
    if record is None:
        raise _UnknownPatientError
    return is_test(key_of(study_uid, record.patient_key))


def has_signed(connection: sa.Connection, user_id: int, study_uid: str) -> bool:
    """Say whether a reader has signed the newest version of a study."""
    signed_review = (
        sa.select(reviews.c.id)
        .join(studies, studies.c.study_uid == reviews.c.study_uid)
        .where(
            reviews.c.study_uid == study_uid,
            reviews.c.user_id == user_id,
            reviews.c.version == studies.c.version,
        )
        .limit(1)
    )
    return connection.scalar(signed_review) is not None


def note_sight(connection: sa.Connection, user_id: int, study_uid: str) -> bool:
    """Record that a reader has opened the prediction of a study.

    Args:
        connection: Of a transaction.
        user_id: The reader.
        study_uid: A study of the worklist.

    Returns:
        Whether it is their first look at its newest version.
    """
    now = time.time()
    same_sight = (sights.c.user_id == user_id) & (sights.c.study_uid == study_uid)
    accepted = (
        sa.select(studies.c.accepted_at)
        .where(studies.c.study_uid == study_uid)
        .scalar_subquery()
    )
    seen_at = connection.scalar(sa.select(sights.c.seen_at).where(same_sight))
    if seen_at is not None:
        is_old = sights.c.seen_at < accepted
        again = sights.update().where(same_sight, is_old).values(seen_at=now)
        return connection.execute(again).rowcount == 1
    try:
        with connection.begin_nested():  # another request may be first
            row = {"user_id": user_id, "study_uid": study_uid, "seen_at": now}
            connection.execute(sights.insert().values(**row))
    except sa.exc.IntegrityError:
        return False
    return True


def has_seen(connection: sa.Connection, user_id: int, study_uid: str) -> bool:
    """Say whether a reader has ever opened the prediction of a study."""
    same_sight = (sights.c.user_id == user_id) & (sights.c.study_uid == study_uid)
    return connection.scalar(sa.select(sights.c.seen_at).where(same_sight)) is not None
