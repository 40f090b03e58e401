"""Uploads from beginning to end: what comes in is accepted once."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from support.accepted_uploads import (
    accepted_events,
    expected,
    inbox_files,
    rows,
    staged,
)
from support.dicom_studies import neck_hounsfield
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

from csfd_core.store.withdrawn import Withdrawal
from csfd_core.web.audit import verify
from csfd_core.web.database import references
from csfd_core.web.study_states import StudyState
from csfd_core.web.uploads import handling
from csfd_core.web.uploads.spool import SPOOLS
from csfd_core.web.uploads.staging import uploads_folder

OTHER_UID = "1.2.826.0.1.3680043.12"


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
