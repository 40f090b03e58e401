"""A study with several axial volumes: which is read, and how another is chosen."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from httpx2 import Response
from starlette.testclient import TestClient
from support.dicom_studies import STUDY_UID, add_series, write_study
from support.reviews import API, BOX, PREDICTION, sign, study_row
from support.web import ADDRESS, WebUnderTest

from csfd_core.inference.predict import prediction_path
from csfd_core.ingest.convert import convert_study, study_tasks
from csfd_core.lineage.withdrawal import withdraw
from csfd_core.store.volume_choices import VolumeChoice
from csfd_core.web.audit import verify
from csfd_core.web.database import audit
from csfd_core.web.security.sessions import CSRF_HEADER
from csfd_core.web.status.follower import take_over
from csfd_core.web.study_states import Accepted, StudyState, accept, open_studies, tell
from csfd_core.web.volume_choice.choosing import settle_choices

FIRST, OTHER, DAMAGED = (f"{STUDY_UID}.{name}.1" for name in ("1", "8", "9"))
PAGE = f"/studies/{STUDY_UID}"
READ = "volume chosen"


@pytest.fixture
def study(web: WebUnderTest) -> str:
    """Urgent; beside the volume that is read a coarse one, and one with a gap."""
    inbox = Path(web.services.inbox.url)
    folder = write_study(inbox)
    add_series(folder, "8", every=2)
    add_series(folder, "9")
    for number in (12, 13):
        (folder / f"9-{number}.dcm").unlink()
    one = Accepted(study_uid=STUDY_UID, slices=58, priority=1, user_id=web.user_id)
    with web.services.database.transaction() as connection:
        accept(connection, one)
    read(web)
    return STUDY_UID


def read(web: WebUnderTest) -> int:
    """Do what the graph does for the study that waits; return its slices."""
    stores = web.services.stores
    (task,) = study_tasks(web.services.sources.studies(), stores)
    outcome = convert_study(task)
    stores.root.write(prediction_path(STUDY_UID), json.dumps(PREDICTION).encode())
    (row,) = open_studies(web.services.database)
    assert tell(web.services.database, row, StudyState.DONE)
    return outcome.slice_count


def choose(client: TestClient, slice_uid: str = OTHER, version: int = 1) -> Response:
    wanted = {"slice_uid": slice_uid, "version": version}
    return client.post(f"{API}/volume", json=wanted)


def choices(web: WebUnderTest) -> list[VolumeChoice]:
    return web.services.stores.volume_choices.of_study(STUDY_UID)


def audited(web: WebUnderTest) -> list[Any]:
    with web.services.database.transaction() as connection:
        rows = connection.execute(sa.select(audit).order_by(audit.c.number)).all()
    return [(row.user_id, row.subject) for row in rows if row.action == READ]


@pytest.mark.usefixtures("study")
def test_a_reader_chooses_on_the_page_and_chooses_back(web: WebUnderTest) -> None:
    ann = web.sign_in_as("ann")
    page = " ".join(ann.get(PAGE).text.split())
    assert "Volume 1 of 3 is read: 24 slices, 2 mm apart, no bone kernel" in page
    assert re.findall(r'name="slice_uid" value="([^"]+)"', page) == [OTHER]
    assert page.count("has a defect") == 1
    assert "What was chosen" not in page
    form = {"slice_uid": OTHER, "version": 1, "csrf": ann.headers[CSRF_HEADER]}
    answer = ann.post(f"{PAGE}/volume", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, PAGE)
    assert ann.post(f"{PAGE}/volume", data=form).status_code == 303  # a double click
    (waiting,) = open_studies(web.services.database)
    assert (waiting.version, waiting.priority, waiting.attempt) == (2, 1, 0)
    row = study_row(web)
    assert (row.state, row.slices, row.user_id) == ("accepted", 58, web.user_id)
    page = ann.get(PAGE).text
    assert "version 2: another volume was chosen" in page
    assert "Waits in the queue" in page
    assert "Chosen, and on its way: 12 slices, 4 mm apart" in page
    assert 'id="viewer"' not in page  # it would show what is being replaced
    assert 'name="slice_uid"' not in page  # not while it is on its way
    assert read(web) == 12
    page = " ".join(ann.get(PAGE).text.split())
    assert "Volume 2 of 3 is read: 12 slices, 4 mm apart, no bone kernel" in page
    assert "Version 2: 12 slices, 4 mm apart, no bone kernel, by ann, 20" in page
    assert choose(ann, FIRST, version=2).status_code == 202
    assert read(web) == 24
    told = ann.get(f"{API}/volumes").json()
    assert [one["is_read"] for one in told["volumes"]] == [True, False, False]
    assert [one["is_usable"] for one in told["volumes"]] == [True, True, False]
    assert [one["version"] for one in told["choices"]] == [2, 3]
    number = audited(web)[0][0]
    assert number not in (None, web.user_id)
    assert audited(web) == [(number, STUDY_UID)] * 2
    assert verify(web.services.database)[1] is None


@pytest.mark.usefixtures("study")
def test_what_was_signed_stays_with_the_volume_that_was_read(web: WebUnderTest) -> None:
    signed = sign(web.client, boxes=[BOX])
    assert choose(web.client).status_code == 202
    read(web)
    told = web.client.get(f"{API}/review").json()
    (review,) = told["reviews"]
    assert (told["version"], review["version"], told["has_signed"]) == (2, 1, False)
    assert {k: v for k, v in review.items() if k != "boxes"}.items() <= signed.items()
    assert review["boxes"][0]["slice_index"] is None  # it lies on the other volume
    assert web.client.get(API).json()["is_signed"] is False
    row = study_row(web)
    assert (row.signed_version, row.version) == (1, 2)
    old = web.client.post(f"{API}/sign", json={"version": 1, "levels": {"C1": "whole"}})
    assert old.status_code == 409
    sign(web.client, version=2)
    assert [
        one["version"] for one in web.client.get(f"{API}/review").json()["reviews"]
    ] == [1, 2]


@pytest.mark.usefixtures("study")
def test_slices_of_another_volume_do_not_come_between_those_that_are_shown(
    web: WebUnderTest,
) -> None:
    shown = web.client.get(f"{API}/geometry").json()["content_hash"]
    wanted = {"start": 0, "stop": 4, "content_hash": shown}
    choose(web.client)
    assert web.client.get(f"{API}/volume", params=wanted).status_code == 200
    read(web)
    for what in ("frames", "volume", "mask", "heat"):
        answer = web.client.get(f"{API}/{what}", params=wanted)
        assert answer.status_code == 409, what
        assert "others by now" in answer.json()["detail"]
    del wanted["content_hash"]
    assert web.client.get(f"{API}/volume", params=wanted).status_code == 200


@pytest.mark.usefixtures("study")
def test_who_may_not_choose_and_what_cannot_be_chosen(web: WebUnderTest) -> None:
    stranger = TestClient(web.app, base_url=ADDRESS, follow_redirects=False)
    assert choose(stranger).status_code == 401
    assert stranger.get(f"{API}/volumes").status_code == 401
    form = {"slice_uid": OTHER, "version": 1}
    assert stranger.post(f"{PAGE}/volume", data=form).status_code == 303  # sign in
    assert web.client.post(f"{PAGE}/volume", data=form).status_code == 403  # no token
    csrf = web.client.headers.pop(CSRF_HEADER)
    assert choose(web.client).status_code == 403
    web.client.headers[CSRF_HEADER] = csrf
    for slice_uid, status in (
        ("1.2.3", 404),
        ("../../../etc/passwd", 404),
        ("", 404),
        (f"{STUDY_UID}.1.7", 404),  # of the volume, but not offered
        ("1" * 65, 422),
        (DAMAGED, 409),
    ):
        answer = choose(web.client, slice_uid)
        assert answer.status_code == status, slice_uid
        assert "etc" not in answer.text
    assert choose(web.client, version=7).status_code == 409  # of an older page
    for uid in ("1.2.3", "..%2F..%2Fx", "MRN4711"):
        wanted = {"slice_uid": OTHER, "version": 1}
        answer = web.client.post(f"/api/v1/studies/{uid}/volume", json=wanted)
        assert answer.status_code == 404, uid
    for folder in Path(web.services.inbox.url, "train_images").iterdir():
        folder.rename(Path(web.services.inbox.url, "gone"))
    assert "not here any more" in choose(web.client).json()["detail"]
    assert choose(web.client, FIRST).status_code == 202  # it is read already
    assert (choices(web), audited(web), study_row(web).version) == ([], [], 1)


@pytest.mark.usefixtures("study")
def test_of_a_withdrawn_study_nothing_is_chosen(web: WebUnderTest) -> None:
    assert choose(web.client).status_code == 202
    assert choose(web.client, FIRST).status_code == 409  # on its way
    read(web)
    form = {"csrf": web.client.headers[CSRF_HEADER], "reason": "consent taken back"}
    web.client.post(f"{PAGE}/withdraw", data=form)
    answer = choose(web.client, FIRST, version=2)
    assert (answer.status_code, "was withdrawn" in answer.text) == (409, True)
    withdraw(web.services.stores, STUDY_UID, "consent taken back", "admin")
    assert web.services.stores.root.find("volume_choices")[0] == []
    assert choose(web.client, FIRST, version=2).status_code == 409
    take_over(web.services)  # from then on it is not in the list either
    assert choose(web.client, FIRST, version=2).status_code == 409
    assert choices(web) == []


@pytest.mark.usefixtures("study")
def test_a_choice_that_was_cut_off_is_made_once(web: WebUnderTest) -> None:
    choice = VolumeChoice(
        study_uid=STUDY_UID, slice_uid=OTHER, told="12 slices", by="admin", version=2
    )
    web.services.stores.volume_choices.add(choice)
    assert [settle_choices(web.services) for _ in range(2)] == [1, 0]
    (waiting,) = open_studies(web.services.database)
    assert (waiting.version, waiting.priority) == (2, 1)
    assert audited(web) == [(web.user_id, STUDY_UID)]
    assert read(web) == 12
    assert settle_choices(web.services) == 0
