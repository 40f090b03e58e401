"""Slices that come over the network: a place that takes them in, and senders."""

import io
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.transport import AssociationSocket

from csfd_core.network.receiver import Receiver
from csfd_core.settings import DicomSettings
from csfd_core.web.database import audit, studies
from csfd_core.web.reception.reception import Reception, Sender
from csfd_core.web.services import Services
from support.ports import free_port
from support.web import set_environment

SENDER = Sender(name="SCANNER")
CALLED = "CSFD"
_PATIENCE_S = 30
_META_LENGTH = 140  # where a file says how long its meta information is


@dataclass
class Place:
    """Where slices are taken in."""

    home: Path
    services: Services
    reception: Reception

    def another(self) -> Reception:
        """Return what another process would have."""
        return Reception(Services.open())

    def waiting(self) -> list[Path]:
        return sorted((self.home / "data" / "received").glob("*/*.dcm"))

    def in_inbox(self) -> list[Path]:
        return sorted((self.home / "inbox").glob("train_images/*/*.dcm"))

    def rows(self) -> list[sa.Row]:
        with self.services.database.transaction() as connection:
            return list(connection.execute(sa.select(studies)))

    def audited(self) -> list[str]:
        with self.services.database.transaction() as connection:
            wanted = sa.select(audit.c.action).order_by(audit.c.number)
            return list(connection.scalars(wanted))

    def settle(self) -> list[str]:
        """Accept what waits, however short it has been quiet."""
        return self.reception.settle(quiet_s=0)


@contextmanager
def received_place(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Open what takes in slices below a folder."""
    set_environment(home, monkeypatch)
    monkeypatch.setenv("CSFD_QUIET_S", "1")
    services = Services.open()
    yield Place(home, services, Reception(services))
    services.database.close()


def edited(content: bytes, edit: Callable[[Dataset], None]) -> bytes:
    """Return a file that was changed."""
    dataset = dcmread(io.BytesIO(content))
    edit(dataset)
    return written(dataset)


def written(dataset: Dataset) -> bytes:
    sink = io.BytesIO()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(sink, enforce_file_format=True)
    return sink.getvalue()


def all_bytes_below(folder: Path) -> bytes:
    """Return everything that lies in a folder, names of files included."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return b"\n".join(str(path).encode() + path.read_bytes() for path in found)


@dataclass
class Listening:
    """A receiver that listens, and the lines it has said."""

    port: int
    receiver: Receiver
    lines: list[str]


@contextmanager
def listening(place: Place, **given: object) -> Iterator[Listening]:
    """Let a receiver listen as long as the block runs."""
    settings = DicomSettings.read(port=free_port(), **given)
    lines: list[str] = []
    receiver = Receiver(place.reception, settings, lines.append)
    receiver.start()
    try:
        yield Listening(receiver.port, receiver, lines)
    finally:
        receiver.stop()


def associate(
    port: int,
    *syntaxes: str,
    calling: str = "SCANNER",
    called: str = CALLED,
    sop_class: str = CTImageStorage,
    **options: object,
) -> Association:
    """Ask for an association; it may be refused."""
    sender = AE(calling)
    sender.acse_timeout = sender.dimse_timeout = sender.network_timeout = 30
    sender.add_requested_context(sop_class, list(syntaxes) or None)
    found = sender.associate("127.0.0.1", port, ae_title=called, **options)  # type: ignore[arg-type]
    found.dul.socket._shutdown_socket = partial(_hang_up, found.dul.socket)
    if not found.is_established:
        found.dul.socket._shutdown_socket()
    return found


def _hang_up(place: AssociationSocket) -> None:
    """Close a connection; pynetdicom leaves one open that the other side has closed."""
    connection = place.socket  # another thread may forget it meanwhile
    if connection is not None:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()


def answer_to(
    association: Association, content: bytes, announced: str = "", cut: int = 0
) -> Dataset:
    """Send the data set of a file byte by byte; return the answer, empty: none.

    Args:
        association: Of one context.
        content: The file.
        announced: SOPInstanceUID of the command; else that of the file.
        cut: Bytes that are left out at the end.
    """
    (length,) = struct.unpack_from("<I", content, _META_LENGTH)
    (context,) = association.accepted_contexts
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID = context.abstract_syntax
    request.AffectedSOPInstanceUID = announced or str(
        dcmread(io.BytesIO(content), specific_tags=["SOPInstanceUID"]).SOPInstanceUID
    )
    body = content[_META_LENGTH + 4 + length :]
    request.DataSet = io.BytesIO(body[: len(body) - cut])
    association._reactor_checkpoint.clear()
    while not association._is_paused:
        time.sleep(0.0001)
    association.dimse.send_msg(request, context.context_id)
    answer, until = None, time.monotonic() + _PATIENCE_S
    while answer is None and time.monotonic() < until:
        is_over = association.acse.is_aborted() or not association.dul.is_alive()
        _, answer = association.dimse.get_msg(block=False)
        if is_over:
            break
        time.sleep(0.0005)
    association._reactor_checkpoint.set()
    found = Dataset()
    if answer is not None:
        found.Status = answer.Status
        found.ErrorComment = answer.ErrorComment or ""
    return found


def status_of(association: Association, content: bytes) -> int:
    """Send a file; return the status of the answer, -1 where there was none."""
    answer = answer_to(association, content)
    return int(answer.Status) if "Status" in answer else -1


def send(port: int, files: list[bytes], **options: object) -> list[int]:
    """Send files of one transfer syntax; return the status of each."""
    (syntax,) = {dcmread(io.BytesIO(f)).file_meta.TransferSyntaxUID for f in files}
    association = associate(port, syntax, **options)  # type: ignore[arg-type]
    assert association.is_established
    found = [status_of(association, content) for content in files]
    association.release()
    return found


def told(node: Listening, number: int = 1) -> list[dict]:
    """Return what was said of associations, once it was said of so many."""
    until = time.monotonic() + 10
    while len(node.lines) < number and time.monotonic() < until:
        time.sleep(0.01)
    return [json.loads(line) for line in node.lines]
