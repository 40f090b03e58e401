"""Reading blind: what is withheld, from whom, until when, and what is recorded."""

import json

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient
from support.dicom_studies import STUDY_UID
from support.reviews import API, BOX, PREDICTION, add_study, come, sign
from support.web import WebUnderTest, web_app

from csfd_core.inference.predict import prediction_path
from csfd_core.vocabulary import LEVEL_NAMES
from csfd_core.web.database import audit, sights

SECRETS = ("0.82", "suspicious", "prediction", "evidence")
PAGE = f"/studies/{STUDY_UID}"
AI_PATHS = ("prediction", "prediction.json", "summary.pdf")
SENT = "downloaded: prediction"  # as the audit log says it


def review_of(client: TestClient) -> dict[str, object]:
    told: dict[str, object] = client.get(f"{API}/review").json()
    return told


def saw_ai(client: TestClient) -> list[bool]:
    found = client.get(f"{API}/review").json()["reviews"]
    return [review["saw_ai"] for review in found if review["is_mine"]]


@pytest.mark.usefixtures("locked")
def test_patients_of_the_locked_test_set_are_read_blind(web: WebUnderTest) -> None:
    first, second = web.sign_in_as("first"), web.sign_in_as("second")
    for client in (first, second, web.client):  # administrators are readers as well
        assert review_of(client)["blind"] is True
        for path in AI_PATHS:
            answer = client.get(f"{API}/{path}")
            assert answer.status_code == 403
            assert "sign your review first" in answer.text
    sign(first, comment="mine", boxes=[BOX])
    assert saw_ai(first) == [False]
    assert first.get(f"{API}/prediction").json()["probabilities"]["C4"] == 0.82
    withheld = second.get(f"{API}/review")
    assert withheld.json()["reviews"] == []
    assert withheld.json()["differ"] == []
    assert withheld.json()["readers"] == 0
    for word in ("mine", "first", *SECRETS):
        assert word not in withheld.text
    sign(second, levels=dict.fromkeys(LEVEL_NAMES, "whole"))
    told = review_of(second)
    assert told["blind"] is False
    assert told["differ"] == ["C4"]
    assert len(second.get(f"{API}/review").json()["reviews"]) == 2


@pytest.mark.usefixtures("locked")
def test_doubtful_names_are_told_before_signing_and_nothing_else(
    web: WebUnderTest,
) -> None:
    missing = "C7 was not assessed: not found, or hardly in the scan."
    rests = "The study's probability rests on C1 to C6."
    order = "C6 does not lie below C5."
    odd = ["C4 is suspicious (0.82).", "C3 is uncertain (41 %).", "Metal lies at C4."]
    changed = PREDICTION | {"needs_eyes": [f"{missing} {rests}", order, *odd]}
    path = prediction_path(STUDY_UID)
    web.services.stores.root.write(path, json.dumps(changed).encode())
    reader = web.sign_in_as("reader")
    page = reader.get(PAGE).text
    for told in (missing, order, "belongs to those on which models are compared"):
        assert told in page
    for secret in ("0.82", "suspicious", "evidence", rests[:20], *odd):
        assert secret not in page
    sign(reader)
    page = reader.get(PAGE).text
    assert page.count(missing) == page.count(order) == 1  # with all the rest
    assert odd[0] in page


@pytest.mark.usefixtures("locked")
def test_who_corrects_after_having_seen_it_has_seen_it(web: WebUnderTest) -> None:
    reader = web.sign_in_as("reader")
    sign(reader)
    reader.get(f"{API}/prediction")
    sign(reader, levels=dict.fromkeys(LEVEL_NAMES, "whole"))
    assert saw_ai(reader) == [False, True]
    come(web)  # further slices: blind again, but they have seen what was said before
    assert review_of(reader)["blind"] is True
    assert reader.get(f"{API}/prediction").status_code == 403
    assert len(reader.get(f"{API}/review").json()["reviews"]) == 2  # their own
    sign(reader, version=2)
    assert saw_ai(reader) == [False, True, True]


def test_the_page_says_what_a_signature_is_used_for(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSFD_RETRAIN_STUDIES", "7")
    trains = "once 7 newly labelled studies are there"
    compares = "used to compare models, and never trains one"
    for is_locked in (False, True):
        folder = tmp_path_factory.mktemp("use")
        with web_app(folder, monkeypatch) as web:
            add_study(web, locked=is_locked)
            page = web.client.get(PAGE).text
        assert (trains in page, compares in page) == (not is_locked, is_locked)
        assert ("trains the next model" in page) is not is_locked


@pytest.mark.usefixtures("study")
def test_others_are_read_with_the_prediction_unless_told(web: WebUnderTest) -> None:
    reader = web.sign_in_as("reader")
    assert review_of(reader)["blind"] is False
    assert reader.get(f"{API}/prediction").json() == PREDICTION
    sign(reader)
    assert saw_ai(reader) == [True]
    other = web.sign_in_as("other")
    sign(other)  # could have looked at any time
    assert saw_ai(other) == [True]


def test_blind_reading_can_be_asked_for(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSFD_WEB_BLIND", "true")
    with web_app(tmp_path_factory.mktemp("blind"), monkeypatch) as web:
        add_study(web)
        assert web.client.get(f"{API}/prediction").status_code == 403
        page = web.client.get(PAGE).text
        assert "You read blind: a setting of this page asks for it." in page
        sign(web.client)
        assert saw_ai(web.client) == [False]
        assert web.client.get(f"{API}/prediction").status_code == 200


@pytest.mark.usefixtures("study")
def test_a_look_is_recorded_once_a_version(web: WebUnderTest) -> None:
    reader = web.sign_in_as("reader")

    def looks() -> tuple[int, int, int]:
        with web.services.database.transaction() as connection:
            actions = list(
                connection.scalars(
                    sa.select(audit.c.action).where(audit.c.subject == STUDY_UID)
                )
            )
            seen = connection.execute(sa.select(sights)).all()
        return actions.count("study opened"), actions.count(SENT), len(seen)

    for _ in range(3):
        assert reader.get(f"{API}/prediction").status_code == 200
    assert looks() == (1, 0, 1)
    come(web)
    reader.get(f"{API}/prediction")
    reader.get(f"{API}/prediction")
    assert looks() == (2, 0, 1)
    answer = reader.get(f"{API}/prediction.json")
    assert "attachment" in answer.headers["content-disposition"]
    assert answer.json() == PREDICTION
    assert looks() == (2, 1, 1)
