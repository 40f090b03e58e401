"""Reviews and their label files: never apart for long, whatever is killed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support.dicom_studies import STUDY_UID
from support.reviews import API, BOX, form, sign
from support.web import WebUnderTest

from csfd_core.errors import SourceError
from csfd_core.store.label_notes import label_path, read_label_note
from csfd_core.store.locations import Location
from csfd_core.web.database import reviews
from csfd_core.web.review import label_files
from csfd_core.web.review.label_files import write_pending, write_withdrawal

PATH = label_path(STUDY_UID)
KILLED_WHILE_WRITING = """
import os, signal, sys
from csfd_core.store.locations import Location
from csfd_core.web.review.forms import ReviewForm
from csfd_core.web.review.label_files import write_pending
from csfd_core.web.review.signing import sign
from csfd_core.web.security.sessions import Session
from csfd_core.web.security.users import Role, User
from csfd_core.web.services import Services

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

services = Services.open()
user = User(id=int(sys.argv[1]), name="admin", role=Role.ADMINISTRATOR)
session = Session(user=user, csrf="", token_hash="")
form = ReviewForm.model_validate_json(sys.argv[3])
sign(services, session, sys.argv[2], form)
Location.write = die
write_pending(services)
"""


@pytest.fixture(autouse=True)
def _new_process() -> None:
    label_files._settled.clear()  # as after a start


def read(web: WebUnderTest) -> dict[str, Any]:
    note: dict[str, Any] = json.loads(web.services.inbox.read(PATH))
    return note


@pytest.mark.slow
@pytest.mark.usefixtures("study")
def test_a_process_that_is_killed_before_the_file_loses_no_review(
    web: WebUnderTest,
) -> None:
    sent = json.dumps(form(boxes=[BOX]))
    command = [sys.executable, "-c", KILLED_WHILE_WRITING]
    killed = subprocess.run(
        [*command, str(web.user_id), STUDY_UID, sent], check=False, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL
    assert not web.services.inbox.exists(PATH)
    (review,) = web.client.get(f"{API}/review").json()["reviews"]
    done = write_pending(web.services)
    assert (done.written, done.waiting) == (1, frozenset())
    note = read(web)
    assert note["signed_at"] == review["signed_at"]
    assert note["boxes"][0]["slice_number"] == 6
    label_files._settled.clear()
    assert write_pending(web.services).written == 0
    assert read(web) == note


@pytest.mark.usefixtures("study")
def test_a_disk_that_is_full_delays_the_file_alone(
    web: WebUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Location, path: str, content: bytes) -> None:
        raise SourceError(f"Cannot access {self}: No space left on device.")

    with monkeypatch.context() as patched:
        patched.setattr(Location, "write", full)
        assert sign(web.client)["label_file_waits"] is True
        assert write_pending(web.services).waiting == {STUDY_UID}
    assert not web.services.inbox.exists(PATH)
    assert write_pending(web.services).written == 1
    assert read(web)["labels"]["C4"] == 1
    assert write_pending(web.services).written == 0


@pytest.mark.usefixtures("study")
def test_entries_of_an_older_file_are_kept(web: WebUnderTest) -> None:
    old: dict[str, Any] = {
        "study_uid": STUDY_UID,
        "labels": {"C1": 1, "patient_overall": 1},
    }
    old |= {"reader": "X", "date": "2026-01-05", "slices": 24}
    web.services.inbox.write(PATH, json.dumps(old).encode())
    sign(web.client)
    note = read(web)
    assert note["slices"] == 24
    assert (note["labels"]["C1"], note["labels"]["C4"]) == (0, 1)
    assert note["reader"] == "admin"
    assert "patient_overall" not in note["labels"]  # it follows from the levels


@pytest.mark.usefixtures("study")
def test_a_withdrawal_is_never_overwritten(web: WebUnderTest) -> None:
    sign(web.client)
    write_withdrawal(web.services, STUDY_UID, "consent taken back", "admin")
    answer = web.client.post(f"{API}/sign", json=form(comment="once more"))
    assert answer.status_code == 409
    assert "withdrawn" in answer.json()["detail"]
    label_files._settled.clear()
    assert write_pending(web.services).written == 0
    note = read_label_note(web.services.inbox, STUDY_UID)
    assert note is not None
    assert note.withdrawn == "consent taken back"
    web.services.inbox.remove(PATH)
    web.services.stores.withdrawn.location.write(
        web.services.stores.withdrawn.path(STUDY_UID), b"{}"
    )
    label_files._settled.clear()
    assert write_pending(web.services).written == 0
    assert not web.services.inbox.exists(PATH)


@pytest.mark.usefixtures("study")
def test_a_file_that_cannot_be_used_is_left_for_a_person(web: WebUnderTest) -> None:
    web.services.inbox.write(PATH, b'{"study_uid": "1.2.3", "withdr')
    answer = web.client.post(f"{API}/sign", json=form())
    assert answer.status_code == 409
    assert "cannot be used" in answer.json()["detail"]
    assert web.services.inbox.read(PATH).startswith(b'{"study_uid": "1.2.3", "withdr')
    with web.services.database.transaction() as connection:
        assert connection.execute(sa.select(reviews)).all() == []
    web.services.inbox.remove(PATH)
    sign(web.client)


@pytest.mark.usefixtures("study")
def test_a_newer_file_by_hand_stays(web: WebUnderTest) -> None:
    sign(web.client)
    note = read(web)
    hand = note | {"reader": "by hand"}
    web.services.inbox.write(PATH, json.dumps(hand).encode())
    label_files._settled.clear()
    assert write_pending(web.services).written == 0  # of the same moment
    assert read(web)["reader"] == "by hand"
    sign(web.client, comment="a correction")
    assert read(web)["reader"] == "admin"


@pytest.mark.usefixtures("study")
def test_a_clock_that_goes_back_does_not_reorder_reviews(
    web: WebUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sign(web.client)
    now = time.time()
    with monkeypatch.context() as patched:
        patched.setattr("csfd_core.web.review.signing.time.time", lambda: now - 3600)
        second = sign(web.client, comment="a correction")
    assert second["signed_at"] > first["signed_at"]
    assert read(web)["signed_at"] == second["signed_at"]


def test_nothing_is_written_where_nothing_was_signed(
    web: WebUnderTest, tmp_path: Path
) -> None:
    assert write_pending(web.services).written == 0
    assert not (tmp_path / "inbox" / "labels").exists()
