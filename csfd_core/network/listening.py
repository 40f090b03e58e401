"""A server of associations that nobody can bring to a halt.

pynetdicom shakes hands for TLS while nobody else is let in, waits without an end for
the rest of what a sender has begun to send, takes any amount of memory for it, and any
number of connections. What is here sets a bound to each.
"""

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from socketserver import TCPServer
from typing import Any, Final

from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.transport import (
    AssociationSocket,
    RequestHandler,
    ThreadedAssociationServer,
)

from csfd_core.dicom.limits import limits

PDU_BYTES: Final = 2**18  # that senders are asked not to exceed
_LARGEST_PDU: Final = 2**20  # of those who do
_LARGEST_REQUEST: Final = 2**18  # for an association: it takes long to be read
_MARGIN_BYTES: Final = 2**20  # of a message, beside the file
_BEGINNING_S: Final = 10.0  # until an association is asked for, or hands are shaken
_SILENT_S: Final = 60.0  # after which a connection is closed
_MORE: Final = 8  # connections beyond the associations: they are told that it is full
_BACKLOG: Final = 64
_LONGEST_UID: Final = 128  # characters
_BUDGET: Final = "_csfd_budget"


def _is_bearable(uid: str) -> tuple[bool, str]:
    """Say whether a UID is taken; some devices write them longer than 64 characters.

    What is kept has a valid one in its place.
    """
    return len(uid) <= _LONGEST_UID, "is longer than any device writes"


_config.LOG_HANDLER_LEVEL = "none"  # it would format every message, for nobody
_config.VALIDATORS["UI"] = _is_bearable


def silence() -> None:
    """Let pynetdicom and pydicom log nothing: they repeat what senders send."""
    for name in ("pynetdicom", "pydicom"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False


class _Budget:
    """Bytes that may still come before the message has an end."""

    def __init__(self) -> None:
        self._most = limits().file_bytes + _MARGIN_BYTES
        self.left = self._most

    def renew(self) -> None:
        self.left = self._most


def _receive(
    assoc_socket: AssociationSocket, budget: _Budget, wanted: int
) -> bytearray:
    """Return as many bytes as are wanted, or those before the connection has ended.

    Raises:
        OSError: If it is too much, or takes too long.
    """
    content = bytearray()
    try:
        budget.left -= wanted
        is_asked = assoc_socket.assoc.requestor.primitive is not None
        largest = _LARGEST_PDU if is_asked else _LARGEST_REQUEST
        if wanted > largest or budget.left < 0:
            raise OSError("A sender sends more than any slice has.")
        assert assoc_socket.socket is not None
        within_s = _SILENT_S if is_asked else _BEGINNING_S
        content = _read(assoc_socket.socket, wanted, within_s)
    finally:
        if len(content) < wanted and assoc_socket.assoc.requestor.primitive is None:
            # Nobody will ask for an association any more: it is not waited for.
            waiting: Any = assoc_socket.assoc.dul.to_user_queue
            waiting.put(None)
    return content


def _read(connection: socket.socket, wanted: int, within_s: float) -> bytearray:
    """Return bytes; who sends them one by one has no more time than others.

    Raises:
        OSError: If they take longer.
    """
    content = bytearray(wanted)
    done, until = 0, time.monotonic() + within_s
    with memoryview(content) as view:
        while done < wanted:
            left_s = until - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("A sender takes too long.")
            connection.settimeout(left_s)
            number = connection.recv_into(view[done:])
            if not number:
                break
            done += number
    connection.settimeout(_SILENT_S)
    del content[done:]
    return content


def _shut(assoc_socket: AssociationSocket) -> None:
    """Close a connection, also where the other side has closed it before."""
    connection = assoc_socket.socket  # another thread may forget it meanwhile
    if connection is not None:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()


def end_association(association: Association) -> None:
    """Abort an association; of one that nobody has asked for, close the connection."""
    if association.requestor.primitive is not None:
        association.abort(block=False)
        return
    assoc_socket = association.dul.socket
    if assoc_socket is not None:
        _shut(assoc_socket)


class _Handler(RequestHandler):
    """Makes an association of a connection."""

    def _create_association(self) -> Association:
        association = super()._create_association()
        assoc_socket: Any = association.dul.socket
        budget = _Budget()
        assoc_socket.recv = partial(_receive, assoc_socket, budget)
        assoc_socket._shutdown_socket = partial(_shut, assoc_socket)
        setattr(association, _BUDGET, budget)
        return association


def _renew_budget(event: evt.Event) -> None:
    getattr(event.assoc, _BUDGET).renew()


class BoundedServer(ThreadedAssociationServer):
    """Listens for associations; each connection is bounded in time and memory."""

    daemon_threads = True
    request_queue_size = _BACKLOG

    def __init__(
        self,
        ae: AE,
        address: tuple[str, int],
        context: ssl.SSLContext | None,
        handlers: list[Any],
        is_welcome: Callable[[str], bool],
    ) -> None:
        """Listen.

        Args:
            ae: With its title, contexts and most associations.
            address: Where to listen.
            context: Of TLS; ``None``: without.
            handlers: Of pynetdicom's events.
            is_welcome: Says whether anybody may connect from an address.

        Raises:
            OSError: If nobody can listen there.
        """
        ae.acse_timeout = _BEGINNING_S
        ae.network_timeout = _SILENT_S
        ae.maximum_pdu_size = PDU_BYTES
        self._is_welcome = is_welcome
        self._beginning = 0  # connections that are no associations yet
        self._lock = threading.Lock()
        super().__init__(
            ae,
            address,
            ae.ae_title,
            ae.supported_contexts,
            ssl_context=context,
            evt_handlers=[*handlers, (evt.EVT_DIMSE_RECV, _renew_budget)],
            request_handler=_Handler,
        )

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Return a new connection; no hands are shaken yet."""
        assert self.socket is not None
        client, address = self.socket.accept()
        client.settimeout(_SILENT_S)
        if self.ssl_context is not None:
            client = self.ssl_context.wrap_socket(
                client, server_side=True, do_handshake_on_connect=False
            )
        return client, address

    def verify_request(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any
    ) -> bool:
        """Say whether a connection is gone on with."""
        number = len(self.active_associations) + self._beginning
        is_room = number < self.ae.maximum_associations + _MORE
        return is_room and self._is_welcome(client_address[0])

    def process_request(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any
    ) -> None:
        """Begin with a connection in a thread of its own."""
        with self._lock:
            self._beginning += 1
        super().process_request(request, client_address)

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any
    ) -> None:
        """Shake hands, if it is to be, and let an association begin."""
        try:
            self._shake_hands(request)
            super().process_request_thread(request, client_address)
        except (OSError, ValueError):
            self.shutdown_request(request)
        finally:
            with self._lock:
                self._beginning -= 1

    def _shake_hands(
        self, request: socket.socket | tuple[bytes, socket.socket]
    ) -> None:
        if isinstance(request, ssl.SSLSocket):
            request.settimeout(_BEGINNING_S)
            request.do_handshake()
            request.settimeout(_SILENT_S)

    def handle_error(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any
    ) -> None:
        """Say nothing: the error may repeat what was sent."""

    def end(self) -> None:
        """Listen no more; associations go on."""
        TCPServer.shutdown(self)
        self.server_close()
