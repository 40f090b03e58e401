"""Sends objects to a peer by C-STORE, and asks it to keep them (PS3.4 B and J).

What pynetdicom logs repeats identifiers: its logger is silenced. What a peer writes
into its answers besides numbers is not repeated either.
"""

import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.status import code_to_category

from csfd_core.errors import SettingsError
from csfd_core.network.listening import silence
from csfd_core.network.sending import (
    ANSWER_S,
    CONNECT_S,
    Answers,
    Sent,
    name_of_class,
    unreached,
)
from csfd_core.network.tls_client import client_context
from csfd_core.settings import DicomSettings
from csfd_core.web.delivery.peers import PeerEndpoint

_VERIFICATION: Final = "1.2.840.10008.1.1"
_COMMITMENT: Final = "1.2.840.10008.1.20.1"  # Storage Commitment Push Model
_COMMITMENT_INSTANCE: Final = "1.2.840.10008.1.20.1.1"
_SUCCESS: Final = 0x0000
_DUPLICATE: Final = 0x0111  # PS3.7 annex C.5: it has this object already
_COMMITMENT_ACTION: Final = 1
_REPORT_S: Final = 2.0  # for a report on the same association; most come on another
_NATIVE: Final = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)

Told = Callable[[Dataset, int], int]  # information and type of a report; a status


class StoreScu:
    """Speaks to one peer, as the application entity of this node."""

    def __init__(
        self,
        settings: DicomSettings,
        endpoint: PeerEndpoint,
        *,
        connect_s: float = CONNECT_S,
        answer_s: float = ANSWER_S,
    ) -> None:
        """Take who speaks to whom.

        Args:
            settings: Of this node.
            endpoint: Of the peer.
            connect_s: Seconds for a connection, and again for an association.
            answer_s: Seconds for an answer to one object.
        """
        silence()
        self._settings = settings
        self._endpoint = endpoint
        self._connect_s = connect_s
        self._answer_s = answer_s
        self._reported = threading.Event()

    def echo(self) -> str:
        """Ask whether the peer answers; return a sentence."""
        entity = self._entity()
        entity.add_requested_context(_VERIFICATION)
        with self._associated(entity) as association:
            if association is None or not association.is_established:
                return self._why_not(association)
            status = association.send_c_echo()
            if "Status" in status and status.Status == _SUCCESS:
                return "It answers."
            return "It took the connection, and did not answer a C-ECHO."

    def send(
        self,
        objects: Sequence[Dataset],
        *,
        transaction_uid: str = "",
        on_event: Told | None = None,
    ) -> tuple[Sent, bool]:
        """Send objects over one association.

        Args:
            objects: With their file meta information.
            transaction_uid: Under which the peer is asked to keep them; empty: it is
                not asked.
            on_event: Told what the peer reports on the same association.

        Returns:
            What it has stored, and whether it was asked to keep it.
        """
        entity = self._entity()
        for sop_class in sorted({str(one.SOPClassUID) for one in objects}):
            entity.add_requested_context(sop_class, _syntaxes(objects, sop_class))
        if transaction_uid:
            entity.add_requested_context(_COMMITMENT)
        with self._associated(entity, on_event) as association:
            if association is None or not association.is_established:
                return self._unsent(association, objects), False
            sent = _store(association, objects)
            is_asked = bool(transaction_uid) and sent.is_complete
            if is_asked:
                stored = [o for o in objects if str(o.SOPInstanceUID) in sent.stored]
                is_asked = _ask_to_keep(association, stored, transaction_uid)
                if is_asked:
                    self._reported.wait(_REPORT_S)
            return sent, is_asked

    def _entity(self) -> AE:
        entity = AE(ae_title=self._settings.ae_title)
        entity.connection_timeout = self._connect_s
        entity.acse_timeout = self._connect_s
        entity.dimse_timeout = self._answer_s
        entity.network_timeout = self._answer_s
        return entity

    @contextmanager
    def _associated(
        self, entity: AE, on_event: Told | None = None
    ) -> Iterator[Association | None]:
        """Yield an association, established or not; ``None``: TLS cannot be set up."""
        try:
            tls = self._tls()
        except SettingsError:
            yield None
            return

        def take(event: evt.Event) -> tuple[int, None]:
            self._reported.set()
            if on_event is None:
                return _SUCCESS, None
            return on_event(event.event_information, event.event_type or 0), None

        association = entity.associate(
            self._endpoint.host,
            self._endpoint.port,
            ae_title=self._endpoint.ae_title,
            tls_args=tls,
            evt_handlers=[
                (evt.EVT_CONN_OPEN, self._bound),
                (evt.EVT_N_EVENT_REPORT, take),
            ],
        )
        try:
            yield association
        finally:
            if association.is_established:
                association.release()

    def _bound(self, event: evt.Event) -> None:
        """Let nothing be waited for without an end, as for the rest of an answer."""
        assoc_socket = event.assoc.dul.socket
        if assoc_socket is not None and assoc_socket.socket is not None:
            assoc_socket.socket.settimeout(self._answer_s)

    def _tls(self) -> tuple[ssl.SSLContext, str] | None:
        if not self._endpoint.is_tls:
            return None
        return client_context(self._settings), self._endpoint.host

    def _unsent(
        self, association: Association | None, objects: Sequence[Dataset]
    ) -> Sent:
        """Return why no object could be sent."""
        if association is not None and association.rejected_contexts:
            names = {name_of_class(str(one.SOPClassUID)) for one in objects}
            return Answers(not_taken=names).to_sent(())
        uids = [str(one.SOPInstanceUID) for one in objects]
        return unreached(self._why_not(association), uids)

    def _why_not(self, association: Association | None) -> str:
        if association is None:
            return "TLS cannot be set up: look at CSFD_DICOM_TLS_…."
        if association.is_rejected:
            return (
                "It refuses the association: let it know this node's application "
                "entity title and address, and check its own."
            )
        trusted = " that is believed, by TLS" if self._endpoint.is_tls else ""
        return f"Nobody answers there as a DICOM node{trusted}."


def _store(association: Association, objects: Sequence[Dataset]) -> Sent:
    answers = Answers()
    possible: list[str] = []
    taken = {context.abstract_syntax for context in association.accepted_contexts}
    why = ""
    for number, one in enumerate(objects, start=1):
        sop_uid, sop_class = str(one.SOPInstanceUID), str(one.SOPClassUID)
        if sop_class not in taken:
            answers.not_taken.add(name_of_class(sop_class))
            continue
        possible.append(sop_uid)
        if not association.is_established:
            continue
        answer = association.send_c_store(one, number)
        if "Status" not in answer:
            why = "The peer ceased to answer."
            continue
        _judge(answers, sop_uid, int(answer.Status))
    return answers.to_sent(possible, why)


def _judge(answers: Answers, sop_uid: str, status: int) -> None:
    is_warning = code_to_category(status) == "Warning"
    if status in (_SUCCESS, _DUPLICATE) or is_warning:
        answers.stored.add(sop_uid)
    if is_warning:
        answers.warned[sop_uid] = status
    elif sop_uid not in answers.stored:
        answers.status[sop_uid] = status


def _ask_to_keep(
    association: Association, objects: Sequence[Dataset], transaction_uid: str
) -> bool:
    """Ask for storage commitment, where the peer offers it; say whether it agrees."""
    taken = {context.abstract_syntax for context in association.accepted_contexts}
    if _COMMITMENT not in taken or not association.is_established:
        return False
    asked = Dataset()
    asked.TransactionUID = transaction_uid
    asked.ReferencedSOPSequence = [_reference(one) for one in objects]
    status, _ = association.send_n_action(
        asked,
        _COMMITMENT_ACTION,
        _COMMITMENT,
        _COMMITMENT_INSTANCE,
    )
    return "Status" in status and status.Status == _SUCCESS


def _reference(one: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = one.SOPClassUID
    item.ReferencedSOPInstanceUID = one.SOPInstanceUID
    return item


def _syntaxes(objects: Sequence[Dataset], sop_class: str) -> list[str]:
    """Return the transfer syntaxes of the objects of a class, and those of any peer."""
    used = [
        str(one.file_meta.TransferSyntaxUID)
        for one in objects
        if str(one.SOPClassUID) == sop_class
    ]
    native = [str(uid) for uid in _NATIVE]
    return list(dict.fromkeys([*used, *native])) if set(used) <= set(native) else used
