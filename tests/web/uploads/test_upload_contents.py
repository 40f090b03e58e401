"""What is in an upload: archives, texts of patients, garbage, too much."""

import io
import json
import sqlite3
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from support.accepted_uploads import inbox_files
from support.dicom_studies import STUDY_UID, slice_dataset
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
from support.web import WebUnderTest

from csfd_core.ingest.patients import read_secret
from csfd_core.store.locations import Location
from csfd_core.web.database import references
from csfd_core.web.uploads.parts import Piece, write_piece
from csfd_core.web.uploads.staging import uploads_folder


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
@pytest.mark.usefixtures("collected_as_usual")
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
