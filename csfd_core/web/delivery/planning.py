"""What is to go to which peer: asked for on the page, or by itself.

By itself goes the prediction of a study once it is done, and what a reader has signed.
What is read blind goes only when its newest version was signed: the archive would show
the prediction to its readers. A later prediction of a study that was signed stays here:
nobody waits for it.
"""

import time
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from csfd_core.dicom_objects.kinds import result_set
from csfd_core.inference.predict import read_prediction
from csfd_core.settings import DicomSettings
from csfd_core.web.database import deliveries, studies, vault
from csfd_core.web.delivery.deliveries import ask, review_of, set_of_review
from csfd_core.web.delivery.peers import Peer, all_peers
from csfd_core.web.review.blind import may_be_blind
from csfd_core.web.review.signing import newest_of_each, signed_reviews
from csfd_core.web.security.users import User
from csfd_core.web.services import Services
from csfd_core.web.study_states import StudyState
from csfd_core.web.vault import has_identity

NO_KEY: Final = (
    "Results cannot be sent: CSFD_VAULT_KEY is not set, so nothing is kept of how "
    "senders call their studies. They can be downloaded."
)
NO_WAY: Final = (  # for readers, who cannot change it
    "Results cannot be sent to an archive from here. They can be downloaded."
)
NO_IDENTITY: Final = (
    "The results of this study cannot be sent: it did not come over the network from a "
    "sender whose patient is kept, or it came too long ago. They can be downloaded."
)
_OLDEST_S: Final = 600.0  # studies are looked at anew so often, changed or not


class Planner:
    """Asks for what goes by itself; remembers what it has looked at."""

    def __init__(self, services: Services) -> None:
        """Take where everything is."""
        self._services = services
        self._seen = 0.0  # changes up to this moment
        self._all_at = 0.0  # monotonic

    def plan(self) -> int:
        """Ask for what is new; return how many deliveries."""
        now = time.monotonic()
        if now - self._all_at > _OLDEST_S:
            self._seen, self._all_at = 0.0, now
        with self._services.database.transaction() as connection:
            automatic = [
                peer for peer in all_peers(connection, active=True) if peer.is_automatic
            ]
            changed = _changed_since(connection, self._seen) if automatic else []
        number = sum(_plan_study(self._services, row, automatic) for row in changed)
        if changed:
            self._seen = max(row.changed_at for row in changed)
        return number


def ask_by_hand(services: Services, study_uid: str, peer_id: int) -> int:
    """Ask for all that there is of a study to go to a peer, also once more.

    Returns:
        How many sets: the prediction, and each reader's newest review.
    """
    with services.database.transaction() as connection:
        row = connection.execute(
            sa.select(studies).where(studies.c.study_uid == study_uid)
        ).one()
    sets = _sets_of(services, row)
    with services.database.transaction() as connection:
        return sum(ask(connection, study_uid, peer_id, s, again=True) for s in sets)


def why_not(services: Services, study_uid: str, user: User) -> str:
    """Say why the results of a study cannot be sent; empty where they can.

    What a setting is the reason of, administrators alone are told.
    """
    if not DicomSettings.read().vault_key:
        return NO_KEY if user.is_administrator else NO_WAY
    with services.database.transaction() as connection:
        return "" if has_identity(connection, study_uid) else NO_IDENTITY


def _changed_since(connection: sa.Connection, moment: float) -> list[sa.Row[Any]]:
    """Return the studies that are done, can be sent and have changed, oldest first."""
    wanted = (
        sa.select(studies)
        .join(vault, vault.c.study_uid == studies.c.study_uid)
        .where(
            studies.c.state == StudyState.DONE,
            studies.c.changed_at > moment,
            vault.c.expires_at > time.time(),
        )
        .order_by(studies.c.changed_at)
    )
    return list(connection.execute(wanted))


def _plan_study(services: Services, row: sa.Row[Any], automatic: Sequence[Peer]) -> int:
    is_signed = row.signed_version >= row.version
    if not is_signed and may_be_blind(services, row.study_uid):
        return 0
    sets = _sets_of(services, row)
    number = 0
    with services.database.transaction() as connection:
        signed_at = {
            set_of_review(review.id): review.signed_at
            for review in signed_reviews(connection, row.study_uid)
        }
        for peer in automatic:
            has_prediction = _has_prediction(connection, row.study_uid, peer.id)
            for one in sets:
                is_review = review_of(one) is not None
                if not is_review and is_signed and has_prediction:
                    continue
                made_at = signed_at[one] if is_review else row.done_at or 0.0
                if made_at >= peer.automatic_since:
                    number += ask(connection, row.study_uid, peer.id, one)
    return number


def _sets_of(services: Services, row: sa.Row[Any]) -> list[str]:
    """Return what there is of a study, the prediction first."""
    prediction = read_prediction(services.stores, row.study_uid)
    if prediction is None:
        return []
    with services.database.transaction() as connection:
        signed = signed_reviews(connection, row.study_uid)
    newest = newest_of_each(signed, row.version)
    return [result_set(prediction), *(set_of_review(one.id) for one in newest)]


def _has_prediction(connection: sa.Connection, study_uid: str, peer_id: int) -> bool:
    """Say whether a prediction of a study was ever asked for by a peer."""
    wanted = sa.select(deliveries.c.result_set).where(
        deliveries.c.study_uid == study_uid, deliveries.c.peer_id == peer_id
    )
    return any(review_of(one) is None for one in connection.scalars(wanted))
