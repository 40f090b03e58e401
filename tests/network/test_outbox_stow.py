"""The outbox by STOW-RS: what an archive must answer, and what it must not be told."""

import base64
import email.parser
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from support.delivered import (
    CLASSES,
    NAMES,
    bring_study,
    deliveries_of,
    know,
    named_files,
    set_vault,
)
from support.dicom_studies import STUDY_UID
from support.orthanc import NEEDS_ORTHANC, orthanc
from support.web import set_environment

from csfd_core.network.outbox import Outbox
from csfd_core.network.stow_client import StowClient, read_answer
from csfd_core.settings import DicomSettings
from csfd_core.web.database import peers as peers_table
from csfd_core.web.delivery.deliveries import DeliveryState
from csfd_core.web.delivery.peers import PeerEndpoint, PeerKind, all_peers
from csfd_core.web.delivery.planning import ask_by_hand
from csfd_core.web.services import Services


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    set_environment(tmp_path / "csfd", monkeypatch)
    set_vault(monkeypatch)
    opened = Services.open()
    yield opened
    opened.database.close()


def an_object(number: int = 1) -> Dataset:
    one = Dataset()
    one.file_meta = pydicom.dataset.FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = CLASSES[1]
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = f"1.2.3.{number}"
    one.StudyInstanceUID = "1.2.3"
    return one


def reference(uid: str, **more: Any) -> dict[str, Any]:
    item = {"00081155": {"vr": "UI", "Value": [uid]}}
    return item | {tag: {"vr": "US", "Value": [value]} for tag, value in more.items()}


def answer_of(**sequences: list[dict[str, Any]]) -> bytes:
    tags = {"stored": "00081199", "failed": "00081198"}
    told = {tags[k]: {"vr": "SQ", "Value": items} for k, items in sequences.items()}
    return json.dumps(told).encode()


@dataclass
class FakeArchive:
    """Answers as it is told to, and remembers what it was asked."""

    url: str = ""
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)


@contextmanager
def fake_archive(**facts: Any) -> Iterator[FakeArchive]:
    archive = FakeArchive(**facts)

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            given = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(length)
            archive.asked.append((self.command, self.path, given, body))
            time.sleep(archive.delay_s)
            self.send_response(archive.status)
            for name, value in archive.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(archive.body)))
            self.end_headers()
            self.wfile.write(archive.body)

        do_GET = do_POST = answer  # noqa: N815 - http.server calls these

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    archive.url = f"http://127.0.0.1:{server.server_port}/dicom-web"
    try:
        yield archive
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def client_of(archive: FakeArchive, answer_s: float = 5.0) -> StowClient:
    return StowClient(DicomSettings(), archive.url, connect_s=20, answer_s=answer_s)


def test_one_request_holds_all_objects_and_says_how_long_it_is() -> None:
    objects = [an_object(1), an_object(2)]
    body = answer_of(stored=[reference("1.2.3.1"), reference("1.2.3.2")])
    with fake_archive(body=body) as archive:
        sent = client_of(archive).send(objects)
    assert sent.is_complete
    assert sent.told == "2 objects stored."
    ((method, path, headers, content),) = archive.asked
    assert (method, path) == ("POST", "/dicom-web/studies")
    assert headers["content-length"] == str(len(content))
    assert "transfer-encoding" not in headers
    assert "authorization" not in headers
    # Independent of our own writing: the standard library reads it as MIME.
    whole = f"Content-Type: {headers['content-type']}\r\n\r\n".encode() + content
    parts = email.parser.BytesParser().parsebytes(whole).get_payload()
    read = [pydicom.dcmread(io.BytesIO(p.get_payload(decode=True))) for p in parts]
    assert [one.SOPInstanceUID for one in read] == ["1.2.3.1", "1.2.3.2"]


ALL = [reference("1.2.3.1"), reference("1.2.3.2")]
ANSWERS: list[tuple[str, int, bytes, bool, str]] = [
    ("accepted and forgotten", 200, b"", False, "does not say of every object"),
    ("not JSON", 200, b"<xml/>", False, "does not say of every object"),
    ("half of it", 200, answer_of(stored=ALL[:1]), False, "does not say of every"),
    ("others", 200, answer_of(stored=[reference("9.9")]), False, "does not say"),
    (
        "one refused",
        202,
        answer_of(
            stored=ALL[:1], failed=[reference("1.2.3.2", **{"00081197": 0xA900})]
        ),
        False,
        "Refused with status 0xA900",
    ),
    (
        "all refused",
        409,
        answer_of(
            failed=[reference(f"1.2.3.{n}", **{"00081197": 272}) for n in (1, 2)]
        ),
        False,
        "Refused with status 0x0110",
    ),
    (
        "there already",
        409,
        answer_of(
            failed=[reference(f"1.2.3.{n}", **{"00081197": 273}) for n in (1, 2)]
        ),
        True,
        "2 objects stored",
    ),
    (
        "changed",
        202,
        answer_of(
            stored=[reference(f"1.2.3.{n}", **{"00081196": 0xB000}) for n in (1, 2)]
        ),
        True,
        "remark: status 0xB000",
    ),
    ("busy", 503, b"", False, "It answers with HTTP 503"),
    ("who are you", 401, b"", False, "check user and password"),
    ("elsewhere", 307, b"", False, "It sends elsewhere"),
]


@pytest.mark.parametrize(
    ("status", "body", "is_complete", "told"),
    [case[1:] for case in ANSWERS],
    ids=[case[0] for case in ANSWERS],
)
def test_only_what_an_archive_names_is_stored(
    status: int, body: bytes, is_complete: bool, told: str
) -> None:
    with fake_archive(status=status, body=body) as archive:
        archive.headers = {"Location": f"{archive.url}/other"}
        sent = client_of(archive).send([an_object(1), an_object(2)])
        assert len(archive.asked) == 1  # no redirect was followed
    assert sent.is_complete is is_complete
    assert told in sent.told
    assert "1.2.3" not in sent.told


def test_an_archive_that_does_not_answer_in_time_has_nothing() -> None:
    with fake_archive(delay_s=4.0) as archive:
        begun = time.monotonic()
        sent = client_of(archive, answer_s=0.3).send([an_object()])
        assert time.monotonic() - begun < 3.5
    assert not sent.is_reached
    assert sent.told == "It does not answer in time."


@given(answer=st.one_of(st.binary(), st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["00081199", "00081198", "00081155", "Value", "vr"]), inner
    ),
).map(lambda told: json.dumps(told).encode())))  # fmt: skip
def test_no_answer_makes_it_fail_or_count_what_it_does_not_name(answer: bytes) -> None:
    assert read_answer(answer, ["1.2.3.1"]).stored == set()


def test_a_password_of_the_setting_is_used_and_kept_nowhere(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = bring_study(services)
    with fake_archive() as archive:
        url = archive.url.replace("//", "//ward:ge%40heim@")
        monkeypatch.setenv("CSFD_DICOM_PEERS", f"cloud={url}")
        box = Outbox(services, patience_s=30)
        box.work_once()
        with services.database.transaction() as connection:
            (peer,) = all_peers(connection)
            row = connection.execute(peers_table.select()).one()
        assert peer.is_configured
        assert "heim" not in repr(row)
        ask_by_hand(services, uid, peer.id)
        box.work_once()
        box.close()
    _, _, headers, body = archive.asked[-1]
    assert base64.b64decode(headers["authorization"].split()[1]) == b"ward:ge@heim"
    assert NAMES["PatientName"].encode() in body


@NEEDS_ORTHANC
def test_results_reach_an_archive_and_stay_those_of_its_patient(
    services: Services, tmp_path: Path
) -> None:
    with orthanc(tmp_path / "archive") as archive:
        archive.add(named_files()[0])
        url = f"{archive.url}/dicom-web"
        endpoint = PeerEndpoint(name="cloud", kind=PeerKind.STOW, url=url)
        uid = bring_study(services)
        ask_by_hand(services, uid, know(services, endpoint))
        box = Outbox(services, patience_s=60)
        box.work_once()
        box.close()
        (one,) = deliveries_of(services, uid)
        assert (one.state, one.told) == (DeliveryState.SENT, "4 objects stored.")
        assert len(archive.ask("/patients")) == len(archive.ask("/studies")) == 1
        found = DICOMwebClient(url).search_for_instances(STUDY_UID)
        classes = {item["00080016"]["Value"][0] for item in found}
        assert classes == {*CLASSES, "1.2.840.10008.5.1.4.1.1.2"}
