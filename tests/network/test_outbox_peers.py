"""Peers of the outbox by C-STORE: those that hang, that answer, that keep or forget."""

import socket
import threading
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest
from pydicom.dataset import Dataset
from support.delivered import (
    CLASSES,
    PATIENT_S,
    bring_study,
    deliveries_of,
    know,
    nobody,
    store_peer,
    the_delivery,
    wait_for,
)

from csfd_core.network.commitment import take_report
from csfd_core.network.outbox import Outbox
from csfd_core.web.delivery.deliveries import DeliveryState
from csfd_core.web.delivery.peers import all_peers, ask_echo
from csfd_core.web.delivery.planning import ask_by_hand
from csfd_core.web.services import Services

# pynetdicom leaves a socket that was refused to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


def test_a_peer_that_hangs_holds_up_no_other_and_is_not_said_to_have_it(
    services: Services,
) -> None:
    uid = bring_study(services)
    box = Outbox(services, patience_s=0.0, connect_s=20, answer_s=2)
    with ExitStack() as stack:
        slow = stack.enter_context(store_peer(CLASSES))
        quick = stack.enter_context(store_peer(CLASSES))
        slow.delay_s = 6.0
        slow_id = know(services, replace(slow.endpoint, name="slow"))
        ask_by_hand(services, uid, slow_id)
        ask_by_hand(services, uid, know(services, quick.endpoint))
        begun = time.monotonic()
        assert box.work_once() == 2
        assert time.monotonic() - begun < 3.0

        def states() -> dict[str, DeliveryState]:
            return {one.peer: one.state for one in deliveries_of(services, uid)}

        wait_for(lambda: states()["archive"] == DeliveryState.SENT)
        wait_for(lambda: states()["slow"] == DeliveryState.WAITING)
    box.close()
    told = {one.peer: one.told for one in deliveries_of(services, uid)}
    assert told["slow"] == "The peer ceased to answer."


def test_a_peer_that_stops_in_the_middle_of_an_answer_is_given_up(
    services: Services,
) -> None:
    uid = bring_study(services)
    box = Outbox(services, patience_s=PATIENT_S, connect_s=2, answer_s=1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = replace(nobody(), port=server.getsockname()[1])
        ask_by_hand(services, uid, know(services, endpoint))

        def answer() -> None:
            client, _ = server.accept()
            client.recv(65536)
            client.sendall(b"\x02\x00\x00\x00\x01\x00\x00\x01")  # of 256 bytes, two
            time.sleep(6)
            client.close()

        thread = threading.Thread(target=answer)
        thread.start()
        begun = time.monotonic()
        box.work_once()
        assert time.monotonic() - begun < 6
        thread.join()
    box.close()
    assert the_delivery(services, uid).state == DeliveryState.WAITING


def test_the_node_tells_whether_a_peer_answers(services: Services, box: Outbox) -> None:
    with store_peer(CLASSES) as peer:
        wrong = replace(peer.endpoint, name="wrong title", ae_title="OTHER")
        numbers = [
            know(services, endpoint) for endpoint in (peer.endpoint, wrong, nobody())
        ]
        with services.database.transaction() as connection:
            for number in numbers:
                ask_echo(connection, number)
        box.work_once()
    with services.database.transaction() as connection:
        told = {p.name: p.echo_told for p in all_peers(connection) if not p.is_asked}
    assert told["archive"] == "It answers."
    assert told["wrong title"].startswith("It refuses the association")
    assert told["nobody"] == "Nobody answers there as a DICOM node."


@pytest.mark.parametrize(
    ("event_type", "state", "told"),
    [
        (1, DeliveryState.COMMITTED, "4 objects kept for good."),
        (2, DeliveryState.WAITING, "It has not kept 1 object that it had stored."),
    ],
)
def test_what_a_peer_reports_of_keeping_counts(
    services: Services, box: Outbox, event_type: int, state: DeliveryState, told: str
) -> None:
    uid = bring_study(services)
    with store_peer(CLASSES) as peer:
        ask_by_hand(services, uid, know(services, peer.endpoint))
        box.work_once()
    report = Dataset()
    report.TransactionUID = the_delivery(services, uid).transaction_uid
    report.ReferencedSOPSequence = [Dataset() for _ in range(4)]
    if event_type == 2:
        report.FailedSOPSequence = [Dataset()]
    assert take_report(services, report, event_type) == 0x0000
    assert (the_delivery(services, uid).state, the_delivery(services, uid).told) == (
        state,
        told,
    )
    report.TransactionUID = "1.2.3"
    assert take_report(services, report, event_type) == 0x0114
