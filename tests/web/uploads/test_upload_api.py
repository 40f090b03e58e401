"""Uploads from beginning to end: what comes in is accepted once, and never lost."""

import errno
import io
import json
import sqlite3
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from support.dicom_studies import STUDY_UID, neck_hounsfield, slice_dataset
from support.search import naming
from support.uploading import (
    UPLOADS,
    begin,
    complete,
    put,
    send,
    split,
    study_files,
    whole,
    zipped,
)
from support.web import WebUnderTest, web_app

from csfd_core.deid.deidentify import deidentify
from csfd_core.ingest.patients import read_secret
from csfd_core.store import atomic, locations
from csfd_core.store.locations import Location
from csfd_core.store.withdrawn import Withdrawal
from csfd_core.web.audit import Action, verify
from csfd_core.web.database import audit, references, studies, uploads
from csfd_core.web.study_states import StudyState
from csfd_core.web.uploads import handling
from csfd_core.web.uploads.parts import Piece, write_piece
from csfd_core.web.uploads.spool import SPOOLS
from csfd_core.web.uploads.staging import uploads_folder

OTHER_UID = "1.2.826.0.1.3680043.12"


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebUnderTest]:
    with web_app(tmp_path / "home", monkeypatch) as found:
        yield found


@pytest.fixture
def files(tmp_path: Path) -> list[bytes]:
    return study_files(tmp_path / "outside")


def rows(web: WebUnderTest) -> list[sa.Row]:
    with web.services.database.transaction() as connection:
        return list(connection.execute(sa.select(studies)))


def accepted_events(web: WebUnderTest) -> int:
    wanted = sa.select(audit).where(audit.c.action == Action.STUDY_ACCEPTED)
    with web.services.database.transaction() as connection:
        return len(list(connection.execute(wanted)))


def inbox_files(web: WebUnderTest) -> dict[str, bytes]:
    found, _ = web.services.inbox.find("train_images")
    return {entry.path: web.services.inbox.read(entry.path) for entry in found}


def expected(files: list[bytes], web: WebUnderTest) -> dict[str, bytes]:
    secret = read_secret(web.services.settings.key_file)
    made = [deidentify(content, secret) for content in files]
    return {f"train_images/{m.study_uid}/{m.sop_uid}.dcm": m.content for m in made}


def staged(web: WebUnderTest) -> list[Path]:
    return list(uploads_folder(web.services.settings).rglob("*"))


def test_a_study_comes_into_the_inbox(web: WebUnderTest, files: list[bytes]) -> None:
    answer = send(web.client, [whole(files[:10]), whole(files[10:], 10)], priority=2)
    assert answer.status_code == 201
    (study,) = answer.json()["studies"]
    assert study["told"] == "Accepted with 24 images."
    assert inbox_files(web) == expected(files, web)
    (row,) = rows(web)
    assert (row.study_uid, row.slices, row.priority, row.version, row.user_id) == (
        study["study_uid"], 24, 2, 1, web.user_id,
    )  # fmt: skip
    assert row.state == StudyState.ACCEPTED
    assert accepted_events(web) == 1
    assert verify(web.services.database)[1] is None
    assert staged(web) == []
    with web.services.database.transaction() as connection:
        assert len(list(connection.execute(sa.select(references)))) == 2
    for path in Path(web.services.inbox.url).rglob("*.dcm"):
        assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("seed", range(3))
def test_files_come_in_any_pieces(
    web: WebUnderTest, tmp_path: Path, files: list[bytes], seed: int
) -> None:
    more = study_files(tmp_path / "b", OTHER_UID)
    sent = [*files[:6], zipped(more[:6]), b"", b"autorun"]
    answer = send(web.client, split(sent, seed, 5000)).json()
    assert inbox_files(web) == expected(files[:6] + more[:6], web)
    assert [s["images"] for s in answer["studies"]] == [6, 6]
    assert answer["passed_over"] == ["2 files are no DICOM files: passed over."]
    assert answer["refused"] == []
    assert staged(web) == []


def test_a_study_that_comes_again_is_the_same(
    web: WebUnderTest, files: list[bytes]
) -> None:
    send(web.client, [whole(files[:20])])
    (again,) = send(web.client, [whole(files[:20])]).json()["studies"]
    assert "Already here" in again["told"]
    assert (again["version"], len(rows(web)), accepted_events(web)) == (None, 1, 1)
    (late,) = send(web.client, [whole(files)]).json()["studies"]
    assert late["told"] == (
        "4 images came in addition: the study is now version 2, with 24 images."
    )
    (row,) = rows(web)
    assert (row.version, row.slices) == (2, 24)


def test_an_image_that_changed_is_said(web: WebUnderTest, tmp_path: Path) -> None:
    send(web.client, [whole(study_files(tmp_path / "a"))])
    other = study_files(tmp_path / "b", hounsfield=neck_hounsfield() + 1)
    (study,) = send(web.client, [whole(other)]).json()["studies"]
    assert "24 images were replaced: the study is now version 2" in study["told"]
    assert inbox_files(web) == expected(other, web)


def test_two_images_of_one_identity_are_refused(
    web: WebUnderTest, files: list[bytes], tmp_path: Path
) -> None:
    other = study_files(tmp_path / "b", hounsfield=neck_hounsfield() + 1)
    answer = send(web.client, [whole([*files, other[3]])]).json()
    assert "1 file carries the SOPInstanceUID of another" in answer["refused"][0]
    assert inbox_files(web) == expected(files, web)


def test_parts_are_taken_once(web: WebUnderTest, files: list[bytes]) -> None:
    upload, part = begin(web.client), whole(files)
    assert put(web.client, upload, 0, part).status_code == 200
    assert put(web.client, upload, 0, part).status_code == 200
    assert put(web.client, upload, 0, whole(files[:1])).status_code == 409
    assert put(web.client, upload, 1, part, "0" * 64).status_code == 422
    assert put(web.client, upload, 1, part, "no digest").status_code == 422
    found = web.client.get(f"{UPLOADS}/{upload}").json()
    assert (found["parts"], found["images"], found["bytes"]) == ([0], 24, len(part))
    missing = complete(web.client, upload, 3)
    assert missing.status_code == 409
    assert missing.json()["detail"].startswith("2 parts are missing")
    first = complete(web.client, upload, 1)
    assert first.status_code == 201
    again = complete(web.client, upload, 1)
    assert (again.status_code, again.json()) == (201, first.json())
    assert put(web.client, upload, 1, whole(files[:2])).status_code == 409
    assert web.client.delete(f"{UPLOADS}/{upload}").status_code == 409
    assert accepted_events(web) == 1


def test_nothing_is_accepted_of_nothing(web: WebUnderTest) -> None:
    upload = begin(web.client)
    assert "Nothing was uploaded" in complete(web.client, upload, 0).json()["detail"]
    answer = send(web.client, [whole([b"hello"])]).json()
    assert answer["studies"] == []


def test_cancelling_leaves_nothing(web: WebUnderTest, files: list[bytes]) -> None:
    upload = begin(web.client)
    put(web.client, upload, 0, whole(files))
    put(web.client, upload, 1, split([zipped(files)], 0, 9000)[0])
    assert staged(web) != []
    assert web.client.delete(f"{UPLOADS}/{upload}").status_code == 204
    assert staged(web) == []
    assert put(web.client, upload, 2, whole(files)).status_code == 404
    assert complete(web.client, upload, 2).status_code == 404
    assert inbox_files(web) == {}


def test_an_upload_is_its_users_own(web: WebUnderTest, files: list[bytes]) -> None:
    reader, other = web.sign_in_as("reader"), web.sign_in_as("other")
    upload = begin(reader)
    address = f"{UPLOADS}/{upload}"
    assert put(other, upload, 0, whole(files)).status_code == 404
    assert other.get(address).status_code == 404
    assert other.delete(address).status_code == 404
    assert complete(other, upload, 0).status_code == 404
    assert web.client.get(address).status_code == 200  # an administrator
    del reader.headers["X-CSRF-Token"]
    assert put(reader, upload, 0, whole(files)).status_code == 403
    reader.cookies.clear()
    assert reader.get(address).status_code == 401


def test_limits_are_kept(
    web: WebUnderTest, files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = web.services.web.model_copy(update={"max_upload_mb": 1, "max_waiting": 1})
    services = handling.Services(
        **{
            name: getattr(web.services, name)
            for name in ("settings", "database", "stores", "sources", "inbox")
        },
        web=limited,
    )
    web.app.state.services = services
    upload = begin(web.client)
    assert put(web.client, upload, 0, whole([bytes(2**20)])).status_code == 413
    huge = b"\0\0\0\0" + bytes(8) + b"\1" + bytes(7) + b"\0\0\0\1" + b"x"
    assert put(web.client, upload, 0, huge).status_code == 413
    assert put(web.client, upload, 0, bytes(17 * 2**20)).status_code == 413
    put(web.client, upload, 0, whole(files))
    assert complete(web.client, upload, 1).status_code == 201
    answer = web.client.post(UPLOADS, json={"priority": 0})
    assert answer.status_code == 503
    assert "wait for their prediction" in answer.json()["detail"]


def test_a_withdrawn_study_is_refused(web: WebUnderTest, files: list[bytes]) -> None:
    (path, *_) = expected(files, web)
    withdrawal = Withdrawal(study_uid=path.split("/")[1], reason="consent", by="x")
    web.services.stores.withdrawn.add(withdrawal)
    answer = send(web.client, [whole(files)]).json()
    assert answer["studies"] == []
    assert "was withdrawn" in answer["refused"][0]
    assert (inbox_files(web), rows(web), staged(web)) == ({}, [], [])


def test_who_loses_the_key_says_what_to_send_again(
    web: WebUnderTest, files: list[bytes]
) -> None:
    parts = split([zipped(files)], 1, 9000)
    upload = begin(web.client)
    for number, part in enumerate(parts[:-1]):
        put(web.client, upload, number, part)
    SPOOLS.forget(uploads_folder(web.services.settings) / upload)  # as a restart does
    put(web.client, upload, len(parts) - 1, parts[-1])
    answer = complete(web.client, upload, len(parts))
    assert answer.status_code == 409
    assert answer.json()["files"] == [0]
    assert "Send it again" in answer.json()["detail"]
    for number, part in enumerate(parts, len(parts)):
        assert put(web.client, upload, number, part).status_code == 200
    assert complete(web.client, upload, 2 * len(parts)).status_code == 201
    assert inbox_files(web) == expected(files, web)


def test_a_part_of_a_lost_file_is_told(web: WebUnderTest, files: list[bytes]) -> None:
    upload = begin(web.client)
    put(web.client, upload, 0, split([zipped(files)], 2, 9000)[0])
    found = web.client.get(f"{UPLOADS}/{upload}").json()
    assert (found["unfinished"], found["lost"]) == ([0], [])
    SPOOLS.forget(uploads_folder(web.services.settings) / upload)
    assert web.client.get(f"{UPLOADS}/{upload}").json()["lost"] == [0]


class KilledError(BaseException):
    """Stands for a SIGKILL: nothing that cleans up runs after it."""


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("by", ["complete", "sweep"])
def test_who_is_killed_before_the_transaction_loses_nothing(
    web: WebUnderTest,
    files: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    by: str,
    late: bool,
) -> None:
    if late:
        send(web.client, [whole(files[:5])])
    upload = begin(web.client)
    put(web.client, upload, 0, whole(files))

    def die(*_: object) -> None:
        raise KilledError

    admin = _admin(web)
    with monkeypatch.context() as patch:
        patch.setattr("csfd_core.web.uploads.acceptance._accept", die)
        with pytest.raises(KilledError):
            handling.complete(web.services, admin, upload, 1)
    assert len(inbox_files(web)) == 24
    assert len(rows(web)) == late
    if by == "sweep":
        handling.sweep(web.services)
    answer = complete(web.client, upload, 1)
    assert answer.status_code == 201
    (row,) = rows(web)
    assert (row.slices, row.version) == (24, 1 + late)
    assert accepted_events(web) == 1 + late
    assert staged(web) == []


def _admin(web: WebUnderTest) -> handling.User:
    from csfd_core.web.security.users import all_users

    with web.services.database.transaction() as connection:
        (admin,) = all_users(connection)
    return admin


def test_a_full_disk_keeps_what_was_accepted_and_nothing_else(
    web: WebUnderTest, files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    send(web.client, [whole(files[:8])])
    before = inbox_files(web)
    upload = begin(web.client)
    put(web.client, upload, 0, whole(files))
    left = [10]
    write = atomic.write_atomically

    def full(target: Path, content: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(target, content)

    with monkeypatch.context() as patch:
        patch.setattr(locations, "write_atomically", full)
        answer = complete(web.client, upload, 1)
    assert answer.status_code == 507
    assert "disk of the server is full" in answer.json()["detail"]
    assert inbox_files(web) == before
    assert staged(web) == []
    assert web.client.get(f"{UPLOADS}/{upload}").status_code == 404
    (row,) = rows(web)
    assert (row.version, row.slices) == (1, 8)
    assert send(web.client, [whole(files)]).json()["studies"][0]["version"] == 2


def test_a_disk_that_is_full_while_parts_come(
    web: WebUnderTest, files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("csfd_core.web.uploads.spool.os.pwrite", full)
    upload = begin(web.client)
    assert put(web.client, upload, 0, split(files, 0, 900)[0]).status_code == 507
    assert staged(web) == []


def test_two_uploads_of_one_study_at_once(
    web: WebUnderTest, files: list[bytes]
) -> None:
    ids = [begin(web.client) for _ in range(4)]
    for index, upload in enumerate(ids):
        put(web.client, upload, 0, whole(files[index * 4 : index * 4 + 12]))
    answers = []
    user = _admin(web)

    def finish(upload: str) -> None:
        answers.append(handling.complete(web.services, user, upload, 1))

    threads = [threading.Thread(target=finish, args=(one,)) for one in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inbox_files(web) == expected(files, web)
    (row,) = rows(web)
    assert row.slices == 24
    versions = sorted(a["studies"][0]["version"] or 0 for a in answers)
    assert versions[-1] == row.version
    assert accepted_events(web) == row.version == len({v for v in versions if v})


def test_what_nobody_touched_for_a_day_is_swept(
    web: WebUnderTest, files: list[bytes]
) -> None:
    old, new = begin(web.client), begin(web.client)
    for upload in (old, new):
        put(web.client, upload, 0, whole(files))
    (uploads_folder(web.services.settings) / ("f" * 32) / "1.2").mkdir(parents=True)
    with web.services.database.transaction() as connection:
        same = uploads.c.id == old
        long_ago = time.time() - 90_000
        connection.execute(uploads.update().where(same).values(touched_at=long_ago))
    handling.sweep(web.services)
    left = {path.name for path in uploads_folder(web.services.settings).iterdir()}
    assert left == {new}
    assert web.client.get(f"{UPLOADS}/{old}").status_code == 404
    assert complete(web.client, new, 1).status_code == 201


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"PK\x03\x04" + bytes(100), "zip file is damaged or cut off"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(100), "is an archive, but no zip file"),
        (bytes(257) + b"ustar" + bytes(300), "is an archive, but no zip file"),
    ],
)
def test_archives_that_cannot_be_read_are_told(
    web: WebUnderTest, content: bytes, told: str
) -> None:
    answer = send(web.client, [whole([content])]).json()
    assert told in answer["refused"][0]


def test_a_zip_in_a_zip_and_a_damaged_entry_are_told(
    web: WebUnderTest, files: list[bytes]
) -> None:
    packed = bytearray(zipped([zipped(files[:1]), *files[:4]], zipfile.ZIP_STORED))
    place = packed.index(files[2][3000:3050])
    packed[place : place + 8] = b"\xff" * 8
    answer = send(web.client, [whole([bytes(packed)])]).json()
    assert answer["studies"][0]["images"] == 3
    assert "is a zip file inside of a zip file" in " ".join(answer["refused"])
    assert "is damaged or cut off" in " ".join(answer["refused"])


PLANTED = [f"PLANTED{index:02d}Q" for index in range(8)] + ["PLANTEDNAME"]


def plant(dataset: Dataset) -> None:
    dataset.PatientName = f"{PLANTED[0]}^{PLANTED[1]}"
    dataset.PatientID, dataset.AccessionNumber = PLANTED[2], PLANTED[3]
    dataset.StudyDescription = PLANTED[4]
    dataset.add_new(0x00111010, "LO", PLANTED[5])
    dataset.preamble = PLANTED[6].encode().ljust(128, b"\0")
    dataset.PixelData += PLANTED[7].encode() + b"\0"
    dataset.PatientBirthDate = "19561224"


def everything(web: WebUnderTest) -> dict[str, bytes]:
    """Search every file, and the database after its log was folded in."""
    home = web.services.settings.home
    with sqlite3.connect(home / "web.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        dump = "\n".join(connection.iterdump())
    connection.close()
    assert not any(text in dump for text in PLANTED)
    forms = [t.encode(e) for t in PLANTED for e in ("ascii", "utf-16-le", "utf-16-be")]
    return naming(home, [*forms, b"19561224", STUDY_UID.encode()])


def test_nothing_of_a_patient_is_ever_written(
    web: WebUnderTest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = study_files(tmp_path / "a", edit=plant)
    assert PLANTED[0].encode() in files[0]
    packed = zipped(files, zipfile.ZIP_STORED)
    damaged = [files[0][:-500], files[1][:300], files[2].replace(b"CT", b"MR", 1)]
    upload = begin(web.client)
    for number, part in enumerate(split([packed, *files, *damaged], 3, 60_000)):
        put(web.client, upload, number, part)
        if number % 4 == 0:
            assert everything(web) == {}  # while it is under way, too
    shown = web.client.get(f"{UPLOADS}/{upload}").text
    told = complete(web.client, upload, number + 1)
    assert told.status_code == 201
    assert everything(web) == {}
    half = begin(web.client)
    put(web.client, half, 0, split([packed], 0, 60_000)[0])
    assert everything(web) == {}
    cut = packed[: len(packed) // 2]
    refused = send(web.client, [whole([cut])])
    assert everything(web) == {}
    for text in (shown, told.text, refused.text, caplog.text):
        assert not any(mark in text for mark in PLANTED)
    (study,) = told.json()["studies"]
    assert study["images"] == 24
    for content in inbox_files(web).values():
        assert PLANTED[0].encode() not in content


def test_the_answer_to_what_a_reader_knows(
    web: WebUnderTest, files: list[bytes]
) -> None:
    from csfd_core.deid.identities import reference_digest

    (study,) = send(web.client, [whole(files)]).json()["studies"]
    secret = read_secret(web.services.settings.key_file)
    digest = reference_digest(STUDY_UID, secret)
    wanted = sa.select(references.c.study_uid).where(references.c.digest == digest)
    with web.services.database.transaction() as connection:
        assert connection.scalar(wanted) == study["study_uid"]
    assert dcmread(
        next(Path(web.services.inbox.url).rglob("*.dcm"))
    ).PatientID.startswith("csfd-")


@given(st.lists(st.binary(max_size=200), max_size=4), st.booleans())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_never_crashes(
    web: WebUnderTest, parts: list[bytes], framed: bool
) -> None:
    upload = begin(web.client)
    for number, part in enumerate(parts):
        sent = whole([part, b"PK\x03\x04" + part]) if framed else part
        assert put(web.client, upload, number, sent).status_code in (200, 413, 422)
    assert complete(web.client, upload, len(parts)).status_code in (201, 409)


def test_broken_requests_are_refused(web: WebUnderTest) -> None:
    upload = begin(web.client)
    for body in ({"priority": 3}, {"priority": "x"}, [], "{"):
        content = body if isinstance(body, str) else json.dumps(body)
        headers = {"Content-Type": "application/json"}
        answer = web.client.post(UPLOADS, content=content, headers=headers)
        assert answer.status_code == 422
    assert put(web.client, "../../x", 0, b"x").status_code in (404, 405)
    assert put(web.client, "f" * 32, 0, whole([b"x"])).status_code == 404
    assert put(web.client, upload, -1, whole([b"x"])).status_code == 422
    assert put(web.client, upload, 10**9, whole([b"x"])).status_code == 422
    assert put(web.client, upload, 0, b"").status_code == 422
    assert Location(uploads_folder(web.services.settings)).exists() is False


@pytest.mark.slow
def test_a_large_upload_is_never_in_memory_as_a_whole(web: WebUnderTest) -> None:
    """A thousand slices, half as they are, half in a zip file that comes in pieces."""
    rng = np.random.default_rng(0)
    plane = rng.integers(-1000, 2000, (256, 256)).astype(np.int16)
    content = io.BytesIO()
    slice_dataset(plane, 1, 1.0).save_as(content, enforce_file_format=True)
    base = content.getvalue()
    mark = f"{STUDY_UID}.1.1".encode()
    assert base.count(mark) == 2  # in the file meta, too

    def slice_file(number: int) -> bytes:
        # Of the same length, as it lies in the file.
        return base.replace(mark, mark[:-3] + b"%03d" % (number + 100))

    upload, number = begin(web.client), 0
    assert len(base) > 2**17
    packed = zipped((slice_file(n) for n in range(500, 900)), zipfile.ZIP_STORED)
    tracemalloc.start()
    try:
        for start in range(0, 500, 50):
            part = whole([slice_file(n) for n in range(start, start + 50)], start)
            put(web.client, upload, number, part)
            number += 1
        for start in range(0, len(packed), 2**23):
            piece = Piece(10_000, start, len(packed), packed[start : start + 2**23])
            put(web.client, upload, number, write_piece(piece))
            number += 1
        answer = complete(web.client, upload, number)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.json()["studies"][0]["images"] == 900
    assert peak < 80 * 2**20  # of 120 MB; a part of 8 MB is there a few times
