"""The outbox in the database: what is to go to which peer, and how far it is.

A row is for one set of results of one study and one peer, so that nothing goes twice by
itself. The page and the planning add rows; the node alone works on them.
"""

import random
import time
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa

from csfd_core.web.database import deliveries, peers

_FIRST_WAIT_S: Final = 30.0
_LONGEST_WAIT_S: Final = 3600.0
_SPREAD: Final = 0.2  # of a wait, so that not all come at the same moment
GIVE_UP_S: Final = 86400.0
_REVIEW: Final = "review-"


class DeliveryState(StrEnum):
    """How far a delivery is."""

    WAITING = "waiting"
    SENDING = "sending"
    SENT = "sent"  # the peer has said of every object that it is stored
    COMMITTED = "committed"  # it has also promised to keep them (PS3.4 annex J)
    PARTLY_SENT = "partly sent"  # it does not take objects of some kinds at all
    REPLACED = "replaced"  # a newer prediction was made before it went out
    FAILED = "failed"


_UNDER_WAY: Final = (DeliveryState.WAITING, DeliveryState.SENDING)
_OUT: Final = (DeliveryState.SENDING, DeliveryState.SENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One row of the outbox.

    Attributes:
        id: Its number.
        study_uid: Keyed.
        peer_id: Where it goes.
        peer: What the peer is called.
        result_set: Of the prediction; or of a signed review (``review_of``).
        state: How far it is.
        attempts: How often it was tried since somebody asked for it.
        next_at: When it is due, POSIX seconds.
        told: What became of the last try, a sentence.
        transaction_uid: Of the storage commitment that was asked for.
        created_at: When it was asked for, POSIX seconds.
        changed_at: When its state last changed.
    """

    id: int
    study_uid: str
    peer_id: int
    peer: str
    result_set: str
    state: DeliveryState
    attempts: int
    next_at: float
    told: str
    transaction_uid: str
    created_at: float
    changed_at: float

    @property
    def review_id(self) -> int | None:
        """The number of the signed review that it brings; ``None``: a prediction."""
        return review_of(self.result_set)


def set_of_review(review_id: int) -> str:
    """Return what stands for a signed review in ``result_set``."""
    return f"{_REVIEW}{review_id}"


def review_of(result_set: str) -> int | None:
    """Return the number of the review that a set stands for, if it does."""
    number = result_set.removeprefix(_REVIEW)
    return int(number) if number != result_set else None


def ask(
    connection: sa.Connection,
    study_uid: str,
    peer_id: int,
    result_set: str,
    *,
    again: bool = False,
) -> bool:
    """Ask for a delivery, unless there is one.

    Args:
        connection: Of a transaction.
        study_uid: Keyed.
        peer_id: Where it is to go.
        result_set: What is to go.
        again: Send also what has ended, well or not.

    Returns:
        Whether something is to be sent by this.
    """
    now = time.time()
    row = {
        "state": DeliveryState.WAITING,
        "attempts": 0,
        "next_at": now,
        "told": "",
        "transaction_uid": "",
        "created_at": now,
        "changed_at": now,
    }
    same = (
        (deliveries.c.study_uid == study_uid)
        & (deliveries.c.peer_id == peer_id)
        & (deliveries.c.result_set == result_set)
    )
    state = connection.scalar(sa.select(deliveries.c.state).where(same))
    if state is None:
        keys = {"study_uid": study_uid, "peer_id": peer_id, "result_set": result_set}
        try:
            with connection.begin_nested():  # another process may be first
                connection.execute(deliveries.insert().values(**keys, **row))
        except sa.exc.IntegrityError:
            return False
        return True
    if not again or state == DeliveryState.SENDING:
        return False
    connection.execute(deliveries.update().where(same).values(**row))
    return True


def of_study(connection: sa.Connection, study_uid: str) -> list[Delivery]:
    """Return the deliveries of a study, those asked for last first."""
    same_study = deliveries.c.study_uid == study_uid
    wanted = _selected().where(same_study).order_by(deliveries.c.created_at.desc())
    return [_to_delivery(row) for row in connection.execute(wanted)]


def due(connection: sa.Connection, peer_id: int, most: int) -> list[Delivery]:
    """Return what is due for a peer, in the order in which it was asked for."""
    wanted = (
        _selected()
        .where(
            deliveries.c.peer_id == peer_id,
            deliveries.c.state == DeliveryState.WAITING,
            deliveries.c.next_at <= time.time(),
        )
        .order_by(deliveries.c.created_at, deliveries.c.id)
        .limit(most)
    )
    return [_to_delivery(row) for row in connection.execute(wanted)]


def take_up(connection: sa.Connection, peer_id: int | None = None) -> int:
    """Let what nobody is sending any more wait again.

    Args:
        connection: Of a transaction.
        peer_id: Where it was to go; ``None``: anywhere.

    Returns:
        How much that is.
    """
    lost = deliveries.c.state == DeliveryState.SENDING
    if peer_id is not None:
        lost &= deliveries.c.peer_id == peer_id
    values = {"state": DeliveryState.WAITING, "next_at": time.time()}
    return connection.execute(deliveries.update().where(lost).values(**values)).rowcount


def begin(connection: sa.Connection, one: Delivery, transaction_uid: str = "") -> bool:
    """Say that a delivery is being sent.

    Args:
        connection: Of a transaction.
        one: The delivery.
        transaction_uid: Of the storage commitment that will be asked for.

    Returns:
        Whether it still waited.
    """
    waits = (deliveries.c.id == one.id) & (deliveries.c.state == DeliveryState.WAITING)
    values = {
        "state": DeliveryState.SENDING,
        "attempts": one.attempts + 1,
        "transaction_uid": transaction_uid,
        "changed_at": time.time(),
    }
    changed = deliveries.update().where(waits).values(**values)
    return connection.execute(changed).rowcount == 1


def tried(one: Delivery) -> Delivery:
    """Return a delivery that was begun once more."""
    return replace(one, attempts=one.attempts + 1)


def end(
    connection: sa.Connection, one: Delivery, state: DeliveryState, told: str = ""
) -> None:
    """Say what became of a delivery that is being sent.

    Not of one that its peer has reported lost meanwhile, or that is ended.
    """
    _change(connection, one, state, told, DeliveryState.SENDING)


def put_off(
    connection: sa.Connection, one: Delivery, told: str, wait_s: float | None = None
) -> float:
    """Let a delivery wait for its next try; after a day it has failed.

    Args:
        connection: Of a transaction.
        one: The delivery.
        told: Why, a sentence.
        wait_s: Seconds; ``None``: they grow from half a minute to an hour.

    Returns:
        How many seconds it waits.
    """
    now = time.time()
    if now - one.created_at > GIVE_UP_S:
        _change(connection, one, DeliveryState.FAILED, told)
        return 0.0
    if wait_s is None:
        wait_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(one.attempts, 10))
        wait_s *= random.uniform(1 - _SPREAD, 1 + _SPREAD)
    _change(connection, one, DeliveryState.WAITING, told, next_at=now + wait_s)
    return wait_s


def commit(connection: sa.Connection, one: Delivery, told: str) -> None:
    """Say that the peer has promised to keep what was sent."""
    _change(connection, one, DeliveryState.COMMITTED, told, *_OUT)


def lose(connection: sa.Connection, one: Delivery, told: str) -> None:
    """Send again what a peer said it had stored and does not have."""
    values = {"next_at": time.time() + _FIRST_WAIT_S}
    _change(connection, one, DeliveryState.WAITING, told, *_OUT, **values)


def of_transaction(connection: sa.Connection, transaction_uid: str) -> Delivery | None:
    """Return the delivery that a storage commitment was asked of, if it still holds."""
    if not transaction_uid:
        return None
    wanted = _selected().where(deliveries.c.transaction_uid == transaction_uid)
    row = connection.execute(wanted).first()
    return None if row is None else _to_delivery(row)


def _change(
    connection: sa.Connection,
    one: Delivery,
    state: DeliveryState,
    told: str,
    *before: DeliveryState,
    **values: object,
) -> None:
    """Change a delivery that is in one of some states; by default under way."""
    given = {"state": state, "told": told, "changed_at": time.time(), **values}
    is_so = (deliveries.c.id == one.id) & (deliveries.c.state.in_(before or _UNDER_WAY))
    connection.execute(deliveries.update().where(is_so).values(**given))


def _selected() -> sa.Select[Any]:
    return sa.select(deliveries, peers.c.name).join(
        peers, peers.c.id == deliveries.c.peer_id
    )


def _to_delivery(row: sa.Row[Any]) -> Delivery:
    return Delivery(
        id=row.id,
        study_uid=row.study_uid,
        peer_id=row.peer_id,
        peer=row.name,
        result_set=row.result_set,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        next_at=row.next_at,
        told=row.told,
        transaction_uid=row.transaction_uid,
        created_at=row.created_at,
        changed_at=row.changed_at,
    )
