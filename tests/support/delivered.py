"""A study that came over the network and is done: in the store, and in the vault."""

import io
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from csfd_core.deid.deidentify import deidentify
from csfd_core.ingest.convert import convert_study
from csfd_core.ingest.patients import read_secret
from csfd_core.settings import DicomSettings
from csfd_core.web.delivery.deliveries import Delivery, of_study
from csfd_core.web.delivery.peers import PeerEndpoint, PeerKind, add_peer, change_peer
from csfd_core.web.services import Services
from csfd_core.web.study_states import Accepted, StudyState, accept, open_studies, tell
from csfd_core.web.vault import Vault, original_of
from support.conversion import tasks
from support.dicom_studies import SLICE_MM, STUDY_UID, slice_dataset
from support.ports import free_port
from support.viewed_study import (
    SLICES,
    study_hounsfield,
    study_mask,
    write_mask,
    write_prediction,
)

VAULT_KEY = "5a" * 32
PATIENT_S = 60.0  # how long an outbox of a test waits for its peers
NAMES = {  # planted: found at the archive, and nowhere else
    "PatientName": "Zwetajewa^Marfa",
    "PatientID": "MRN-7731942",
    "IssuerOfPatientID": "HOSPITAL-NORTH",
    "PatientBirthDate": "19310214",
    "PatientSex": "F",
    "StudyDate": "20240229",
    "StudyTime": "031415",
    "AccessionNumber": "ACC-5550123",
    "ReferringPhysicianName": "Quacksalber^Otto",
    "StudyID": "SID-90210",
    "StudyDescription": "CT HWS nach Sturz",
}
FRAME_UID = f"{STUDY_UID}.77"
# Segmentation, Comprehensive 3D SR, Secondary Capture, Encapsulated PDF.
CLASSES = (
    "1.2.840.10008.5.1.4.1.1.66.4",
    "1.2.840.10008.5.1.4.1.1.88.34",
    "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.104.1",
)

Edit = Callable[[Dataset], None]


def named_files(edit: Edit | None = None, study_uid: str = STUDY_UID) -> list[bytes]:
    """Return the files of the study as an archive would send them."""
    files = []
    for index, plane in enumerate(study_hounsfield()):
        one = slice_dataset(plane, index + 1, 100.0 - index * SLICE_MM, study_uid)
        for keyword, value in NAMES.items():
            setattr(one, keyword, value)
        one.FrameOfReferenceUID = FRAME_UID
        one.PositionReferenceIndicator = ""
        if edit is not None:
            edit(one)
        sink = io.BytesIO()
        one.save_as(sink, enforce_file_format=True)
        files.append(sink.getvalue())
    return files


def set_vault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be a vault."""
    monkeypatch.setenv("CSFD_VAULT_KEY", VAULT_KEY)


def bring_study(
    services: Services, files: Sequence[bytes] | None = None, *, kept: bool = True
) -> str:
    """Take in a study and let it be done; return its keyed UID.

    Args:
        services: Of the page.
        files: As they were sent.
        kept: Whether the vault keeps how it is called.
    """
    secret = read_secret(services.settings.key_file)
    vault = Vault.open(DicomSettings.read())
    sealed, uid = [], ""
    for raw in files or named_files():
        found = deidentify(raw, secret)
        uid = found.study_uid
        place = f"train_images/{uid}/{found.sop_uid}.dcm"
        services.inbox.write(place, found.content)
        if kept:
            assert vault is not None
            sealed.append(vault.seal(original_of(raw, found)))
    with services.database.transaction() as connection:
        one = Accepted(study_uid=uid, slices=SLICES, priority=0, user_id=None)
        accept(connection, one)
        if vault is not None and kept:
            vault.keep(connection, uid, sealed)
    finish_study(services, uid)
    return uid


def finish_study(services: Services, uid: str) -> None:
    """Do what the graph does with a study that was accepted."""
    inbox, store = Path(services.inbox.url), Path(services.stores.root.url)
    (task,) = [one for one in tasks(inbox, store) if one.folder.name == uid]
    assert convert_study(task).action.name == "WRITTEN"
    write_mask(services.stores, study_mask(), uid)
    write_prediction(services.stores, uid)
    (row,) = [one for one in open_studies(services.database) if one.study_uid == uid]
    assert tell(services.database, row, StudyState.DONE)


class StorePeer:
    """A peer that takes objects by C-STORE, as it is told to.

    Attributes:
        endpoint: Where it is.
        received: What it was sent.
        status: What it answers; a function of the object.
        delay_s: How long it thinks.
    """

    def __init__(self, endpoint: PeerEndpoint) -> None:
        self.endpoint = endpoint
        self.received: list[Dataset] = []
        self.status: Callable[[Dataset], int] = lambda _one: 0x0000
        self.delay_s = 0.0
        self.callers: list[str] = []

    def take(self, event: evt.Event) -> int:
        """Handle a C-STORE."""
        one = event.dataset
        one.file_meta = event.file_meta
        time.sleep(self.delay_s)
        status = self.status(one)
        if status in (0x0000, 0xB000, 0xB006, 0xB007):
            self.received.append(one)
        self.callers.append(event.assoc.requestor.ae_title)
        return status


@contextmanager
def store_peer(
    contexts: Sequence[str],
    *,
    called: str = "ARCHIVE",
    context: ssl.SSLContext | None = None,
) -> Iterator[StorePeer]:
    """Let a peer listen.

    Args:
        contexts: SOP classes that it takes.
        called: Its AE title, which callers must use.
        context: Of TLS; ``None``: without.
    """
    entity = AE(ae_title=called)
    entity.require_called_aet = True
    entity.add_supported_context("1.2.840.10008.1.1")
    for uid in contexts:
        entity.add_supported_context(uid)
    endpoint = PeerEndpoint(
        name="archive",
        kind=PeerKind.C_STORE,
        ae_title=called,
        host="127.0.0.1",
        port=free_port(),
        is_tls=context is not None,
    )
    peer = StorePeer(endpoint)
    server = entity.start_server(
        ("127.0.0.1", endpoint.port),
        block=False,
        ssl_context=context,
        evt_handlers=[
            (evt.EVT_C_STORE, peer.take),
            (evt.EVT_C_ECHO, lambda _event: 0x0000),
        ],
    )
    try:
        yield peer
    finally:
        server.shutdown()


def know(services: Services, endpoint: PeerEndpoint, *, automatic: bool = False) -> int:
    """Add a peer; return its number."""
    with services.database.transaction() as connection:
        peer_id = add_peer(connection, endpoint)
        if automatic:
            change_peer(connection, peer_id, is_active=True, is_automatic=True)
    return peer_id


def deliveries_of(services: Services, uid: str) -> list[Delivery]:
    """Return what the outbox says of a study, oldest first."""
    with services.database.transaction() as connection:
        return sorted(of_study(connection, uid), key=lambda one: one.id)


def wait_for(condition: Callable[[], bool], most_s: float = 20.0) -> None:
    """Wait until something is so."""
    until = time.monotonic() + most_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < until, "It never became so."
        pause.wait(0.05)


def the_delivery(services: Services, uid: str) -> Delivery:
    """Return the only delivery of a study."""
    (one,) = deliveries_of(services, uid)
    return one


def nobody(name: str = "nobody") -> PeerEndpoint:
    """Return an endpoint where nobody listens."""
    return PeerEndpoint(
        name=name,
        kind=PeerKind.C_STORE,
        ae_title="NOBODY",
        host="127.0.0.1",
        port=free_port(),
    )
