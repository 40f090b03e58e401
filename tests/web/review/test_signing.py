"""Signing: who may, what is refused, and what becomes of two readers."""

import json
import threading
from typing import Any

import pydicom
import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient
from support.dicom_studies import STUDY_UID
from support.reviews import API, BOX, come, form, sign, study_row
from support.web import ADDRESS, WebUnderTest

from csfd_core.store.label_notes import read_label_notes
from csfd_core.store.labels import read_all_boxes, read_all_labels
from csfd_core.vocabulary import LEVEL_NAMES
from csfd_core.web.audit import verify
from csfd_core.web.database import audit, drafts, reviews
from csfd_core.web.security.sessions import CSRF_HEADER
from csfd_core.web.study_states import StudyState, open_studies, tell

HOSTILE = "<script>alert(1)</script>\n\"'; DROP TABLE reviews; -- ${7*7} \u202e\u2028"


def label_file(web: WebUnderTest) -> dict[str, Any]:
    content = web.services.inbox.read(f"labels/{STUDY_UID}.json")
    note: dict[str, Any] = json.loads(content)
    return note


@pytest.mark.usefixtures("study")
def test_what_is_signed_is_what_the_sources_say(web: WebUnderTest) -> None:
    reader = web.sign_in_as("reader@clinic")
    levels: dict[str, str | None] = dict.fromkeys(LEVEL_NAMES, "whole")
    levels |= {"C4": "fractured", "C7": "not_assessable", "C1": None}
    review = sign(reader, levels=levels, boxes=[BOX, {**BOX, "slice_index": 6}])
    assert review["label_file_waits"] is False
    location = web.services.inbox
    (note,) = read_label_notes(location).notes.values()
    expected = dict.fromkeys(LEVEL_NAMES, 0) | {"C4": 1, "C7": None, "C1": None}
    assert {name: note.labels[name] for name in LEVEL_NAMES} == expected
    assert note.reader == "reader@clinic"
    assert note.signed_at is not None
    assert note.signed_at.isoformat() == review["signed_at"]
    table = read_all_labels([location]).table
    assert table.loc[STUDY_UID, "C4"] == 1
    assert table.loc[STUDY_UID, "patient_overall"] == 1
    boxes = read_all_boxes([location]).table
    # The oracle: pydicom, from the file whose UID the box names.
    folder = f"{location.url}/train_images/{STUDY_UID}"
    for drawn, (_, row), index in zip(
        note.boxes or (), boxes.iterrows(), (5, 6), strict=True
    ):
        dataset = pydicom.dcmread(f"{folder}/{row['slice_number']}.dcm")
        assert dataset.SOPInstanceUID == drawn.sop_instance_uid
        assert float(dataset.ImagePositionPatient[2]) == 100.0 - index * 2.0
        sides = [row[name] for name in ("x", "y", "width", "height")]
        assert sides == [10.5, 20, 8, 6]


@pytest.mark.usefixtures("study")
def test_two_readers_are_both_kept_and_their_difference_is_told(
    web: WebUnderTest,
) -> None:
    first, second = web.sign_in_as("first"), web.sign_in_as("second")
    sign(first)
    assert (study_row(web).signed_count, study_row(web).readers_differ) == (1, False)
    other = dict.fromkeys(LEVEL_NAMES, "whole") | {"C2": None, "C7": "not_assessable"}
    sign(second, levels=other)
    told = first.get(f"{API}/review").json()
    assert told["differ"] == ["C4", "C7"]  # of C2 the second reader has said nothing
    assert [r["reader"] for r in told["reviews"]] == ["first", "second"]
    assert [r["is_mine"] for r in told["reviews"]] == [True, False]
    row = study_row(web)
    assert (row.signed_version, row.signed_count, row.readers_differ) == (1, 2, True)
    assert label_file(web)["reader"] == "second"  # the newest
    sign(first, levels=other)  # agrees now
    row = study_row(web)
    assert (row.signed_count, row.readers_differ) == (2, False)
    assert len(first.get(f"{API}/review").json()["reviews"]) == 3
    assert label_file(web)["reader"] == "first"


@pytest.mark.usefixtures("study")
def test_signing_twice_at_once_is_signing_once(web: WebUnderTest) -> None:
    reader = web.sign_in_as("reader")
    answers: list[Any] = []

    def click() -> None:
        answers.append(reader.post(f"{API}/sign", json=form()))

    clicks = [threading.Thread(target=click) for _ in range(4)]
    for thread in clicks:
        thread.start()
    for thread in clicks:
        thread.join()
    assert sorted(a.status_code for a in answers) == [200, 200, 200, 201]
    assert len({a.json()["id"] for a in answers}) == 1
    assert sign(reader, comment="looked again")["id"] != answers[0].json()["id"]


@pytest.mark.usefixtures("study")
def test_two_readers_at_once_are_both_kept(web: WebUnderTest) -> None:
    readers = [web.sign_in_as(f"reader{number}") for number in range(4)]

    def work(number: int) -> None:
        levels = dict.fromkeys(LEVEL_NAMES, "whole") | {f"C{number + 1}": "fractured"}
        sign(readers[number], levels=levels)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = readers[0].get(f"{API}/review").json()
    assert {r["reader"] for r in told["reviews"]} == {f"reader{n}" for n in range(4)}
    assert told["differ"] == ["C1", "C2", "C3", "C4"]
    newest = told["reviews"][-1]
    note = label_file(web)
    assert (note["reader"], note["signed_at"]) == (
        newest["reader"],
        newest["signed_at"],
    )
    times = [r["signed_at"] for r in told["reviews"]]
    assert times == sorted(set(times))
    assert verify(web.services.database)[1] is None


@pytest.mark.usefixtures("study")
def test_a_comment_is_kept_as_text_and_goes_nowhere_else(
    web: WebUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    reader = web.sign_in_as("reader")
    sign(reader, comment=HOSTILE)
    answer = web.client.get(f"{API}/review")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    (review,) = answer.json()["reviews"]
    assert review["comment"] == HOSTILE.strip()
    content = web.services.inbox.read(f"labels/{STUDY_UID}.json").decode()
    assert "comment" not in content
    assert "script" not in content
    assert "DROP" not in caplog.text
    with web.services.database.transaction() as connection:
        rows = connection.execute(sa.select(audit)).all()
    assert all("script" not in str(row) for row in rows)
    assert [r.action for r in rows].count("review signed") == 1


@pytest.mark.parametrize(
    ("changes", "status", "told"),
    [
        ({"levels": dict.fromkeys(LEVEL_NAMES)}, 422, "at least one level"),
        ({"levels": {}}, 422, "at least one level"),
        ({"levels": {"C8": "whole"}}, 422, "an unknown entry"),
        ({"levels": {"C1": "broken"}}, 422, "levels.C1"),
        ({"version": 2}, 409, "look again"),
        ({"version": "1"}, 422, "version"),
        ({"comment": "x" * 2001}, 422, "comment"),
        ({"comment": "a\x00b"}, 422, "no text"),
        ({"patient": "Jane Doe"}, 422, "an unknown entry"),
        ({"boxes": [BOX] * 201}, 422, "boxes"),
        ({"boxes": [{**BOX, "level": "C3"}]}, 422, "C3, which is not said"),
        ({"boxes": [{**BOX, "slice_index": 24}]}, 422, "outside of the slices"),
        ({"boxes": [{**BOX, "slice_index": -1}]}, 422, "slice_index"),
        ({"boxes": [{**BOX, "x": 60}]}, 422, "outside of the slices"),
        ({"boxes": [{**BOX, "width": 0}]}, 422, "width"),
        ({"boxes": [{**BOX, "x": True}]}, 422, "boxes.0.x"),
        ({"comment": "y" * 70_000}, 413, "too large"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(
    web: WebUnderTest, study: str, changes: dict[str, Any], status: int, told: str
) -> None:
    reader = web.sign_in_as("reader")
    answer = reader.post(f"/api/v1/studies/{study}/sign", json=form(**changes))
    assert answer.status_code == status
    detail = answer.json()["detail"]
    assert told in detail
    assert "Jane" not in detail
    assert not web.services.inbox.exists(f"labels/{study}.json")
    with web.services.database.transaction() as connection:
        assert connection.execute(sa.select(reviews)).all() == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"version": NaN}'])
def test_what_is_no_json_is_refused(
    web: WebUnderTest, study: str, content: bytes
) -> None:
    answer = web.client.post(f"/api/v1/studies/{study}/sign", content=content)
    assert answer.status_code == 422
    assert "cannot be used" in answer.json()["detail"]


def test_without_a_session_or_its_token_nothing_is_read(
    web: WebUnderTest, study: str
) -> None:
    stranger = TestClient(web.app, base_url=ADDRESS)
    for method, path in (
        ("GET", "review"),
        ("PUT", "draft"),
        ("DELETE", "draft"),
        ("POST", "sign"),
        ("GET", "prediction"),
        ("GET", "prediction.json"),
        ("GET", "summary.pdf"),
    ):
        address = f"/api/v1/studies/{study}/{path}"
        sent = form() if method in ("PUT", "POST") else None
        assert stranger.request(method, address, json=sent).status_code == 401
        if method != "GET":
            stale = {CSRF_HEADER: "of another session"}
            answer = web.client.request(method, address, json=sent, headers=stale)
            assert answer.status_code == 403
    with web.services.database.transaction() as connection:
        assert connection.execute(sa.select(drafts)).all() == []


@pytest.mark.parametrize("uid", ["../x", "1..2", "x", "1.2.3"])
def test_studies_that_are_none_are_not_found(web: WebUnderTest, uid: str) -> None:
    for method, path in (("GET", "review"), ("PUT", "draft"), ("POST", "sign")):
        sent = None if method == "GET" else form()
        address = f"/api/v1/studies/{uid}/{path}"
        assert web.client.request(method, address, json=sent).status_code == 404


@pytest.mark.usefixtures("study")
def test_further_slices_ask_for_a_further_look(web: WebUnderTest) -> None:
    reader = web.sign_in_as("reader")
    sign(reader)
    come(web)
    answer = reader.post(f"{API}/sign", json=form())
    assert answer.status_code == 409
    assert "new version" in answer.json()["detail"]
    assert reader.get(f"{API}/review").json()["has_signed"] is False
    sign(reader, version=2)
    row = study_row(web)
    assert (row.signed_version, row.signed_count) == (2, 1)


@pytest.mark.parametrize("state", [StudyState.RUNNING, StudyState.REFUSED])
def test_what_is_not_done_is_not_signed(
    web: WebUnderTest, study: str, state: StudyState
) -> None:
    come(web)
    with web.services.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE studies SET state = 'accepted'")
    (one,) = open_studies(web.services.database)
    tell(web.services.database, one, state)
    answer = web.client.post(f"/api/v1/studies/{study}/sign", json=form(2))
    assert answer.status_code == 409


@pytest.mark.usefixtures("study")
def test_a_draft_is_kept_for_its_reader_alone(web: WebUnderTest) -> None:
    first, second = web.sign_in_as("first"), web.sign_in_as("second")
    half = form(levels={"C1": "whole"}, boxes=[{**BOX, "level": "C2"}], comment="a")
    saved = first.put(f"{API}/draft", json=half)
    assert saved.status_code == 200
    draft = first.get(f"{API}/review").json()["draft"]
    assert draft == {**half, "saved_at": saved.json()["saved_at"]}
    assert second.get(f"{API}/review").json()["draft"] is None
    first.put(f"{API}/draft", json={**half, "comment": "b"})
    assert first.get(f"{API}/review").json()["draft"]["comment"] == "b"
    assert second.delete(f"{API}/draft").status_code == 204
    assert first.get(f"{API}/review").json()["draft"] is not None
    sign(first)
    assert first.get(f"{API}/review").json()["draft"] is None
    assert not web.services.inbox.exists("labels/draft")


@pytest.mark.usefixtures("study")
def test_boxes_of_an_older_version_follow_their_slice(web: WebUnderTest) -> None:
    reader = web.sign_in_as("reader")
    sign(reader, boxes=[BOX])
    (review,) = reader.get(f"{API}/review").json()["reviews"]
    assert review["boxes"][0]["slice_index"] == 5
    sop_uid = review["boxes"][0]["sop_instance_uid"]
    assert web.services.stores.metadata.read_sop_uids(STUDY_UID)[5] == sop_uid


def test_the_document_of_the_api_says_what_is_sent(web: WebUnderTest) -> None:
    paths = web.client.get("/api/openapi.json").json()["paths"]
    signing = paths["/api/v1/studies/{study_uid}/sign"]["post"]
    schema = signing["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["version"]
    assert schema["additionalProperties"] is False
    box = schema["properties"]["boxes"]["items"]
    assert set(box["required"]) == {"level", "slice_index", "x", "y", "width", "height"}
    assert "$ref" not in json.dumps(schema)
