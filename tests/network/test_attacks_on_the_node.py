"""What senders, peers and two processes at once may do to the node."""

import socket
import struct
import time
from typing import Any

import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset
from support.delivered import (
    CLASSES,
    VAULT_KEY,
    bring_study,
    know,
    named_files,
    nobody,
    set_vault,
    store_peer,
    the_delivery,
)
from support.receiving import SENDER, edited, listening, received_place

from csfd_core.deid.deidentify import deidentify
from csfd_core.network import outbox as outbox_module
from csfd_core.network.commitment import take_report
from csfd_core.network.outbox import Outbox
from csfd_core.web.database import vault
from csfd_core.web.delivery import deliveries as rows
from csfd_core.web.delivery.deliveries import DeliveryState
from csfd_core.web.delivery.peers import PeerEndpoint, PeerKind, all_peers, ask_echo
from csfd_core.web.delivery.planning import ask_by_hand
from csfd_core.web.reception import settling
from csfd_core.web.reception.reception import (
    ConflictError,
    Reception,
    Sender,
    WithdrawnError,
)
from csfd_core.web.services import Services
from csfd_core.web.vault import StudyIdentity, Vault, original_of
from csfd_core.web.withdrawing import retention_of, withdraw_from_page

NAMED = Sender(name="SCANNER", keeps_identity=True)
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    set_vault(monkeypatch)
    with received_place(tmp_path / "csfd", monkeypatch) as opened:
        yield opened


# What a peer does to the outbox.


def test_what_a_peer_has_lost_on_the_same_association_is_not_said_to_be_sent(
    services: Services, box: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reports before the association ends, and so before the delivery does."""
    uid = bring_study(services)
    ask_by_hand(services, uid, know(services, nobody()))

    class Forgetful:
        def __init__(self, *_given: object, **_waits: object) -> None:
            pass

        def send(self, objects: Any, *, transaction_uid: str, on_event: Any) -> Any:
            report = Dataset()
            report.TransactionUID = transaction_uid
            report.FailedSOPSequence = [Dataset()]
            assert on_event(report, 2) == 0x0000
            uids = frozenset(str(one.SOPInstanceUID) for one in objects)
            return outbox_module.Sent(stored=uids, told="4 objects stored."), True

    monkeypatch.setattr(outbox_module, "StoreScu", Forgetful)
    box.work_once()
    assert the_delivery(services, uid).state == DeliveryState.WAITING


@pytest.mark.parametrize(
    "endpoint",
    [
        PeerEndpoint(
            name="dots",
            kind=PeerKind.C_STORE,
            ae_title="A",
            host="archive..example",
            port=104,
        ),
        PeerEndpoint(name="stow", kind=PeerKind.STOW, url="https://archive..example/d"),
    ],
)
def test_an_address_that_cannot_be_asked_is_told_and_holds_up_nothing(
    services: Services, box: Outbox, endpoint: PeerEndpoint
) -> None:
    uid = bring_study(services)
    number = know(services, endpoint)
    ask_by_hand(services, uid, number)
    with services.database.transaction() as connection:
        ask_echo(connection, number)
    box.work_once()
    one = the_delivery(services, uid)
    assert (one.state, bool(one.told)) == (DeliveryState.WAITING, True)
    assert one.next_at > time.time() + 20
    with services.database.transaction() as connection:
        (peer,) = all_peers(connection)
    assert not peer.is_asked


def test_a_delivery_whose_end_could_not_be_written_is_taken_up_again(
    services: Services, box: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = bring_study(services)
    end = rows.end

    def fails(*_given: object) -> None:
        monkeypatch.setattr(rows, "end", end)
        raise sa.exc.OperationalError("", {}, Exception("database is locked"))

    with store_peer(CLASSES) as peer:
        ask_by_hand(services, uid, know(services, peer.endpoint))
        monkeypatch.setattr(rows, "end", fails)
        box.work_once()
        assert the_delivery(services, uid).state == DeliveryState.SENDING
        box.work_once()
    assert the_delivery(services, uid).state == DeliveryState.SENT


def test_a_report_that_names_nothing_commits_to_nothing(
    services: Services, box: Outbox
) -> None:
    uid = bring_study(services)
    with store_peer(CLASSES) as peer:
        ask_by_hand(services, uid, know(services, peer.endpoint))
        box.work_once()
    report = Dataset()
    report.TransactionUID = the_delivery(services, uid).transaction_uid
    assert take_report(services, report, 1) == 0x0115
    assert the_delivery(services, uid).state == DeliveryState.SENT


# Whose study it is.


def identity_after(
    services: Services, transfers: list[list[bytes]]
) -> StudyIdentity | None:
    uid = ""
    for files in transfers:
        uid = keep_names(services, files)
    with services.database.transaction() as connection:
        return a_vault().read(connection, uid)


def a_vault() -> Vault:
    return Vault(bytes.fromhex(VAULT_KEY), 30)


def keep_names(services: Services, files: list[bytes]) -> str:
    found = [deidentify(raw, b"s" * 32) for raw in files]
    sealed = [
        a_vault().seal(original_of(raw, one))
        for raw, one in zip(files, found, strict=True)
    ]
    with services.database.transaction() as connection:
        a_vault().keep(connection, found[0].study_uid, sealed)
    return found[0].study_uid


def another(one: Dataset) -> None:
    one.PatientID, one.PatientName = "MRN-OTHER", "Other^Patient"


def test_images_of_another_patient_that_come_later_are_not_certain(
    services: Services,
) -> None:
    """Some of the study would be of one patient, and all results of the other."""
    found = identity_after(services, [named_files()[:3], named_files(another)[3:5]])
    assert found is not None
    assert not found.is_certain


def test_a_study_that_is_corrected_as_a_whole_is_that_of_the_new_patient(
    services: Services,
) -> None:
    first, corrected = named_files()[:3], named_files(another)[:3]
    found = identity_after(services, [first, corrected[:1], corrected[1:]])
    assert found is not None
    assert found.is_certain
    assert found.patient_and_study.PatientID == "MRN-OTHER"


def test_two_names_without_an_id_are_two_patients(services: Services) -> None:
    def no_id(one: Dataset) -> None:
        one.PatientID = ""
        if one.InstanceNumber == 2:
            one.PatientName = "Other^Patient"

    found = identity_after(services, [named_files(no_id)[:3]])
    assert found is not None
    assert not found.is_certain


# Two processes at once.


def test_another_image_is_refused_right_after_another_process_has_accepted(
    place, files
):
    for content in files[:3]:
        place.reception.keep(content, SENDER)  # and knows the study for some seconds
    assert place.another().settle(quiet_s=0)

    def brighter(dataset: Dataset) -> None:
        dataset.RescaleIntercept = 500

    with pytest.raises(ConflictError, match="SOPInstanceUID was kept before"):
        place.reception.keep(edited(files[0], brighter), SENDER)


def test_a_study_that_is_sent_again_is_not_asked_after_for_each_image(
    place, files, monkeypatch
):
    for content in files:
        place.reception.keep(content, SENDER)
    place.settle()
    asked, ask = [], Reception._ask

    def counted(*given: object) -> object:
        asked.append(given)
        return ask(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(Reception, "_ask", counted)
    for content in files[:20]:
        assert not place.reception.keep(content, SENDER).is_new
    assert len(asked) < 4


def test_a_study_that_is_withdrawn_while_it_is_accepted_stays_withdrawn(
    place, files, monkeypatch
):
    uid = {place.reception.keep(content, SENDER).study_uid for content in files}.pop()
    hold = settling.hold_studies

    def late(*given: object) -> object:
        monkeypatch.setattr(settling, "hold_studies", hold)
        withdraw_from_page(place.services, place.another(), uid, "asked for", None)
        return hold(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(settling, "hold_studies", late)
    place.settle()
    assert not place.in_inbox()
    assert not place.waiting()


def test_a_study_that_the_page_has_just_withdrawn_takes_in_nothing(place, files):
    """The graph has not yet seen that it was withdrawn."""
    uid = {place.reception.keep(content, SENDER).study_uid for content in files}.pop()
    place.settle()
    withdraw_from_page(place.services, place.another(), uid, "asked for", None)
    with pytest.raises(WithdrawnError):
        place.another().keep(files[0], SENDER)
    place.settle()
    assert not place.in_inbox()


# Slow senders.


def dribble(port: int, head: bytes, for_s: float) -> bool:
    """Send bytes one by one; return whether the connection was closed meanwhile."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(head)
        client.settimeout(0.1)
        until = time.monotonic() + for_s
        while time.monotonic() < until:
            try:
                client.sendall(b"\0")
                if not client.recv(4096):
                    return True
            except TimeoutError:
                continue
            except OSError:
                return True
    return False


def test_who_asks_for_an_association_byte_by_byte_is_closed(place, monkeypatch):
    monkeypatch.setattr("csfd_core.network.listening._BEGINNING_S", 0.6)
    with listening(place) as node:
        assert dribble(node.port, struct.pack(">BBL", 1, 0, 2000), 3)


def test_who_promises_a_huge_request_is_closed(place):
    with (
        listening(place) as node,
        socket.create_connection(("127.0.0.1", node.port), timeout=5) as client,
    ):
        client.sendall(struct.pack(">BBL", 1, 0, 2**18 + 1))
        while client.recv(4096):
            continue


def test_the_page_alone_forgets_how_studies_were_called_as_well(place, files):
    """Where no node runs, nobody works on the outbox."""
    uid = place.reception.keep(files[0], NAMED).study_uid
    place.settle()
    with place.services.database.transaction() as connection:
        connection.execute(vault.update().values(expires_at=time.time() - 1))
    retention = retention_of(place.services, place.reception)
    retention.start()
    retention.stop()
    with place.services.database.transaction() as connection:
        assert connection.scalar(sa.select(vault.c.study_uid)) is None, uid
