"""Studies that other application entities send by C-STORE."""

import io
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
)
from support.dicom_studies import STUDY_UID, neck_hounsfield
from support.receiving import (
    all_bytes_below,
    answer_to,
    associate,
    edited,
    listening,
    send,
    status_of,
    told,
    written,
)
from support.uploading import study_files

from csfd_core.deid.identities import keyed_uid
from csfd_core.ingest.patients import read_secret

needs_dcmtk = pytest.mark.skipif(
    shutil.which("storescu") is None, reason="dcmtk is not installed"
)


def run(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False
    )


@needs_dcmtk
def test_dcmtk_sends_a_study_and_its_pixels_arrive(place, node, files, tmp_path):
    for number, content in enumerate(files):
        (tmp_path / f"{number}.dcm").write_bytes(content)
    port = str(node.port)
    assert run("echoscu", "-aec", "CSFD", "127.0.0.1", port).returncode == 0
    sent = run(
        *("storescu", "-aet", "SCANNER", "-aec", "CSFD", "127.0.0.1", port),
        *(str(tmp_path / f"{number}.dcm") for number in range(len(files))),
    )
    assert sent.returncode == 0, sent.stderr
    line = told(node, 2)[1]
    assert line["caller"] == "SCANNER"
    assert (line["kept"], line["again"], line["failed"]) == (len(files), 0, {})
    assert line["end"] == "released"
    assert place.settle()
    found = [dcmread(path) for path in place.in_inbox()]
    found.sort(key=lambda dataset: dataset.InstanceNumber)
    pixels = np.stack([dataset.pixel_array for dataset in found])
    np.testing.assert_array_equal(pixels, neck_hounsfield())
    everything = all_bytes_below(place.home) + "\n".join(node.lines).encode()
    assert b"Sensitive" not in everything
    assert STUDY_UID.encode() not in everything


@needs_dcmtk
def test_dcmtk_is_told_by_a_wrong_title_that_nobody_is_there(node):
    answer = run("echoscu", "-aec", "OTHER", "127.0.0.1", str(node.port))
    assert answer.returncode != 0
    assert "Called AE Title Not Recognized" in answer.stderr + answer.stdout


def compressed(syntax: str) -> Callable[[Dataset], None]:
    return lambda one: one.compress(syntax, generate_instance_uid=False)


def encoded(syntax: str) -> Callable[[Dataset], None]:
    def edit(dataset: Dataset) -> None:
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = dataset.pixel_array.astype(">i2").tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax

    return edit


@pytest.mark.parametrize(
    ("syntax", "edit"),
    [
        (ExplicitVRLittleEndian, encoded(ExplicitVRLittleEndian)),
        (ImplicitVRLittleEndian, encoded(ImplicitVRLittleEndian)),
        (ExplicitVRBigEndian, encoded(ExplicitVRBigEndian)),
        (DeflatedExplicitVRLittleEndian, encoded(DeflatedExplicitVRLittleEndian)),
        (RLELossless, compressed(RLELossless)),
        (JPEGLSLossless, compressed(JPEGLSLossless)),
        (JPEG2000Lossless, compressed(JPEG2000Lossless)),
    ],
)
def test_an_image_arrives_in_every_transfer_syntax(place, node, files, syntax, edit):
    dataset = dcmread(io.BytesIO(files[10]))
    expected = dataset.pixel_array.copy()
    edit(dataset)
    sink = io.BytesIO()
    dcmwrite(sink, dataset, enforce_file_format=True)
    assert dcmread(io.BytesIO(sink.getvalue())).file_meta.TransferSyntaxUID == syntax
    assert send(node.port, [sink.getvalue()]) == [0]
    (path,) = place.waiting()
    np.testing.assert_array_equal(dcmread(path).pixel_array, expected)


def test_four_who_send_at_once_are_not_mixed(place, node, tmp_path):
    studies = {
        f"1.2.{number}": study_files(
            tmp_path,
            f"1.2.{number}",
            hounsfield=(neck_hounsfield() + number).astype(np.int16),
        )
        for number in range(1, 5)
    }
    found: dict[str, list[int]] = {}

    def send_one(uid: str) -> None:
        found[uid] = send(node.port, studies[uid], calling=f"SCANNER{uid[-1]}")

    threads = [threading.Thread(target=send_one, args=(uid,)) for uid in studies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {status for found_of in found.values() for status in found_of} == {0}
    assert len(place.settle()) == 4
    secret = read_secret(place.services.settings.key_file)
    for uid in studies:
        folder = place.home / "inbox" / "train_images" / keyed_uid(uid, secret)
        images = [dcmread(path) for path in folder.iterdir()]
        images.sort(key=lambda dataset: dataset.InstanceNumber)
        expected = neck_hounsfield() + int(uid[-1])
        pixels = np.stack([dataset.pixel_array for dataset in images])
        np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize(
    ("edit", "expected", "word"),
    [
        (lambda d: setattr(d, "SOPClassUID", MRImageStorage), 0xA900, "other-modality"),
        (lambda d: setattr(d, "Modality", "MR"), 0xA900, "other-modality"),
        (lambda d: delattr(d, "StudyInstanceUID"), 0xA900, "no-study"),
        (lambda d: setattr(d, "PixelData", d.PixelData[:-100]), 0xC000, "damaged"),
        (lambda d: setattr(d, "BurnedInAnnotation", "YES"), 0xC000, "burned-in"),
        (
            lambda d: setattr(d, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]),
            0xC000,
            "localizer",
        ),
    ],
)
def test_what_is_no_slice_is_refused_by_its_status(
    place, node, files, edit, expected, word
):
    dataset = dcmread(io.BytesIO(files[0]))
    edit(dataset)
    association = associate(node.port, ExplicitVRLittleEndian)
    answer = answer_to(association, written(dataset))
    assert answer.Status == expected
    assert 0 < len(answer.ErrorComment) <= 64
    assert status_of(association, files[1]) == 0  # who was refused goes on
    association.release()
    assert told(node)[0]["failed"] == {word: 1}
    assert len(place.waiting()) == 1


def test_a_slice_that_is_cut_off_is_refused(place, node, files):
    association = associate(node.port, ExplicitVRLittleEndian)
    for cut in (1, 3000, len(files[0]) - 600):
        assert answer_to(association, files[0], cut=cut).Status in (0xA900, 0xC000)
    association.release()
    assert not place.waiting()


def test_a_slice_that_was_announced_as_another_is_refused(place, node, files):
    association = associate(node.port, ExplicitVRLittleEndian)
    assert answer_to(association, files[0], announced="1.2.3").Status == 0xA900
    association.release()
    assert told(node)[0]["failed"] == {"mismatch": 1}
    assert not place.waiting()


def test_another_image_of_the_same_uid_is_refused(place, node, files):
    def darker(dataset: Dataset) -> None:
        dataset.PixelData = (dataset.pixel_array - 1).tobytes()

    twice = [files[0], files[0], edited(files[0], darker)]
    assert send(node.port, twice) == [0, 0, 0xC000]
    line = told(node)[0]
    assert (line["kept"], line["again"]) == (1, 1)
    assert line["failed"] == {"conflict": 1}


def test_other_classes_find_no_context(node):
    association = associate(node.port, ExplicitVRLittleEndian, sop_class=MRImageStorage)
    assert not association.is_established or not association.accepted_contexts
    association.abort()


@pytest.mark.filterwarnings("ignore:The value length")
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("length", [64, 65, 70])
def test_identifiers_that_are_too_long_are_taken_as_archives_take_them(
    place, node, files, length
):
    uid = "1.2." + "3" * (length - 4)
    sop_uid = "1.3." + "4" * (length - 4)

    def longer(dataset: Dataset) -> None:
        dataset.StudyInstanceUID, dataset.SOPInstanceUID = uid, sop_uid

    content = edited(files[0], longer)
    association = associate(node.port, ExplicitVRLittleEndian)
    assert answer_to(association, content, announced=sop_uid).Status == 0
    association.release()
    (path,) = place.waiting()
    assert len(path.stem) <= 64
    assert dcmread(path).SOPInstanceUID == path.stem
    assert dcmread(path).StudyInstanceUID == path.parent.name


def test_a_full_disk_is_out_of_resources_and_passes(place, node, files, monkeypatch):
    association = associate(node.port, ExplicitVRLittleEndian)

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("csfd_core.web.reception.waiting.os.fsync", fail)
        assert status_of(association, files[0]) == 0xA700
    assert status_of(association, files[0]) == 0
    association.release()


def test_an_error_of_another_kind_is_no_success_and_tells_nothing(
    place, node, files, monkeypatch, caplog
):
    association = associate(node.port, ExplicitVRLittleEndian)

    def fail(*_arguments: object) -> None:
        raise ValueError("Sensitive^Name")

    with monkeypatch.context() as patch:
        patch.setattr("csfd_core.web.reception.reception.deidentify", fail)
        answer = answer_to(association, files[0])
    association.release()
    assert answer.Status == 0x0110
    assert "Sensitive" not in answer.ErrorComment + str(told(node)) + caplog.text


def test_who_is_dropped_leaves_what_was_whole(place, node, files):
    association = associate(node.port, ExplicitVRLittleEndian)
    assert [status_of(association, content) for content in files[:5]] == [0] * 5
    place_of = association.dul.socket.socket
    place_of.sendall(struct.pack(">BBL", 4, 0, 4000) + b"half of what was promised")
    place_of.shutdown(socket.SHUT_RDWR)
    line = told(node)[0]
    assert line["end"] in ("aborted", "lost")
    assert line["kept"] == 5
    assert place.settle()
    assert len(place.in_inbox()) == 5
    assert set(send(node.port, files)) == {0}  # it tries again
    place.settle()
    assert [(row.version, row.slices) for row in place.rows()] == [(2, len(files))]


def test_a_study_waits_for_the_end_of_its_association_or_another_study(
    place, node, files, tmp_path
):
    association = associate(node.port, ExplicitVRLittleEndian)
    status_of(association, files[0])
    assert place.settle() == []
    assert place.another().settle(quiet_s=0) == []  # nor does the page accept it
    other = study_files(tmp_path, "1.2.3")
    status_of(association, other[0])
    assert len(place.settle()) == 1
    assert place.settle() == []
    association.release()
    told(node)
    assert len(place.settle()) == 1


def test_who_is_unknown_may_not_send(place, files, monkeypatch):
    monkeypatch.setenv("CSFD_DICOM_CALLERS", "SCANNER@127.0.0.1, OTHER@10.0.0.0/8")
    with listening(place) as node:
        for title in ("STRANGER^HANS", "OTHER"):
            association = associate(node.port, calling=title[:16])
            assert association.is_rejected
            assert association.acceptor.primitive.result == 1
            assert association.acceptor.primitive.diagnostic == 3
        assert send(node.port, files[:1]) == [0]
        lines = told(node, 3)
    assert [line["caller"] for line in lines] == ["unknown", "unknown", "SCANNER"]
    assert [line["end"] for line in lines] == ["rejected", "rejected", "released"]
    assert "HANS" not in str(lines)


def test_who_comes_from_elsewhere_is_not_even_listened_to(place, monkeypatch):
    monkeypatch.setenv("CSFD_DICOM_CALLERS", "SCANNER@10.0.0.7")
    with (
        listening(place) as node,
        socket.create_connection(("127.0.0.1", node.port), timeout=10) as client,
    ):
        assert client.recv(1) == b""


def test_the_studies_of_an_urgent_caller_are_urgent(place, files, monkeypatch):
    monkeypatch.setenv("CSFD_DICOM_PRIORITIES", "ER=2")
    with listening(place) as node:
        send(node.port, files[:1], calling="ER")
    place.settle()
    assert [row.priority for row in place.rows()] == [2]
