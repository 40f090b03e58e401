"""The outbox by C-STORE: what counts as sent, what is tried again, what never is."""

import json
import logging
import time
from dataclasses import replace
from typing import Any

import pytest
from pydicom.dataset import Dataset
from support.delivered import (
    CLASSES,
    NAMES,
    PATIENT_S,
    bring_study,
    know,
    named_files,
    nobody,
    store_peer,
    the_delivery,
    wait_for,
)
from support.dicom_studies import STUDY_UID
from support.kills import CONTEXT

from csfd_core.deid.deidentify import deidentify
from csfd_core.inference.predict import prediction_path, read_prediction
from csfd_core.ingest.patients import read_secret
from csfd_core.network.outbox import Outbox
from csfd_core.settings import DicomSettings
from csfd_core.web.database import deliveries, vault
from csfd_core.web.delivery.deliveries import DeliveryState, put_off
from csfd_core.web.delivery.planning import ask_by_hand
from csfd_core.web.services import Services
from csfd_core.web.vault import Vault, original_of

# pynetdicom leaves a socket that was refused to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


def change(services: Services, **values: Any) -> None:
    with services.database.transaction() as connection:
        connection.execute(deliveries.update().values(**values))


def test_all_objects_arrive_under_the_name_that_the_sender_gave(
    services: Services, box: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    uid = bring_study(services)
    with store_peer(CLASSES) as peer:
        ask_by_hand(services, uid, know(services, peer.endpoint))
        assert box.work_once() == 1
        assert box.work_once() == 0  # once is enough
    one = the_delivery(services, uid)
    assert (one.state, one.told) == (DeliveryState.SENT, "4 objects stored.")
    assert {str(got.SOPClassUID) for got in peer.received} == set(CLASSES)
    for got in peer.received:
        assert got.StudyInstanceUID == STUDY_UID
        assert {name: str(got.get(name, "")) for name in NAMES} == NAMES
    assert set(peer.callers) == {"CSFD"}
    for text in (NAMES["PatientName"], NAMES["PatientID"], STUDY_UID):
        assert text not in caplog.text


def test_what_a_peer_refuses_is_tried_again_later(
    services: Services, box: Outbox
) -> None:
    uid = bring_study(services)
    with store_peer(CLASSES) as peer:
        ask_by_hand(services, uid, know(services, peer.endpoint))
        peer.status = lambda got: 0xA700 if got.Modality == "SR" else 0x0000
        box.work_once()
        one = the_delivery(services, uid)
        assert one.state == DeliveryState.WAITING
        assert one.told == "3 objects stored. Refused with status 0xA700."
        assert 24 <= one.next_at - time.time() <= 2 * 30 * 1.2
        assert box.work_once() == 0
        peer.status = lambda _got: 0x0000
        change(services, next_at=0.0)
        assert box.work_once() == 1
    assert the_delivery(services, uid).state == DeliveryState.SENT
    uids = [got.SOPInstanceUID for got in peer.received]
    assert len(set(uids)) == 4  # what came twice is the same object


def test_a_remark_of_a_peer_is_told_and_is_no_failure(
    services: Services, box: Outbox
) -> None:
    uid = bring_study(services)
    with store_peer(CLASSES) as peer:
        ask_by_hand(services, uid, know(services, peer.endpoint))
        peer.status = lambda _got: 0xB000
        box.work_once()
    one = the_delivery(services, uid)
    assert one.state == DeliveryState.SENT
    assert one.told == "4 objects stored. Stored with a remark: status 0xB000."


def test_an_object_that_a_peer_has_already_is_there(
    services: Services, box: Outbox
) -> None:
    uid = bring_study(services)
    with store_peer(CLASSES) as peer:
        ask_by_hand(services, uid, know(services, peer.endpoint))
        peer.status = lambda _got: 0x0111
        box.work_once()
    assert the_delivery(services, uid).state == DeliveryState.SENT


@pytest.mark.parametrize(
    ("taken", "state"),
    [(CLASSES[1:], DeliveryState.PARTLY_SENT), ((), DeliveryState.FAILED)],
)
def test_kinds_that_a_peer_never_takes_are_named_and_not_tried_again(
    services: Services, box: Outbox, taken: tuple[str, ...], state: DeliveryState
) -> None:
    uid = bring_study(services)
    # A peer that takes nothing of it takes CT at least.
    with store_peer([*taken, "1.2.840.10008.5.1.4.1.1.2"]) as peer:
        ask_by_hand(services, uid, know(services, peer.endpoint))
        box.work_once()
    one = the_delivery(services, uid)
    assert one.state == state
    assert "Segmentation" in one.told
    assert len(peer.received) == len(taken)


def test_where_nobody_answers_the_rest_waits_without_a_try(
    services: Services, box: Outbox
) -> None:
    def second(one: Dataset) -> None:
        one.SOPInstanceUID = f"{one.StudyInstanceUID}.9.{one.InstanceNumber}"

    uids = [bring_study(services)]
    uids.append(bring_study(services, named_files(second, f"{STUDY_UID}.2")))
    peer_id = know(services, nobody())
    for uid in uids:
        ask_by_hand(services, uid, peer_id)
    assert box.work_once() == 2
    first, other = (the_delivery(services, uid) for uid in uids)
    assert first.told == "Nobody answers there as a DICOM node."
    assert (first.attempts, other.attempts) == (1, 0)
    assert other.state == DeliveryState.WAITING
    assert other.next_at > time.time()
    assert box.work_once() == 0


def test_after_a_day_it_has_failed_and_may_be_asked_for_again(
    services: Services, box: Outbox
) -> None:
    uid = bring_study(services)
    peer_id = know(services, nobody())
    ask_by_hand(services, uid, peer_id)
    change(services, created_at=time.time() - 86_500)
    box.work_once()
    assert the_delivery(services, uid).state == DeliveryState.FAILED
    assert ask_by_hand(services, uid, peer_id) == 1
    assert the_delivery(services, uid).state == DeliveryState.WAITING


def test_waits_grow_to_an_hour(services: Services) -> None:
    uid = bring_study(services)
    ask_by_hand(services, uid, know(services, nobody()))
    one = the_delivery(services, uid)
    for attempts in range(12):
        with services.database.transaction() as connection:
            wait_s = put_off(connection, replace(one, attempts=attempts), "")
        expected_s = min(3600.0, 30.0 * 2**attempts)
        assert 0.8 * expected_s <= wait_s <= 1.2 * expected_s
        next_at = the_delivery(services, uid).next_at
        assert next_at - time.time() == pytest.approx(wait_s, abs=5)


def _send() -> None:
    services = Services.open()
    Outbox(services, patience_s=PATIENT_S, answer_s=30).work_once()


def test_what_a_killed_process_was_sending_is_sent_again_as_the_same_objects(
    services: Services,
) -> None:
    uid = bring_study(services)
    with store_peer(CLASSES) as peer:
        ask_by_hand(services, uid, know(services, peer.endpoint))
        peer.delay_s = 0.5
        process = CONTEXT.Process(target=_send)
        process.start()
        wait_for(lambda: len(peer.received) > 0)
        process.kill()
        process.join()
        assert the_delivery(services, uid).state == DeliveryState.SENDING
        before = {got.SOPInstanceUID for got in peer.received}
        peer.delay_s = 0.0
        box = Outbox(services, patience_s=PATIENT_S)
        assert box.work_once() == 1
        box.close()
    assert the_delivery(services, uid).state == DeliveryState.SENT
    assert {got.SOPInstanceUID for got in peer.received} >= before
    assert len({got.SOPInstanceUID for got in peer.received}) == 4


def test_only_one_outbox_works_at_a_time(services: Services, box: Outbox) -> None:
    uid = bring_study(services)
    with store_peer(CLASSES) as peer:
        box.work_once()
        ask_by_hand(services, uid, know(services, peer.endpoint))
        other = Outbox(services, patience_s=PATIENT_S)
        assert other.work_once() == 0
        box.close()
        assert other.work_once() == 1
        other.close()


def test_a_prediction_that_was_replaced_meanwhile_does_not_go_out(
    services: Services, box: Outbox
) -> None:
    uid = bring_study(services)
    with store_peer(CLASSES) as peer:
        ask_by_hand(services, uid, know(services, peer.endpoint))
        _predict_anew(services, uid)
        box.work_once()
        assert peer.received == []
    one = the_delivery(services, uid)
    assert one.state == DeliveryState.REPLACED
    assert one.told == "A newer prediction has taken its place."


def _predict_anew(services: Services, uid: str) -> None:
    prediction = read_prediction(services.stores, uid)
    assert prediction is not None
    anew = json.dumps({**prediction, "model": "another"}).encode()
    services.stores.root.write(prediction_path(uid), anew)


def _lose_vault(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    with services.database.transaction() as connection:
        connection.execute(vault.delete())


def _let_expire(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    with services.database.transaction() as connection:
        connection.execute(vault.update().values(expires_at=1.0))


def _lose_key(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CSFD_VAULT_KEY")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_lose_vault, "The results of this study cannot be sent"),
        (_let_expire, "it came too long ago"),
        (_lose_key, "CSFD_VAULT_KEY is not set"),
    ],
)
def test_without_the_name_nothing_is_sent(
    services: Services, monkeypatch: pytest.MonkeyPatch, spoil: Any, told: str
) -> None:
    uid = bring_study(services)
    with store_peer(CLASSES) as peer:
        ask_by_hand(services, uid, know(services, peer.endpoint))
        spoil(services, monkeypatch)
        box = Outbox(services, patience_s=PATIENT_S)
        box.work_once()
        box.close()
        assert peer.received == []
    one = the_delivery(services, uid)
    assert one.state == DeliveryState.FAILED
    assert told in one.told


def test_a_study_of_two_patients_is_sent_to_neither(
    services: Services, box: Outbox
) -> None:
    def other(one: Dataset) -> None:
        one.PatientID = "SOMEBODY-ELSE"

    uid = bring_study(services)
    keep = Vault.open(DicomSettings.read())
    assert keep is not None
    secret = read_secret(services.settings.key_file)
    sealed = [
        keep.seal(original_of(raw, deidentify(raw, secret)))
        for raw in (named_files()[0], named_files(other)[1])
    ]
    with services.database.transaction() as connection:
        keep.keep(connection, uid, sealed)
    with store_peer(CLASSES) as peer:
        ask_by_hand(services, uid, know(services, peer.endpoint))
        box.work_once()
        assert peer.received == []
    assert "name different patients" in the_delivery(services, uid).told
