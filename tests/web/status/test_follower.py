"""The worklist follows what the graph writes into the store."""

import json
import time
from typing import Any

import pytest
import sqlalchemy as sa
from support.web import WebUnderTest

from csfd_core.classification.unlike import Verdict
from csfd_core.store.withdrawn import Withdrawal
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES, OVERALL
from csfd_core.web.database import studies
from csfd_core.web.status.follower import summary_of, take_over
from csfd_core.web.study_states import StudyState

UID = "1.2.826.0.1.77"


def prediction(**changed: Any) -> dict[str, Any]:
    probabilities = dict.fromkeys(LABEL_COLUMNS, 0.1)
    return {
        "study_uid": UID,
        "verdict": Verdict.NOT_SUSPICIOUS,
        "unlike": {"told": "", "above": False},
        "model": "triplanar_cnn",
        "model_version": 3,
        "trained_on": "phantom",
        "probabilities": probabilities,
        "thresholds": {"vertebra": 0.4, "overall": 0.5},
        "suspicious": [],
        "not_assessed": [],
        "needs_eyes": [],
        **changed,
    }


def write(web: WebUnderTest, note: dict[str, Any]) -> None:
    path = f"predictions/{note['study_uid']}.json"
    web.services.stores.root.write(path, json.dumps(note).encode())


def row(web: WebUnderTest, uid: str = UID) -> Any:
    with web.services.database.transaction() as connection:
        same = studies.c.study_uid == uid
        return connection.execute(sa.select(studies).where(same)).first()


def test_the_ratio_is_the_highest_of_all_levels_to_its_operating_point() -> None:
    told = {**dict.fromkeys(LEVEL_NAMES, 0.1), "C5": 0.6, "C2": None, OVERALL: 0.7}
    found = summary_of(prediction(probabilities=told, suspicious=["C5", OVERALL]))
    assert found["ratio"] == pytest.approx(0.6 / 0.4)  # and not 0.7 / 0.5
    assert found["suspicious"] == "C5"
    assert found["overall"] == 0.7
    assert found["model"] == "triplanar_cnn v3"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, False),
        ({"needs_eyes": ["C1 was not assessed."]}, True),
        ({"verdict": Verdict.NEEDS_EYES}, True),
        ({"verdict": Verdict.NOT_ASSESSED}, True),
        ({"verdict": Verdict.SUSPICIOUS}, False),
    ],
)
def test_what_needs_eyes(changed: dict[str, Any], expected: bool) -> None:
    assert summary_of(prediction(**changed))["needs_eyes"] is expected


def test_a_new_prediction_is_taken_over_once(web: WebUnderTest) -> None:
    write(web, prediction())
    assert take_over(web.services) == 1
    assert take_over(web.services) == 0
    assert (row(web).state, row(web).verdict) == (StudyState.DONE, "not suspicious")


def test_a_changed_prediction_is_taken_over_again(web: WebUnderTest) -> None:
    write(web, prediction())
    take_over(web.services)
    before = row(web).changed_at
    write(web, prediction(verdict=Verdict.SUSPICIOUS, suspicious=["C7"]))
    assert take_over(web.services) == 1
    assert row(web).verdict == Verdict.SUSPICIOUS
    assert row(web).changed_at > before


def test_a_withdrawn_study_leaves_the_list(web: WebUnderTest) -> None:
    write(web, prediction())
    take_over(web.services)
    gone = Withdrawal(study_uid=UID, reason="consent was taken back", by="test")
    web.services.stores.withdrawn.add(gone)
    web.services.stores.root.remove(f"predictions/{UID}.json")
    take_over(web.services)
    assert row(web) is None


def test_files_of_another_name_are_no_predictions(web: WebUnderTest) -> None:
    for name in ("notes.txt", "..json", "1.2.x.json"):
        web.services.stores.root.write(f"predictions/{name}", b"{}")
    assert take_over(web.services) == 0


def test_the_page_hears_of_it(web: WebUnderTest) -> None:
    follower = web.app.state.follower
    before = follower.newest
    write(web, prediction())
    deadline = time.monotonic() + 20
    while follower.newest <= before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert follower.newest > before
    listed = web.client.get("/api/v1/studies", params={"state": "all"}).json()
    assert [one["study_uid"] for one in listed["studies"]] == [UID]


def test_metrics_count_and_name_nobody(web: WebUnderTest) -> None:
    write(web, prediction())
    take_over(web.services)
    text = web.client.get("/metrics").text
    assert 'csfd_studies{state="done"} 1.0' in text
    assert "csfd_unsigned_studies 1.0" in text
    assert UID not in text
    assert "admin" not in text


def test_keys_are_kept_by_reader(web: WebUnderTest) -> None:
    other = web.sign_in_as("ann")
    keys = {"keys": {"mask": "x"}}
    assert web.client.put("/api/v1/me/keys", json=keys).json() == keys
    assert web.client.get("/api/v1/me/keys").json() == keys
    assert other.get("/api/v1/me/keys").json() == {"keys": {}}
    many = {"keys": {str(number): "x" for number in range(101)}}
    assert web.client.put("/api/v1/me/keys", json=many).status_code == 422


def test_only_a_failed_study_is_tried_again(web: WebUnderTest) -> None:
    write(web, prediction())
    take_over(web.services)
    assert web.client.post(f"/api/v1/studies/{UID}/retry").status_code == 409
    with web.services.database.transaction() as connection:
        connection.execute(studies.update().values(state=StudyState.FAILED))
    answer = web.client.post(f"/api/v1/studies/{UID}/retry")
    assert (answer.status_code, answer.json()["state"]) == (202, StudyState.ACCEPTED)


@pytest.mark.parametrize("uid", ["../x", "1.2.999", "%2e%2e", "1..2"])
def test_an_unknown_study_is_told_as_such(web: WebUnderTest, uid: str) -> None:
    assert web.client.get(f"/api/v1/studies/{uid}").status_code == 404
    assert web.client.get(f"/studies/{uid}").status_code == 404
