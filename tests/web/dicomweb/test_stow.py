"""What is sent by STOW-RS comes in whole, names nobody, and is answered for."""

import errno
import io
import socket
import time
from pathlib import Path

import pydicom
import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset
from starlette.testclient import TestClient
from support.dicom_studies import STUDY_UID, neck_hounsfield, slice_dataset
from support.dicomweb import ROUTE, ServedWeb, bearer, make_token, settle
from support.uploading import study_files
from support.web import ADDRESS, WebUnderTest

from csfd_core.deid.identities import keyed_uid
from csfd_core.ingest.patients import read_secret
from csfd_core.web.reception import reception

BOUNDARY = "snip"
TYPE = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
NAMES = ("山田^太郎", "Yamada^Tarou=山田^太郎=やまだ^たろう")


def body_of(files: list[bytes], media_type: str = "application/dicom") -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Type: {media_type}\r\n\r\n".encode()
    parts = b"".join(head + content + b"\r\n" for content in files)
    return parts + f"--{BOUNDARY}--\r\n".encode()


def program(web: WebUnderTest) -> TestClient:
    """A client without a session."""
    return TestClient(web.app, base_url=ADDRESS, follow_redirects=False)


def store(
    web: WebUnderTest, files: list[bytes], path: str = "studies", **headers: str
) -> Dataset:
    token = make_token(web, f"t{len(files)}-{len(headers)}", may_send=True)
    given = {"Content-Type": TYPE, **bearer(token), **headers}
    answer = program(web).post(f"{ROUTE}/{path}", content=body_of(files), headers=given)
    with pydicom.config.disable_value_validation():
        found = Dataset.from_json(answer.content)
    found.status = answer.status_code
    found.told = answer.headers.get("warning", "")
    return found


def uids(sequence: object) -> list[str]:
    return [str(item.ReferencedSOPInstanceUID) for item in sequence or []]  # type: ignore[attr-defined]


def everything_in(folder: Path) -> bytes:
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    return b"".join(str(p).encode() + p.read_bytes() for p in files)


def with_dataset(content: bytes, **values: object) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(content))
    for name, value in values.items():
        setattr(dataset, name, value)
    if "SOPInstanceUID" in values:
        dataset.file_meta.MediaStorageSOPInstanceUID = values["SOPInstanceUID"]
    sink = io.BytesIO()
    dataset.save_as(sink)
    return sink.getvalue()


def test_a_study_of_the_client_comes_in_under_a_keyed_name(
    node: ServedWeb, tmp_path: Path
) -> None:
    sent = [pydicom.dcmread(io.BytesIO(f)) for f in study_files(tmp_path / "sent")]
    client = node.client(make_token(node.web, may_send=True))
    answer = client.store_instances(sent)
    assert sorted(uids(answer.ReferencedSOPSequence)) == sorted(
        str(one.SOPInstanceUID) for one in sent
    )
    assert "FailedSOPSequence" not in answer
    assert "RetrieveURL" not in answer  # it may not read
    secret = read_secret(node.web.services.settings.key_file)
    keyed = keyed_uid(STUDY_UID, secret)
    assert settle(node.web) == [keyed]
    folder = tmp_path / "inbox" / "train_images" / keyed
    found = [pydicom.dcmread(path) for path in folder.iterdir()]
    by_number = {int(one.InstanceNumber): one for one in found}
    assert len(found) == len(sent)
    for one in sent:
        same = by_number[int(one.InstanceNumber)]
        assert same.PixelData == one.PixelData
        assert same.ImagePositionPatient == one.ImagePositionPatient
        assert same.PatientIdentityRemoved == "YES"


def test_nothing_of_a_japanese_patient_is_kept(
    web: WebUnderTest, tmp_path: Path
) -> None:
    content = study_files(tmp_path / "sent")[0]
    for path in (tmp_path / "sent").rglob("*.dcm"):
        path.unlink()
    named = with_dataset(
        content, SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName=NAMES[1]
    )
    planted = ["山田".encode("iso2022_jp")[3:-3], b"Yamada", b"Sensitive", b"19700101"]
    assert all(one in named + content for one in planted)
    assert store(web, [named]).status == 200
    settle(web)
    kept = everything_in(tmp_path)
    for one in (*planted, "山田".encode(), "やまだ".encode(), STUDY_UID.encode()):
        assert one not in kept
    assert web.services.inbox.find("train_images")[0]


@pytest.mark.parametrize("length", [64, 65])
def test_uids_of_the_longest_length_are_answered_as_they_came(
    web: WebUnderTest, tmp_path: Path, length: int
) -> None:
    study, sop = "1.2." + "3" * (length - 4), "1.2." + "4" * (length - 4)
    content = study_files(tmp_path / "sent")[0]
    with pydicom.config.disable_value_validation():
        named = with_dataset(content, StudyInstanceUID=study, SOPInstanceUID=sop)
    assert named.count(sop.encode()) == 2
    answer = store(web, [named], f"studies/{study}")
    assert answer.status == 200
    assert uids(answer.ReferencedSOPSequence) == [sop]
    assert len(settle(web)) == 1


def test_some_of_a_body_is_refused_and_the_rest_kept(
    web: WebUnderTest, tmp_path: Path
) -> None:
    files = study_files(tmp_path / "sent")
    other = with_dataset(files[1], Modality="MR")
    report = with_dataset(files[2], SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    cut = files[3][:-100]
    answer = store(web, [files[0], other, report, cut, b"no DICOM at all", files[4]])
    assert answer.status == 202
    assert uids(answer.ReferencedSOPSequence) == [
        str(pydicom.dcmread(io.BytesIO(one)).SOPInstanceUID)
        for one in (files[0], files[4])
    ]
    reasons = [int(item.FailureReason) for item in answer.FailedSOPSequence]
    assert reasons == [0x0122, 0x0122, 0xC000]
    assert [int(i.FailureReason) for i in answer.OtherFailuresSequence] == [0xC000]
    assert "1 file is damaged or cut off. Export again." in answer.told


def test_where_nothing_is_kept_it_is_a_conflict(
    web: WebUnderTest, tmp_path: Path
) -> None:
    content = with_dataset(study_files(tmp_path / "sent")[0], Modality="MR")
    assert store(web, [content]).status == 409


def test_another_image_of_the_same_uid_is_no_silent_replacement(
    web: WebUnderTest, tmp_path: Path
) -> None:
    content = study_files(tmp_path / "sent")[0]
    assert store(web, [content, content]).status == 200
    dataset = pydicom.dcmread(io.BytesIO(content))
    other = with_dataset(content, PixelData=bytes(len(dataset.PixelData)))
    answer = store(web, [other, content, content])
    assert answer.status == 202
    assert int(answer.FailedSOPSequence[0].FailureReason) == 0x0111


def test_images_of_another_study_than_the_address_are_not_kept(
    web: WebUnderTest, tmp_path: Path
) -> None:
    content = study_files(tmp_path / "sent")[0]
    answer = store(web, [content], "studies/1.2.3")
    assert answer.status == 409
    assert int(answer.FailedSOPSequence[0].FailureReason) == 0xA900
    assert store(web, [content, content], f"studies/{STUDY_UID}").status == 200


def test_a_full_disk_is_told_as_one(
    web: WebUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(reception.Waiting, "add", full)
    answer = store(web, study_files(tmp_path / "sent")[:2])
    assert answer.status == 507
    assert [int(i.FailureReason) for i in answer.FailedSOPSequence] == [0xA700] * 2


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_what_was_whole_of_a_cut_body_is_kept(
    web: WebUnderTest, tmp_path: Path, kept: int
) -> None:
    files = study_files(tmp_path / "sent")[:4]
    body = body_of(files)
    end = len(body_of(files[:kept])) + len(files[0]) // 2
    headers = {"Content-Type": TYPE, **bearer(make_token(web))}
    answer = program(web).post(f"{ROUTE}/studies", content=body[:end], headers=headers)
    assert answer.status_code == (202 if kept else 400)
    found = Dataset.from_json(answer.content)
    assert len(found.get("ReferencedSOPSequence", [])) == kept
    assert "ends before its last part" in answer.headers["warning"]
    settle(web)
    assert len(web.services.inbox.find("train_images")[0]) == kept


def test_a_connection_that_breaks_leaves_what_was_whole(
    node: ServedWeb, tmp_path: Path
) -> None:
    files = study_files(tmp_path / "sent")[:3]
    body = body_of(files)
    host, port = node.address.removeprefix("http://").split(":")
    head = (
        f"POST {ROUTE}/studies HTTP/1.1\r\nHost: x\r\nContent-Type: {TYPE}\r\n"
        f"Authorization: Bearer {make_token(node.web)}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + body[: len(body_of(files[:2])) + 100])
        waiting = tmp_path / "data" / "received"
        until = time.monotonic() + 20
        while len(list(waiting.rglob("*.dcm"))) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        # While its sender is there, the study is not accepted.
        assert settle(node.web) == []
    until = time.monotonic() + 20
    while not settle(node.web) and time.monotonic() < until:
        time.sleep(0.05)
    assert len(node.web.services.inbox.find("train_images")[0]) == 2


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/dicom"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=snip"}, 415),
        ({"Content-Type": TYPE.replace("/dicom", "/dicom+json")}, 415),
        ({"Content-Type": "multipart/related"}, 400),
        ({"Accept": "application/dicom+xml"}, 406),
        ({"Content-Length": "99999999999"}, 413),
    ],
)
def test_what_cannot_be_taken_is_refused_before_it_is_read(
    web: WebUnderTest, tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    body = body_of(study_files(tmp_path / "sent")[:1])
    given = {"Content-Type": TYPE, **bearer(make_token(web)), **headers}
    answer = program(web).post(f"{ROUTE}/studies", content=body, headers=given)
    assert answer.status_code == status
    assert answer.json()["detail"].endswith(".") or "boundary" in answer.text
    assert not list((tmp_path / "data").rglob("*.dcm"))


def test_a_body_beyond_the_limit_is_cut_and_its_beginning_kept(
    node: ServedWeb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("csfd_core.web.dicomweb.stow.MEGABYTE", 5)  # 4096 x 5 bytes
    files = study_files(tmp_path / "sent")
    headers = {"Content-Type": TYPE, **bearer(make_token(node.web))}
    pieces = iter([body_of(files[:2])[:-10], *files[2:]])  # chunked: no length
    answer = requests.post(
        f"{node.address}{ROUTE}/studies", data=pieces, headers=headers, timeout=20
    )
    assert answer.status_code == 413
    assert len(Dataset.from_json(answer.content).ReferencedSOPSequence) >= 1


def test_who_may_read_is_told_where_the_study_is(
    web: WebUnderTest, tmp_path: Path
) -> None:
    headers = {"Content-Type": TYPE, **bearer(make_token(web))}
    body = body_of(study_files(tmp_path / "sent")[:1])
    answer = program(web).post(f"{ROUTE}/studies", content=body, headers=headers)
    keyed = keyed_uid(STUDY_UID, read_secret(web.services.settings.key_file))
    found = Dataset.from_json(answer.content)
    assert found.RetrieveURL == f"{ADDRESS}{ROUTE}/studies/{keyed}"


def test_the_client_hears_of_an_empty_body(node: ServedWeb) -> None:
    client: DICOMwebClient = node.client(make_token(node.web))
    with pytest.raises(Exception, match="400"):
        client.store_instances([])


def test_many_images_are_kept_as_fast_as_by_c_store(
    web: WebUnderTest, tmp_path: Path
) -> None:
    plane = neck_hounsfield(1, 64)[0]
    files = []
    for number in range(60):
        sink = io.BytesIO()
        slice_dataset(plane, number, -number).save_as(sink, enforce_file_format=True)
        files.append(sink.getvalue())
    answer = store(web, files)
    assert answer.status == 200
    assert len(answer.ReferencedSOPSequence) == 60
