"""The order of the worklist, and how a study is found in it."""

import time
from typing import Any

import pytest
from support.web import WebUnderTest

from csfd_core.classification.unlike import Verdict
from csfd_core.deid.identities import reference_digest
from csfd_core.ingest.patients import read_secret
from csfd_core.web.database import studies
from csfd_core.web.status.triage import Band, list_studies, neighbours
from csfd_core.web.study_states import Accepted, StudyState, accept, open_studies, tell

HOUR_S = 3600.0


def add(web: WebUnderTest, number: int, **values: Any) -> str:
    uid = f"1.2.826.0.1.{number}"
    row = {
        "study_uid": uid,
        "state": StudyState.DONE,
        "accepted_at": time.time() - number,
        "verdict": Verdict.NOT_SUSPICIOUS,
        "version": 1,
        **values,
    }
    with web.services.database.transaction() as connection:
        connection.execute(studies.insert().values(**row))
    return uid


def order(web: WebUnderTest, shown: str = "unread") -> list[str]:
    return [one.study_uid for one in list_studies(web.services, shown).studies]


def test_suspicious_first_by_ratio_then_eyes_then_age(web: WebUnderTest) -> None:
    whole_new = add(web, 1)
    eyes = add(web, 2, needs_eyes=True)
    refused = add(web, 3, state=StudyState.REFUSED, verdict="")
    little = add(web, 4, verdict=Verdict.SUSPICIOUS, ratio=1.1)
    whole_old = add(web, 500)
    much = add(web, 5, verdict=Verdict.SUSPICIOUS, ratio=2.9)
    assert order(web) == [much, little, refused, eyes, whole_old, whole_new]


def test_nobody_waits_longer_than_the_limit(web: WebUnderTest) -> None:
    suspicious = add(web, 1, verdict=Verdict.SUSPICIOUS, ratio=1.5)
    waited = add(web, 2, accepted_at=time.time() - 4 * HOUR_S - 60, ratio=0.2)
    almost = add(web, 3, accepted_at=time.time() - 4 * HOUR_S + 60, ratio=0.2)
    found = list_studies(web.services).studies
    assert [one.study_uid for one in found] == [suspicious, waited, almost]
    assert [one.band for one in found] == [Band.FIRST, Band.FIRST, Band.OTHER]
    assert [one.has_waited for one in found] == [False, True, False]


def test_what_is_read_blind_stands_by_its_age(web: WebUnderTest) -> None:
    suspicious = add(web, 1, verdict=Verdict.SUSPICIOUS, ratio=1.5)
    whole = add(web, 30, is_locked=True)
    broken = add(web, 20, is_locked=True, verdict=Verdict.SUSPICIOUS, ratio=9.0)
    eyes = add(web, 2, needs_eyes=True)
    assert order(web) == [suspicious, whole, broken, eyes]


def test_what_is_signed_leaves_until_further_slices_come(web: WebUnderTest) -> None:
    uid = add(web, 1, verdict=Verdict.SUSPICIOUS, ratio=2.0, signed_version=1)
    assert order(web) == []
    assert order(web, "signed") == [uid]
    with web.services.database.transaction() as connection:
        one = Accepted(study_uid=uid, slices=9, priority=0, user_id=web.user_id)
        assert accept(connection, one) == 2
    assert order(web, "coming") == [uid]
    (row,) = open_studies(web.services.database)
    assert tell(web.services.database, row, StudyState.DONE)
    assert order(web) == [uid]


def test_what_is_told_of_an_older_version_is_not_taken(web: WebUnderTest) -> None:
    one = Accepted(study_uid="1.2.3", slices=9, priority=0, user_id=web.user_id)
    with web.services.database.transaction() as connection:
        accept(connection, one)
    (old,) = open_studies(web.services.database)
    with web.services.database.transaction() as connection:
        accept(connection, one)
    assert not tell(web.services.database, old, StudyState.DONE)
    (new,) = open_studies(web.services.database)
    assert (new.state, new.version) == (StudyState.ACCEPTED, 2)


def test_urgent_ones_are_asked_for_first(web: WebUnderTest) -> None:
    with web.services.database.transaction() as connection:
        for number, priority in enumerate((0, 2, 1, 2)):
            one = Accepted(
                study_uid=f"1.2.{number}",
                slices=9,
                priority=priority,
                user_id=web.user_id,
            )
            accept(connection, one)
    found = [one.study_uid for one in open_studies(web.services.database)]
    assert found == ["1.2.1", "1.2.3", "1.2.2", "1.2.0"]


def test_a_study_is_found_by_what_a_reader_knows(web: WebUnderTest) -> None:
    secret = read_secret(web.services.settings.key_file)
    known = reference_digest("ACC-2026-17", secret)
    with web.services.database.transaction() as connection:
        for uid, references in (("1.2.3", {known}), ("1.2.4", set[str]())):
            one = Accepted(
                study_uid=uid,
                slices=9,
                priority=0,
                user_id=web.user_id,
                references=frozenset(references),
            )
            accept(connection, one)

    def found(query: str) -> list[str]:
        listed = list_studies(web.services, "all", query).studies
        return [one.study_uid for one in listed]

    assert found("ACC-2026-17") == ["1.2.3"]
    assert found("ACC-2026-1") == []
    assert found("1.2.4") == ["1.2.4"]
    assert found("%") == []


def test_pages_of_the_list_hold_each_study_once(web: WebUnderTest) -> None:
    uids = {add(web, number) for number in range(1, 121)}
    pages = [list_studies(web.services, page=page) for page in range(3)]
    assert [len(page.studies) for page in pages] == [50, 50, 20]
    assert {one.study_uid for page in pages for one in page.studies} == uids
    assert {page.total for page in pages} == {120}


def test_the_neighbours_of_a_study(web: WebUnderTest) -> None:
    first = add(web, 30)
    middle = add(web, 20)
    last = add(web, 10)
    assert neighbours(web.services, middle) == (first, last)
    assert neighbours(web.services, first) == (None, middle)
    assert neighbours(web.services, last) == (middle, None)
    assert neighbours(web.services, "1.2.3") == (None, first)


@pytest.mark.parametrize("state", ["unread", "signed", "coming", "all"])
def test_the_page_shows_every_kind_of_list(web: WebUnderTest, state: str) -> None:
    add(web, 1, verdict=Verdict.SUSPICIOUS, ratio=2.0, suspicious="C2 C5")
    add(web, 2, state=StudyState.FAILED, reason="The disk was full.")
    add(web, 3, state=StudyState.RUNNING, step="slices")
    add(web, 4, signed_version=1, signed_count=2, readers_differ=True)
    page = web.client.get("/", params={"state": state})
    assert page.status_code == 200
    shown = {
        "unread": ["C2, C5", "The disk was full."],
        "coming": ["slices"],
        "signed": ["readers differ", "signed by 2"],
        "all": ["C2, C5", "The disk was full.", "slices", "signed by 2"],
    }
    assert all(text in page.text for text in shown[state])
