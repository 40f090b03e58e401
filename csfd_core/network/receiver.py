"""The C-STORE provider: takes in the slices that other application entities send.

Success is said of a slice once it is on the disk, de-identified, and of nothing else.
Of each association one line is told: who, how many, how long; nothing of a patient.
"""

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from pynetdicom import AE, evt
from pynetdicom.association import Association

from csfd_core.deid.deidentify import JPEG_SYNTAXES
from csfd_core.deid.refusals import Reason, RefusedError
from csfd_core.errors import CsfdError
from csfd_core.network.callers import Callers
from csfd_core.network.listening import BoundedServer, end_association, silence
from csfd_core.network.tls import server_context
from csfd_core.settings import DicomSettings
from csfd_core.web.reception.reception import (
    ConflictError,
    MismatchError,
    NoRoomError,
    Reception,
    Sender,
    WithdrawnError,
)

_VERIFICATION: Final = "1.2.840.10008.1.1"
_STORAGE_COMMITMENT: Final = "1.2.840.10008.1.20.1"
_SUCCESS: Final = 0x0000
# PS3.4 table B.2-1, PS3.7 section 9.1.1.1.9.
_PROCESSING_FAILURE: Final = 0x0110
_NOT_AUTHORIZED: Final = 0x0124
_NO_RESOURCES: Final = 0xA700
_NOT_OF_ITS_CLASS: Final = 0xA900
_NOT_UNDERSTOOD: Final = 0xC000
_OTHERS: Final = (
    Reason.OTHER_MODALITY, Reason.NO_IMAGE, Reason.NO_STUDY, Reason.MULTI_FRAME,
)  # fmt: skip
_REJECTED: Final = 0x01, 0x01, 0x03  # for good, by the user: calling AE not recognized
_FULL: Final = 0x02, 0x03, 0x02  # for now: local limit exceeded
_STATUSES: Final[dict[type[CsfdError], tuple[int, str]]] = {
    NoRoomError: (_NO_RESOURCES, "no-room"),
    MismatchError: (_NOT_OF_ITS_CLASS, "mismatch"),
    ConflictError: (_NOT_UNDERSTOOD, "conflict"),
    WithdrawnError: (_NOT_AUTHORIZED, "withdrawn"),
}
_COMMENT_LENGTH: Final = 64  # characters of an LO
_STOPPING_S: Final = 5.0  # for who is sending when everything stops
_CALM_S: Final = 0.5  # without a slice: an association is between two of them
# Uncompressed first: nothing is lost or computed on the way.
SYNTAXES: Final = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    *sorted(JPEG_SYNTAXES),
)

Say = Callable[[str], None]
TakeReport = Callable[[Dataset, int], int]  # information and type; a status


@dataclass(slots=True)
class _Transfer:
    """What one association has sent."""

    address: str
    begun: float = field(default_factory=time.monotonic)
    last: float = field(default_factory=time.monotonic)
    caller: str = ""
    working: int = 0
    new: int = 0
    again: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    size: int = 0
    study_uid: str = ""  # the newest, which is held
    held: int | None = None
    end: str = "lost"

    def hold(self, reception: Reception, study_uid: str) -> None:
        """Hold the study that is being sent, and no other one."""
        if study_uid != self.study_uid:
            held = reception.hold(study_uid)
            self.let_go()
            self.study_uid, self.held = study_uid, held

    def let_go(self) -> None:
        """Let the study be accepted."""
        if self.held is not None:
            os.close(self.held)
        self.study_uid, self.held = "", None


class Receiver:
    """Listens from ``start`` until ``stop``."""

    def __init__(
        self,
        reception: Reception,
        settings: DicomSettings,
        say: Say,
        on_report: TakeReport | None = None,
    ) -> None:
        """Take what is listened with.

        Args:
            reception: Keeps the slices.
            settings: Who may send, and where.
            say: Takes a line of JSON for each association.
            on_report: Takes what a peer reports of objects that it was asked to keep.

        Raises:
            SettingsError: If a setting cannot be used.
        """
        silence()
        self._reception = reception
        self._callers = Callers.of(settings)
        self._say = say
        self._transfers: dict[Association, _Transfer] = {}
        self._lock = threading.Lock()
        self._is_stopping = False
        self._ae = AE(settings.ae_title)
        self._ae.maximum_associations = settings.max_associations
        self._ae.require_called_aet = True
        self._ae.add_supported_context(_VERIFICATION)
        self._ae.add_supported_context(CTImageStorage, list(SYNTAXES))
        if on_report is not None:  # the peer is the provider here (PS3.4 section J.3.3)
            self._ae.add_supported_context(
                _STORAGE_COMMITMENT, scu_role=True, scp_role=True
            )
        self._server = BoundedServer(
            self._ae,
            (settings.host, settings.port),
            server_context(settings),
            [
                (evt.EVT_CONN_OPEN, self._open),
                (evt.EVT_REQUESTED, self._admit),
                (evt.EVT_C_ECHO, lambda _event: _SUCCESS),
                (evt.EVT_C_STORE, self._store),
                (evt.EVT_N_EVENT_REPORT, partial(_take_report, on_report)),
                (evt.EVT_RELEASED, lambda event: self._end(event, "released")),
                (evt.EVT_ABORTED, lambda event: self._end(event, "aborted")),
                (evt.EVT_REJECTED, lambda event: self._end(event, "rejected")),
            ],
            self._is_welcome,
        )
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), daemon=True
        )

    @property
    def port(self) -> int:
        """Where it listens; of interest where the system has chosen."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Let nobody else in, let who is sending finish for some seconds, and end."""
        self._is_stopping = True
        until = time.monotonic() + _STOPPING_S
        while time.monotonic() < until and self._is_busy():
            time.sleep(0.05)
        self._server.end()
        for association in self._ae.active_associations:
            end_association(association)
        until = time.monotonic() + 1.0
        while time.monotonic() < until and self._ae.active_associations:
            time.sleep(0.05)
        self.tidy(is_over=True)

    def tidy(self, *, is_over: bool = False) -> None:
        """Close the books of associations whose connection was lost.

        Args:
            is_over: Whether those of all others are closed as well.
        """
        with self._lock:
            gone = [
                association
                for association in self._transfers
                if is_over
                or (association.ident is not None and not association.is_alive())
            ]
        for association in gone:
            self._close(association)

    def _is_welcome(self, address: str) -> bool:
        return not self._is_stopping and self._callers.allow_address(address)

    def _is_busy(self) -> bool:
        now = time.monotonic()
        with self._lock:
            return any(
                transfer.working or now - transfer.last < _CALM_S
                for transfer in self._transfers.values()
            )

    def _open(self, event: Any) -> None:
        address = str(event.address[0])
        with self._lock:
            self._transfers[event.assoc] = _Transfer(address=address)

    def _admit(self, event: Any) -> None:
        """Reject who may not send; pynetdicom has read the request alone by now."""
        transfer = self._transfer_of(event)
        request = event.assoc.requestor.primitive
        title = str(request.calling_ae_title or "").strip()
        is_known = self._callers.allow(title, transfer.address)
        transfer.caller = title if is_known else "unknown"
        if self._is_stopping or not is_known:
            event.assoc.acse.send_reject(*(_FULL if is_known else _REJECTED))
            event.assoc.is_rejected = True
            event.assoc.kill()  # once it was said
            self._end(event, "rejected")

    def _store(self, event: evt.Event) -> int | Dataset:
        transfer = self._transfer_of(event)
        transfer.working += 1
        try:
            return self._keep(event, transfer)
        except RefusedError as error:
            return _failure(transfer, _status_of(error.reason), error.reason, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the sender is told
            for kind, (status, word) in _STATUSES.items():
                if isinstance(error, kind):
                    return _failure(transfer, status, word, error)
            return _failure(transfer, _PROCESSING_FAILURE, "failed", None)
        finally:
            transfer.working -= 1
            transfer.last = time.monotonic()

    def _keep(self, event: Any, transfer: _Transfer) -> int:
        raw = event.encoded_dataset()
        transfer.size += len(raw)
        sender = Sender(
            name=transfer.caller,
            priority=self._callers.priority_of(transfer.caller),
            keeps_identity=True,
        )
        announced = str(event.request.AffectedSOPInstanceUID)
        received = self._reception.keep(raw, sender, announced)
        transfer.hold(self._reception, received.study_uid)
        transfer.new += received.is_new
        transfer.again += not received.is_new
        return _SUCCESS

    def _transfer_of(self, event: evt.Event) -> _Transfer:
        with self._lock:
            return self._transfers[event.assoc]

    def _end(self, event: evt.Event, how: str) -> None:
        with self._lock:
            transfer = self._transfers.get(event.assoc)
        if transfer is not None:
            transfer.end = how
            self._close(event.assoc)

    def _close(self, association: Association) -> None:
        """Let go of what an association has held, and tell of it, once."""
        with self._lock:
            transfer = self._transfers.pop(association, None)
        if transfer is None:
            return
        transfer.let_go()
        if not transfer.caller:  # somebody has looked whether the port is open
            return
        told = {
            "event": "association",
            "caller": transfer.caller,
            "address": transfer.address,
            "end": transfer.end,
            "kept": transfer.new,
            "again": transfer.again,
            "failed": dict(sorted(transfer.failed.items())),
            "megabytes": round(transfer.size / 1e6, 1),
            "seconds": round(time.monotonic() - transfer.begun, 2),
        }
        self._say(json.dumps(told))


def _take_report(on_report: TakeReport | None, event: Any) -> tuple[int, None]:
    if on_report is None:
        return _PROCESSING_FAILURE, None
    return on_report(event.event_information, event.event_type or 0), None


def _status_of(reason: Reason) -> int:
    return _NOT_OF_ITS_CLASS if reason in _OTHERS else _NOT_UNDERSTOOD


def _failure(
    transfer: _Transfer, status: int, word: str, error: Exception | None
) -> Dataset:
    """Return what a sender is told, and count it."""
    transfer.failed[word] += 1
    told = Dataset()
    told.Status = status
    comment = str(error or "csfd could not keep the image. Send it again.")
    told.ErrorComment = comment[:_COMMENT_LENGTH]
    return told
