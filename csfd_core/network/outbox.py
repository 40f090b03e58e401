"""The outbox: results go to the peers that are to have them, until they have them.

What is due is tried for each peer in a thread of its own, so that one that hangs holds
up no other. Of what a process was sending when it was killed, the next one does not
know whether it has arrived: it is sent again, as the same objects.
"""

import fcntl
import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from csfd_core.errors import CsfdError, tell_error
from csfd_core.network.addressed import HinderedError, ReplacedError, addressed_objects
from csfd_core.network.commitment import take_report
from csfd_core.network.sending import ANSWER_S, CONNECT_S, Sent
from csfd_core.network.store_scu import StoreScu
from csfd_core.network.stow_client import StowClient
from csfd_core.settings import DicomSettings
from csfd_core.web.audit import Action, record
from csfd_core.web.database import vault as identities
from csfd_core.web.delivery import deliveries as rows
from csfd_core.web.delivery.deliveries import Delivery, DeliveryState
from csfd_core.web.delivery.peers import (
    Peer,
    PeerEndpoint,
    PeerKind,
    all_peers,
    configured_endpoints,
    follow_setting,
    tell_echo,
)
from csfd_core.web.delivery.planning import Planner
from csfd_core.web.services import Services
from csfd_core.web.vault import Vault, forget_identities

_MOST_AT_ONCE: Final = 20  # deliveries of one peer in one round
_PATIENCE_S: Final = 5.0
_CLEAN_EVERY_S: Final = 600.0
_CANNOT_ASK: Final = "It could not be spoken to: check its address."
_log = logging.getLogger(__name__)


class Outbox:
    """Sends what is due. One process at a time works on the outbox of a database."""

    def __init__(
        self,
        services: Services,
        *,
        patience_s: float = _PATIENCE_S,
        connect_s: float = CONNECT_S,
        answer_s: float = ANSWER_S,
    ) -> None:
        """Take where everything is.

        Args:
            services: Stores and database.
            patience_s: Seconds that ``work_once`` waits for peers; they go on behind.
            connect_s: Seconds for a connection to a peer.
            answer_s: Seconds for its answer to one object.

        Raises:
            SettingsError: If a setting cannot be used.
        """
        self._services = services
        self._settings = DicomSettings.read()
        self._endpoints = {
            p.name: p for p in configured_endpoints(self._settings.peers)
        }
        self._vault = Vault.open(self._settings)
        self._planner = Planner(services)
        self._patience_s = patience_s
        self._waits_s = {"connect_s": connect_s, "answer_s": answer_s}
        self._threads: dict[int, threading.Thread] = {}
        self._lock: int | None = None
        self._cleaned_at: float | None = None  # monotonic

    def work_once(self) -> int:
        """Do what is due now; return how many deliveries were begun.

        Raises:
            SQLAlchemyError: If the database does not answer.
        """
        if not self._is_alone():
            return 0
        self._clean()
        self._planner.plan()
        with self._services.database.transaction() as connection:
            active = all_peers(connection, active=True)
        begun = 0
        for peer in active:
            before = self._threads.get(peer.id)
            if before is not None and before.is_alive():
                continue
            begun += self._begin(peer)
        until = time.monotonic() + self._patience_s
        for thread in self._threads.values():
            thread.join(max(0.0, until - time.monotonic()))
        return begun

    def close(self) -> None:
        """Let another process work on the outbox."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _is_alone(self) -> bool:
        """Become the one that works on the outbox, if nobody else is."""
        if self._lock is not None:
            return True
        folder = self._services.settings.home / "data" / "locks"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        held = os.open(folder / "outbox", flags, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(held)
            return False
        self._lock = held
        with self._services.database.transaction() as connection:
            follow_setting(connection, list(self._endpoints.values()))
            rows.take_up(connection)
        return True

    def _clean(self) -> None:
        """Let the vault forget what is old or was withdrawn."""
        now = time.monotonic()
        if self._cleaned_at is not None and now - self._cleaned_at < _CLEAN_EVERY_S:
            return
        self._cleaned_at = now
        withdrawn = self._services.stores.withdrawn.study_uids()
        with self._services.database.transaction() as connection:
            Vault.forget_expired(connection)
            identified = set(connection.scalars(sa.select(identities.c.study_uid)))
            forget_identities(connection, identified & withdrawn)

    def _begin(self, peer: Peer) -> int:
        with self._services.database.transaction() as connection:
            rows.take_up(connection, peer.id)  # nobody serves it by now
            due = rows.due(connection, peer.id, _MOST_AT_ONCE)
        if due or peer.is_asked:
            thread = threading.Thread(
                target=self._serve, args=(peer, due), daemon=True, name="outbox"
            )
            self._threads[peer.id] = thread
            thread.start()
        return len(due)

    def _serve(self, peer: Peer, due: Sequence[Delivery]) -> None:
        """Do all that is due for a peer; if nobody answers there, the rest waits."""
        try:
            if peer.is_asked:
                told = self._echo(self._endpoint(peer))
                with self._services.database.transaction() as connection:
                    tell_echo(connection, peer.id, told)
            wait_s: float | None = None
            for number, one in enumerate(due):
                wait_s = self._deliver(peer, one)
                if wait_s is not None:
                    self._put_off(due[number + 1 :], wait_s)
                    break
        except (sa.exc.SQLAlchemyError, OSError) as error:
            _log.warning("the outbox is held up: %s", type(error).__name__)

    def _endpoint(self, peer: Peer) -> PeerEndpoint:
        """Return where a peer is, with the password that only the setting holds."""
        return self._endpoints.get(peer.name, peer.endpoint)

    def _deliver(self, peer: Peer, one: Delivery) -> float | None:
        """Try a delivery; return for how long its peer is left alone, if it is."""
        transaction_uid = str(generate_uid(prefix=None))
        with self._services.database.transaction() as connection:
            if not rows.begin(connection, one, transaction_uid):
                return None
        one = rows.tried(one)
        try:
            objects = addressed_objects(self._services, self._vault, one)
        except HinderedError as error:
            is_replaced = isinstance(error, ReplacedError)
            state = DeliveryState.REPLACED if is_replaced else DeliveryState.FAILED
            self._end(one, state, str(error))
            return None
        except Exception as error:  # noqa: BLE001 - one study must not hold up others
            told = tell_error(error) if isinstance(error, CsfdError) else ""
            _log.warning("results cannot be made: %s", type(error).__name__)
            self._put_off([one], None, told or "The results cannot be made now.")
            return None
        return self._send(peer, one, objects, transaction_uid)

    def _send(
        self,
        peer: Peer,
        one: Delivery,
        objects: Sequence[Dataset],
        transaction_uid: str,
    ) -> float | None:
        try:
            sent = self._transfer(self._endpoint(peer), objects, transaction_uid)
        except sa.exc.SQLAlchemyError:
            raise
        except Exception as error:  # noqa: BLE001 - one peer must not hold up others
            _log.warning("a peer cannot be sent to: %s", type(error).__name__)
            return self._put_off([one], None, _CANNOT_ASK)
        if sent.is_complete:
            is_whole = not sent.not_taken
            state = DeliveryState.SENT if is_whole else DeliveryState.PARTLY_SENT
            self._end(one, state, sent.told)
            with self._services.database.transaction() as connection:
                record(connection, None, Action.RESULTS_SENT, one.study_uid)
            return None
        if sent.is_reached and not sent.missing:  # it takes none of them
            self._end(one, DeliveryState.FAILED, sent.told)
            return None
        wait_s = self._put_off([one], None, sent.told)
        return None if sent.is_reached else wait_s

    def _transfer(
        self, endpoint: PeerEndpoint, objects: Sequence[Dataset], transaction_uid: str
    ) -> Sent:
        if endpoint.kind == PeerKind.STOW:
            client = StowClient(self._settings, endpoint.url, **self._waits_s)
            return client.send(objects)
        scu = StoreScu(self._settings, endpoint, **self._waits_s)
        sent, _ = scu.send(
            objects,
            transaction_uid=transaction_uid,
            on_event=lambda told, kind: take_report(self._services, told, kind),
        )
        return sent

    def _echo(self, endpoint: PeerEndpoint) -> str:
        try:
            if endpoint.kind == PeerKind.STOW:
                return StowClient(self._settings, endpoint.url, **self._waits_s).echo()
            return StoreScu(self._settings, endpoint, **self._waits_s).echo()
        except Exception as error:  # noqa: BLE001 - one peer must not hold up others
            _log.warning("a peer cannot be asked: %s", type(error).__name__)
            return _CANNOT_ASK

    def _end(self, one: Delivery, state: DeliveryState, told: str) -> None:
        with self._services.database.transaction() as connection:
            rows.end(connection, one, state, told)

    def _put_off(
        self, some: Sequence[Delivery], wait_s: float | None, told: str | None = None
    ) -> float:
        waited = 0.0
        with self._services.database.transaction() as connection:
            for one in some:
                why = one.told if told is None else told
                waited = rows.put_off(connection, one, why, wait_s)
        return waited
