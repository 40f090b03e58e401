"""The worklist says of a signed study what its reader has signed."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient
from support.web import WebUnderTest

from csfd_core.vocabulary import LEVEL_NAMES
from csfd_core.web.database import reviews, studies
from csfd_core.web.review import blind
from csfd_core.web.security.users import Role
from csfd_core.web.status.signed import told_answer
from csfd_core.web.study_states import StudyState

UID = "1.2.826.0.1.7"
WHOLE = dict.fromkeys(LEVEL_NAMES, "whole")


@pytest.fixture(autouse=True)
def nobody_is_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blind, "is_locked", lambda *_: False)


def add(web: WebUnderTest, uid: str = UID, version: int = 1) -> str:
    """Add a study that the model calls suspicious, and that was signed."""
    row = {
        "study_uid": uid,
        "state": StudyState.DONE,
        "accepted_at": time.time(),
        "verdict": "suspicious",
        "suspicious": "C2",
        "ratio": 2.0,
        "version": version,
        "signed_version": version,
        "signed_count": 1,
    }
    with web.services.database.transaction() as connection:
        connection.execute(studies.insert().values(**row))
    return uid


def sign(
    web: WebUnderTest,
    levels: dict[str, Any],
    *,
    uid: str = UID,
    user_id: int | None = None,
    version: int = 1,
) -> None:
    row = {
        "study_uid": uid,
        "user_id": user_id or web.user_id,
        "signed_at": time.time(),
        "version": version,
        "saw_ai": True,
        "body": json.dumps({"levels": levels, "boxes": [], "comment": ""}),
    }
    with web.services.database.transaction() as connection:
        connection.execute(reviews.insert().values(**row))


def shown(client: TestClient, state: str = "signed") -> str:
    page = client.get("/", params={"state": state, "part": True})
    assert page.status_code == 200
    return " ".join(page.text.split())


@pytest.mark.parametrize("state", ["signed", "all"])
def test_the_readers_answer_stands_before_the_models(
    web: WebUnderTest, state: str
) -> None:
    add(web)
    sign(web, WHOLE | {"C5": "fractured"})
    page = shown(web.client, state)
    assert ">fractured C5</span>" in page
    assert ">model: suspicious C2</span>" in page
    assert ">suspicious</span>" not in page


def test_the_newest_signature_of_the_newest_version_counts(web: WebUnderTest) -> None:
    add(web, version=2)
    sign(web, WHOLE | {"C1": "fractured"})
    sign(web, WHOLE | {"C5": "fractured"}, version=2)
    sign(web, WHOLE, version=2)
    sign(web, WHOLE | {"C3": "fractured"})  # of the old one
    assert ">no fracture</span>" in shown(web.client)


def test_what_is_read_blind_is_shown_to_those_who_have_signed(
    web: WebUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(web)
    reader = web.sign_in_as("ann", Role.READER)
    sign(web, WHOLE | {"C5": "fractured"})
    assert "fractured C5" in shown(reader)
    monkeypatch.setattr(blind, "is_locked", lambda *_: True)
    assert "fractured C5" in shown(web.client)
    assert "fractured" not in shown(reader)


def test_a_list_of_many_asks_no_more_than_a_list_of_one(web: WebUnderTest) -> None:
    sign(web, WHOLE, uid=add(web))
    with counted(web) as few:
        shown(web.client)
    for number in range(40):
        sign(web, WHOLE, uid=add(web, f"1.2.826.0.2.{number}"))
    with counted(web) as many:
        assert shown(web.client).count(">no fracture</span>") == 41
    assert len(many) == len(few)


@contextmanager
def counted(web: WebUnderTest) -> Iterator[list[str]]:
    """Yield what is asked of the database meanwhile."""
    asked: list[str] = []

    def hear(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    with web.services.database.transaction() as connection:
        engine = connection.engine
    sa.event.listen(engine, "before_cursor_execute", hear)
    yield asked
    sa.event.remove(engine, "before_cursor_execute", hear)


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        (WHOLE | {"C2": "fractured", "C7": "fractured"}, "fractured C2, C7"),
        ({"C5": "fractured"}, "fractured C5"),
        (WHOLE, "no fracture"),
        (WHOLE | {"C7": "not_assessable"}, "no fracture, not assessed: C7"),
        (WHOLE | {"C1": None, "C7": None}, "no fracture, not assessed: C1, C7"),
        ({"C7": "not_assessable"}, "not assessable"),
    ],
)
def test_what_was_signed_in_words(levels: dict[str, str], words: str) -> None:
    assert told_answer(levels).words == words
