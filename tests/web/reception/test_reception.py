"""Slices that are kept one at a time, before their study is complete."""

import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless
from support.dicom_studies import STUDY_UID
from support.receiving import (
    SENDER,
    Place,
    all_bytes_below,
    edited,
    received_place,
)

from csfd_core.deid.identities import keyed_uid
from csfd_core.deid.refusals import RefusedError
from csfd_core.ingest.patients import read_secret
from csfd_core.settings import DicomSettings
from csfd_core.store.withdrawn import Withdrawal
from csfd_core.web.reception.reception import (
    ConflictError,
    MismatchError,
    NoRoomError,
    Reception,
    Sender,
    WithdrawnError,
)
from csfd_core.web.vault import Vault

KEY = "5a" * 32


def darker(dataset: Dataset) -> None:
    dataset.PixelData = (dataset.pixel_array - 1).tobytes()


def test_a_slice_that_is_kept_is_on_the_disk_by_keyed_uids_alone(place, files):
    kept = place.reception.keep(files[0], SENDER)
    (path,) = place.waiting()
    secret = read_secret(place.services.settings.key_file)
    assert kept.study_uid == path.parent.name == keyed_uid(STUDY_UID, secret)
    assert kept.sop_uid == path.stem == keyed_uid(f"{STUDY_UID}.1.1", secret)
    assert kept.is_new
    stored, sent = dcmread(path), dcmread(io.BytesIO(files[0]))
    np.testing.assert_array_equal(stored.pixel_array, sent.pixel_array)
    assert stored.PatientIdentityRemoved == "YES"
    everything = all_bytes_below(place.home)
    assert kept.sop_uid.encode() in everything
    for planted in (b"Sensitive", b"patient-of-", b"19700101", STUDY_UID.encode()):
        assert planted not in everything
    assert oct(path.stat().st_mode)[-3:] == "600"
    assert oct(path.parent.stat().st_mode)[-3:] == "700"


def test_a_slice_has_its_name_after_its_content_is_on_the_disk(
    place, files, monkeypatch
):
    done: list[str] = []
    fsync, link = os.fsync, os.link

    def note_fsync(descriptor: int) -> None:
        there = Path(f"/proc/self/fd/{descriptor}").readlink()
        done.append("folder" if there.is_dir() else "content")
        fsync(descriptor)

    def note_link(*places: object) -> None:
        done.append("name")
        link(*places)  # type: ignore[arg-type]

    place.reception.keep(files[0], SENDER)
    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "link", note_link)
    place.reception.keep(files[1], SENDER)
    assert done == ["content", "name", "folder"]


def test_the_same_slice_again_is_kept_once(place, files):
    assert place.reception.keep(files[0], SENDER).is_new
    assert not place.reception.keep(files[0], SENDER).is_new
    assert len(place.waiting()) == 1


def test_the_same_image_in_another_transfer_syntax_is_the_same(place, files):
    place.reception.keep(files[0], SENDER)
    again = edited(
        files[0], lambda one: one.compress(RLELossless, generate_instance_uid=False)
    )
    assert again != files[0]
    assert not place.reception.keep(again, SENDER).is_new
    assert len(place.waiting()) == 1


@pytest.mark.parametrize("is_accepted", [False, True])
def test_another_image_of_the_same_uid_is_refused_and_the_first_stays(
    place, files, is_accepted
):
    place.reception.keep(files[0], SENDER)
    if is_accepted:
        place.settle()
    (before,) = place.in_inbox() if is_accepted else place.waiting()
    content = before.read_bytes()
    with pytest.raises(ConflictError, match="Another image with this SOPInstanceUID"):
        place.reception.keep(edited(files[0], darker), SENDER)

    def lower(dataset: Dataset) -> None:
        dataset.ImagePositionPatient = [-48.0, -40.0, 7.5]

    with pytest.raises(ConflictError):
        place.reception.keep(edited(files[0], lower), SENDER)
    assert before.read_bytes() == content


def test_a_study_that_is_sent_again_after_it_was_accepted_stays_as_it_is(place, files):
    for content in files:
        place.reception.keep(content, SENDER)
    place.settle()
    before = [(path, path.stat().st_mtime_ns) for path in place.in_inbox()]
    again = place.another()
    assert not any(again.keep(content, SENDER).is_new for content in files)
    place.settle()
    assert [row.version for row in place.rows()] == [1]
    assert [(path, path.stat().st_mtime_ns) for path in place.in_inbox()] == before


def test_what_is_no_slice_is_refused_and_nothing_of_it_is_kept(place, files):
    for damaged in (b"", b"no DICOM", files[0][: len(files[0]) // 2]):
        with pytest.raises(RefusedError):
            place.reception.keep(damaged, SENDER)
    assert not (place.home / "data" / "received").exists()


def test_a_slice_that_was_announced_as_another_one_is_refused(place, files):
    announced = f"{STUDY_UID}.1.1"
    with pytest.raises(MismatchError, match="another SOPInstanceUID"):
        place.reception.keep(files[1], SENDER, announced)
    assert place.reception.keep(files[0], SENDER, announced).is_new


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_and_nothing_half_is_left(
    place, files, monkeypatch, number
):
    place.reception.keep(files[0], SENDER)

    def fail(_descriptor: int) -> None:
        raise OSError(number, "no room")

    with monkeypatch.context() as patch:
        patch.setattr("csfd_core.web.reception.waiting.os.fsync", fail)
        with pytest.raises(NoRoomError, match="disk of csfd is full"):
            place.reception.keep(files[1], SENDER)
    assert len(place.waiting()) == 1
    assert not list(place.home.rglob(".partial-*"))
    assert place.reception.keep(files[1], SENDER).is_new


def test_a_slice_of_a_withdrawn_study_is_refused(place, files):
    secret = read_secret(place.services.settings.key_file)
    withdrawal = Withdrawal(
        study_uid=keyed_uid(STUDY_UID, secret), reason="asked for", by="admin"
    )
    place.services.stores.withdrawn.add(withdrawal)
    with pytest.raises(WithdrawnError, match="was withdrawn"):
        place.reception.keep(files[0], SENDER)
    assert not place.waiting()


def test_a_new_study_is_refused_where_too_many_wait(tmp_path, monkeypatch, files):
    monkeypatch.setenv("CSFD_WEB_MAX_WAITING", "1")
    with received_place(tmp_path, monkeypatch) as place:
        place.reception.keep(files[0], SENDER)

        def other(dataset: Dataset) -> None:
            dataset.StudyInstanceUID = "1.2.3.4"

        with pytest.raises(NoRoomError, match="1 study waits"):
            place.reception.keep(edited(files[0], other), SENDER)
        assert place.reception.keep(files[1], SENDER).is_new  # of the one that is there
        place.settle()
        with pytest.raises(NoRoomError):
            place.reception.keep(edited(files[0], other), SENDER)


@pytest.mark.parametrize(
    ("keyword", "word", "expected"),
    [
        ("RequestedProcedurePriority", "STAT", 2),
        ("RequestedProcedurePriority", "HIGH", 1),
        ("StudyPriorityID", "HIGH", 1),
        ("RequestedProcedurePriority", "MEDIUM", 0),
        ("RequestedProcedurePriority", "soon", 0),
    ],
)
def test_a_study_is_as_urgent_as_its_images_say(place, files, keyword, word, expected):
    place.reception.keep(files[0], SENDER)
    urgent = edited(files[1], lambda dataset: setattr(dataset, keyword, word))
    place.reception.keep(urgent, SENDER)
    place.settle()
    assert [row.priority for row in place.rows()] == [expected]


def test_a_study_is_as_urgent_as_its_most_urgent_sender(place, files):
    for priority, content in zip((0, 2, 1), files, strict=False):
        place.reception.keep(content, Sender(name="ER", priority=priority))
    place.settle()
    assert [row.priority for row in place.rows()] == [2]


@pytest.fixture
def sealed_place(tmp_path, monkeypatch):
    monkeypatch.setenv("CSFD_VAULT_KEY", KEY)
    with received_place(tmp_path / "csfd", monkeypatch) as opened:
        yield opened


def test_the_vault_alone_keeps_how_the_sender_calls_a_study(sealed_place, files):
    place, sender = sealed_place, Sender(name="SCANNER", keeps_identity=True)
    for content in files:
        kept = place.reception.keep(content, sender)
    assert b"Sensitive" not in all_bytes_below(place.home)
    place.settle()
    assert b"Sensitive" not in all_bytes_below(place.home)
    assert not list(place.home.rglob("*.identity"))
    vault = Vault.open(DicomSettings.read())
    assert vault is not None
    with place.services.database.transaction() as connection:
        identity = vault.read(connection, kept.study_uid)
    assert identity is not None
    assert identity.patient_and_study.PatientName == "Sensitive^Name"
    assert identity.uids[kept.study_uid] == STUDY_UID
    sent = {dcmread(io.BytesIO(f)).SOPInstanceUID for f in files}
    assert sent <= set(identity.uids.values())


def test_a_study_that_is_sent_again_is_known_to_the_vault_without_a_new_version(
    sealed_place, files
):
    place = sealed_place
    for content in files:
        kept = place.reception.keep(content, SENDER)  # who keeps no identity
    place.settle()
    again = Reception(place.services)
    for content in files:
        again.keep(content, Sender(name="SCANNER", keeps_identity=True))
    again.settle(quiet_s=0)
    assert [row.version for row in place.rows()] == [1]
    vault = Vault.open(DicomSettings.read())
    assert vault is not None
    with place.services.database.transaction() as connection:
        assert vault.read(connection, kept.study_uid) is not None


def test_without_a_key_nothing_is_kept_of_how_a_study_was_called(place, files):
    place.reception.keep(files[0], Sender(name="SCANNER", keeps_identity=True))
    assert not list(place.home.rglob("*.identity"))


def test_what_is_asked_again_and_again_is_seen_when_it_changes(place: Place, files):
    """A study that was withdrawn while it is sent is refused within seconds."""
    kept = place.reception.keep(files[0], SENDER)
    place.services.stores.withdrawn.add(
        Withdrawal(study_uid=kept.study_uid, reason="asked for", by="admin")
    )
    place.reception._known.clear()  # as after five seconds
    with pytest.raises(WithdrawnError):
        place.reception.keep(files[1], SENDER)
    assert place.settle() == []
    assert not place.waiting()
    assert not place.rows()
