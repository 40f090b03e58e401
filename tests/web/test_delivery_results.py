"""Results of a study on the page: downloads, sending, and who may not see either."""

import io
import re
import time
import zipfile
from typing import Any

import pydicom
import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient
from support.delivered import (
    CLASSES,
    NAMES,
    bring_study,
    deliveries_of,
    know,
    set_vault,
)
from support.dicom_studies import STUDY_UID
from support.ports import free_port
from support.web import WebUnderTest

from csfd_core.network.addressed import ReplacedError, addressed_objects
from csfd_core.settings import DicomSettings
from csfd_core.vocabulary import LEVEL_NAMES
from csfd_core.web.audit import verify
from csfd_core.web.database import audit, deliveries, peers, studies
from csfd_core.web.delivery import planning
from csfd_core.web.delivery.deliveries import DeliveryState, ask, set_of_review
from csfd_core.web.delivery.peers import PeerEndpoint, PeerKind, add_peer
from csfd_core.web.delivery.planning import Planner
from csfd_core.web.study_states import StudyState, forget
from csfd_core.web.vault import Vault

ARTIFACTS = ("seg", "sr", "key-image", "summary")
LEVELS = {**dict.fromkeys(LEVEL_NAMES, "whole"), "C4": "fractured"}


@pytest.fixture
def uid(web: WebUnderTest, monkeypatch: pytest.MonkeyPatch) -> str:
    set_vault(monkeypatch)
    # Whether its patient is in the locked test set hangs on the secret of the test.
    monkeypatch.setattr("csfd_core.web.review.blind.is_locked", lambda *_: False)
    return bring_study(web.services)


@pytest.fixture
def locked(uid: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("csfd_core.web.review.blind.is_locked", lambda *_: True)
    return uid


def an_endpoint(name: str = "archive") -> PeerEndpoint:
    return PeerEndpoint(
        name=name,
        kind=PeerKind.C_STORE,
        ae_title="ARCHIVE",
        host="127.0.0.1",
        port=free_port(),
    )


def api(uid: str) -> str:
    return f"/api/v1/studies/{uid}"


def sign(client: TestClient, uid: str) -> int:
    body = {"version": 1, "levels": LEVELS, "boxes": [], "comment": "SECRET-WORD"}
    answer = client.post(f"{api(uid)}/sign", json=body)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def sets_of(web: WebUnderTest, uid: str) -> list[str]:
    return [one.result_set for one in deliveries_of(web.services, uid)]


def downloaded(web: WebUnderTest, uid: str, artifact: str) -> list[pydicom.Dataset]:
    answer = web.client.get(f"{api(uid)}/artifacts/{artifact}")
    assert answer.status_code == 200, answer.text
    files = [answer.content]
    if artifact == "key-image":
        packed = zipfile.ZipFile(io.BytesIO(answer.content))
        files = [packed.read(name) for name in packed.namelist()]
    return [pydicom.dcmread(io.BytesIO(content)) for content in files]


def test_objects_for_download_name_nobody(web: WebUnderTest, uid: str) -> None:
    sign(web.client, uid)
    found = [
        one for name in (*ARTIFACTS, "signed-sr") for one in downloaded(web, uid, name)
    ]
    assert {one.SOPClassUID for one in found} == set(CLASSES)
    for one in found:
        assert one.StudyInstanceUID == uid
        assert one.PatientIdentityRemoved == "YES"
        sink = io.BytesIO()
        one.save_as(sink)
        for text in (*NAMES.values(), STUDY_UID, "SECRET-WORD"):
            assert len(text) == 1 or text.encode() not in sink.getvalue()
    with web.services.database.transaction() as connection:
        told = set(connection.scalars(sa.select(audit.c.action)))
    assert {f"downloaded: {name}" for name in (*ARTIFACTS, "signed-sr")} <= told
    assert "downloaded: signed-sr</td>" in web.client.get("/admin/audit").text
    assert verify(web.services.database)[1] is None


def test_what_is_not_there_is_said(web: WebUnderTest, uid: str) -> None:
    signed = web.client.get(f"{api(uid)}/artifacts/signed-sr")
    assert (signed.status_code, signed.json()["detail"]) == (
        404,
        "Nobody has signed this study as it is now.",
    )
    assert web.client.get(f"{api(uid)}/artifacts/other").status_code == 422
    assert web.client.get(f"{api('1.2.3')}/artifacts/seg").status_code == 404


def test_a_reader_sends_results_and_follows_them(web: WebUnderTest, uid: str) -> None:
    peer_id = know(web.services, an_endpoint())
    reader = web.sign_in_as("ann")
    review = sign(reader, uid)
    answer = reader.post(f"{api(uid)}/push", json={"peer_id": peer_id})
    assert answer.status_code == 202
    told = answer.json()
    assert [one["state"] for one in told["deliveries"]] == ["waiting", "waiting"]
    assert {one["is_review"] for one in told["deliveries"]} == {True, False}
    assert set_of_review(review) in sets_of(web, uid)
    assert reader.get(f"{api(uid)}/results").json() == told
    with web.services.database.transaction() as connection:
        assert "sending asked for" in set(connection.scalars(sa.select(audit.c.action)))


@pytest.mark.parametrize(
    ("spoil", "status", "told"),
    [
        ({"key": ""}, 409, "CSFD_VAULT_KEY is not set"),
        ({"state": StudyState.RUNNING}, 409, "not ready yet"),
        ({"is_active": False}, 404, "no such peer"),
        ({"vault": False}, 409, "it did not come over the network"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_a_sentence(
    web: WebUnderTest,
    uid: str,
    monkeypatch: pytest.MonkeyPatch,
    spoil: dict[str, Any],
    status: int,
    told: str,
) -> None:
    peer_id = know(web.services, an_endpoint())
    with web.services.database.transaction() as connection:
        if "state" in spoil:
            connection.execute(studies.update().values(**spoil))
        if "is_active" in spoil:
            connection.execute(peers.update().values(**spoil))
        if "vault" in spoil:
            connection.exec_driver_sql("DELETE FROM identity_vault")
    if "key" in spoil:
        monkeypatch.setenv("CSFD_VAULT_KEY", "")
    answer = web.client.post(f"{api(uid)}/push", json={"peer_id": peer_id})
    assert answer.status_code == status
    assert told in answer.json()["detail"]
    assert deliveries_of(web.services, uid) == []


def test_readers_are_told_of_no_setting(
    web: WebUnderTest, uid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSFD_VAULT_KEY", "")
    reader = web.sign_in_as("ann")
    told = {
        client: client.get(f"{api(uid)}/results").json()["why_not"]
        for client in (reader, web.client)
    }
    plain = "Results cannot be sent to an archive from here. They can be downloaded."
    assert told[reader] == plain
    assert "CSFD_VAULT_KEY is not set" in told[web.client]
    peer_id = know(web.services, an_endpoint())
    pushed = reader.post(f"{api(uid)}/push", json={"peer_id": peer_id})
    assert (pushed.status_code, pushed.json()["detail"]) == (409, plain)


def test_two_summaries_are_not_called_alike(web: WebUnderTest, uid: str) -> None:
    page = web.client.get(f"/studies/{uid}").text
    names = dict(re.findall(r'href="[^"]*/([^"/]+)" download>(Summary[^<]*)<', page))
    assert names == {
        "summary.pdf": "Summary (PDF)",
        "summary": "Summary (DICOM PDF)",
    }


def test_who_reads_blind_learns_nothing_of_results(
    web: WebUnderTest, locked: str
) -> None:
    peer_id = know(web.services, an_endpoint())
    reader = web.sign_in_as("ann")
    for path in ("results", *(f"artifacts/{one}" for one in (*ARTIFACTS, "signed-sr"))):
        assert reader.get(f"{api(locked)}/{path}").status_code == 403, path
    pushed = reader.post(f"{api(locked)}/push", json={"peer_id": peer_id})
    assert pushed.status_code == 403
    assert 'id="results"' not in reader.get(f"/studies/{locked}").text
    sign(reader, locked)
    assert reader.get(f"{api(locked)}/artifacts/sr").status_code == 200
    assert 'id="results"' in reader.get(f"/studies/{locked}").text


def test_a_reader_who_downloads_a_result_has_seen_the_prediction(
    web: WebUnderTest, uid: str
) -> None:
    reader = web.sign_in_as("ann")
    assert reader.get(f"{api(uid)}/artifacts/sr").status_code == 200
    with web.services.database.transaction() as connection:
        seen = connection.exec_driver_sql("SELECT count(*) FROM sights").scalar()
    assert seen == 1


def test_a_study_that_is_done_goes_by_itself_once(web: WebUnderTest, uid: str) -> None:
    with web.services.database.transaction() as connection:
        connection.execute(studies.update().values(done_at=time.time() + 60))
    know(web.services, an_endpoint("automatic"), automatic=True)
    know(web.services, an_endpoint("by hand"))
    planner = Planner(web.services)
    assert planner.plan() == 1
    assert planner.plan() == 0
    assert Planner(web.services).plan() == 0  # another process
    (one,) = deliveries_of(web.services, uid)
    assert (one.peer, one.state) == ("automatic", DeliveryState.WAITING)


def test_what_was_done_before_stays(web: WebUnderTest, uid: str) -> None:
    know(web.services, an_endpoint(), automatic=True)
    assert Planner(web.services).plan() == 0


def test_what_is_signed_goes_as_well(web: WebUnderTest, uid: str) -> None:
    know(web.services, an_endpoint(), automatic=True)
    planner = Planner(web.services)
    planner.plan()
    review = sign(web.client, uid)
    assert planner.plan() >= 1
    assert sets_of(web, uid)[-1] == set_of_review(review)


def test_what_is_read_blind_goes_when_it_is_signed(
    web: WebUnderTest, locked: str
) -> None:
    with web.services.database.transaction() as connection:
        connection.execute(studies.update().values(done_at=time.time() + 60))
    know(web.services, an_endpoint(), automatic=True)
    planner = Planner(web.services)
    assert planner.plan() == 0
    sign(web.client, locked)
    assert planner.plan() == 2
    assert [one.review_id is None for one in deliveries_of(web.services, locked)] == [
        True,
        False,
    ]


def test_a_later_prediction_goes_until_somebody_has_signed(
    web: WebUnderTest, uid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with web.services.database.transaction() as connection:
        connection.execute(studies.update().values(done_at=time.time() + 60))
    know(web.services, an_endpoint(), automatic=True)
    planner = Planner(web.services)
    for name, expected in (("a" * 32, 1), ("b" * 32, 1)):
        monkeypatch.setattr(planning, "result_set", lambda _p, name=name: name)
        _touch(web)
        assert planner.plan() == expected
    sign(web.client, uid)
    planner.plan()
    monkeypatch.setattr(planning, "result_set", lambda _p: "c" * 32)
    _touch(web)
    assert planner.plan() == 0
    assert "c" * 32 not in sets_of(web, uid)


def _touch(web: WebUnderTest) -> None:
    with web.services.database.transaction() as connection:
        connection.execute(studies.update().values(step=""))


def test_a_withdrawn_study_leaves_no_delivery(web: WebUnderTest, uid: str) -> None:
    peer_id = know(web.services, an_endpoint())
    web.client.post(f"{api(uid)}/push", json={"peer_id": peer_id})
    with web.services.database.transaction() as connection:
        forget(connection, [uid])
        for table in (deliveries, studies):
            left = connection.scalar(sa.select(sa.func.count()).select_from(table))
            assert left == 0


def test_what_was_signed_is_not_said_of_images_that_came_later(
    web: WebUnderTest, uid: str
) -> None:
    review = sign(web.client, uid)
    with web.services.database.transaction() as connection:
        peer = add_peer(connection, an_endpoint())
        ask(connection, uid, peer, set_of_review(review))
        connection.execute(studies.update().values(version=2))
    (one,) = deliveries_of(web.services, uid)
    vault = Vault.open(DicomSettings.read())
    with pytest.raises(ReplacedError, match="further images"):
        addressed_objects(web.services, vault, one)
    answer = web.client.get(f"{api(uid)}/artifacts/signed-sr")
    assert answer.status_code == 404
