"""The pages say what stands in the store, and change what they should."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support.uploading import study_files
from support.web import WebUnderTest

from csfd_core.classification.ensemble import write_best
from csfd_core.registry.history import Action as ChampionAction
from csfd_core.registry.history import Alias, Change, ChangeKind, append_change
from csfd_core.registry.profile import require_profile
from csfd_core.store.label_notes import read_label_notes
from csfd_core.web.database import audit, studies
from csfd_core.web.pages.moments import ago, day_and_time
from csfd_core.web.pages.render import NOTICE
from csfd_core.web.reception.reception import Sender
from csfd_core.web.security.sessions import CSRF_HEADER
from csfd_core.web.study_states import StudyState

UID = "1.2.826.0.1.55"
MODELS = (
    "model,auc_vertebra,auc_vertebra_low,auc_vertebra_high,auc_overall,auc_overall_low,"
    "auc_overall_high,competition_log_loss,competition_log_loss_low,"
    "competition_log_loss_high,sensitivity,specificity,ece,test_studies,test_fractures\n"
    "worse,.7,.6,.8,.6,.5,.7,.9,.8,1.0,.5,.6,.2,20,15\n"
    "better,.9,.85,.95,.8,.7,.9,.3,.2,.4,.8,.9,.1,20,15\n"
)


def add(web: WebUnderTest, **values: Any) -> None:
    row = {
        "study_uid": UID,
        "state": StudyState.DONE,
        "accepted_at": time.time(),
        "version": 1,
        **values,
    }
    with web.services.database.transaction() as connection:
        connection.execute(studies.insert().values(**row))


def row(web: WebUnderTest) -> Any:
    with web.services.database.transaction() as connection:
        return connection.execute(sa.select(studies)).first()


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "just now"), (59, "just now"), (60, "1 min"), (7300, "2 h"), (200_000, "2 d")],
)
def test_how_long_ago(seconds: float, told: str) -> None:
    assert ago(1000.0, 1000.0 + seconds) == told


def test_a_moment_is_told_in_utc() -> None:
    assert day_and_time(0.0) == "1970-01-01 00:00"


def test_each_page_says_once_what_csfd_is_not(web: WebUnderTest) -> None:
    add(web)
    for path in ("/", "/upload", "/model", "/account", f"/studies/{UID}"):
        page = web.client.get(path)
        assert page.status_code == 200
        assert page.text.count(NOTICE) == 1


def test_without_a_training_the_general_model_speaks(web: WebUnderTest) -> None:
    page = web.client.get("/model").text
    assert "the general classifier speaks" in page
    assert "synthetic phantom" in page
    assert "How good it is" not in page


def test_a_best_that_knows_less_than_the_prevalences_does_not_speak(
    web: WebUnderTest,
) -> None:
    require_profile(web.services.stores, "demo")
    write_best(web.services.stores, "resnet50", beats_prevalences=False)
    page = web.client.get("/model").text
    assert "beats the prevalences yet, so the general classifier speaks" in page


def test_moments_of_the_model_are_told_as_others_are(web: WebUnderTest) -> None:
    change = Change(
        alias=Alias.CHAMPION,
        after=3,
        action=ChampionAction.PROMOTE,
        kind=ChangeKind.BY_HAND,
        by="ann",
        reason="It is better.",
        model="resnet50",
        at="2026-11-28T19:53:52+02:00",
    )
    append_change(web.services.stores.root, change)
    page = web.client.get("/model").text
    assert "Champion since 2026-11-28 17:53 (UTC)." in page
    assert "<td>2026-11-28 17:53</td>" in page
    assert "17:53:52" not in page


def test_a_uid_is_cut_alike_everywhere(web: WebUnderTest) -> None:
    uid = "2.25.123456789012345678"
    add(web, study_uid=uid)
    for path in ("/", f"/studies/{uid}", f"/studies/{uid}/withdraw"):
        assert "…9012345678" in web.client.get(path).text, path


def test_the_scores_are_those_of_the_comparison_best_first(web: WebUnderTest) -> None:
    root = web.services.stores.root
    root.write("reports/comparison/models.csv", MODELS.encode())
    root.write("reports/comparison/index.html", b"<title>comparison</title>")
    root.write("models/classification/best.json", b'{"model": "better"}')
    page = web.client.get("/model").text
    assert page.index(">better<") < page.index(">worse<")
    assert "0.90 (0.85 to 0.95)" in page
    assert "20 studies with 15 fractured vertebrae" in page
    assert "the best of the comparison speaks" in page
    assert "/reports/comparison/index.html" in page


def test_reports_are_shown_and_nothing_else_of_the_store(web: WebUnderTest) -> None:
    root = web.services.stores.root
    root.write("reports/eda/index.html", b"<title>the data</title>")
    root.write("predictions/1.2.json", b"{}")
    shown = web.client.get("/reports/eda/index.html")
    assert (shown.status_code, shown.text) == (200, "<title>the data</title>")
    for path in (
        "../predictions/1.2.json",
        "%2e%2e/predictions/1.2.json",
        "eda/x.html",
    ):
        assert web.client.get(f"/reports/{path}").status_code == 404


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"state": StudyState.REFUSED, "reason": "Slices are missing."}, "missing."),
        ({"state": StudyState.FAILED, "reason": "The disk was full."}, "Try again"),
        ({"state": StudyState.RUNNING, "step": "crops"}, 'aria-current="step">crops'),
        ({"state": StudyState.ACCEPTED}, "Waits in the queue"),
    ],
)
def test_a_study_without_a_result_says_where_it_is(
    web: WebUnderTest, values: dict[str, Any], told: str
) -> None:
    add(web, **values)
    assert told in web.client.get(f"/studies/{UID}").text


def test_a_failed_study_is_tried_again_from_its_page(web: WebUnderTest) -> None:
    add(web, state=StudyState.FAILED)
    form = {"csrf": web.client.headers[CSRF_HEADER]}
    answer = web.client.post(f"/studies/{UID}/retry", data=form)
    assert answer.status_code == 303
    assert (row(web).state, row(web).attempt) == (StudyState.ACCEPTED, 1)


def test_a_withdrawal_removes_the_images_and_tells_the_graph(web: WebUnderTest) -> None:
    add(web, verdict="suspicious")
    inbox = web.services.inbox
    inbox.write(f"train_images/{UID}/1.dcm", b"an image")
    inbox.write("train_images/1.2.3/1.dcm", b"of another")
    form = {
        "csrf": web.client.headers[CSRF_HEADER],
        "reason": " consent \n taken back ",
    }
    answer = web.client.post(f"/studies/{UID}/withdraw", data=form)
    assert answer.status_code == 303
    assert not inbox.exists(f"train_images/{UID}/1.dcm")
    assert inbox.exists("train_images/1.2.3/1.dcm")
    (note,) = read_label_notes(inbox).notes.values()
    assert (note.study_uid, note.withdrawn) == (UID, "consent taken back")
    assert row(web).state == StudyState.REFUSED
    with web.services.database.transaction() as connection:
        actions = set(connection.scalars(sa.select(audit.c.action)))
    assert "study withdrawn" in actions


def test_a_withdrawal_needs_a_reason_and_an_administrator(web: WebUnderTest) -> None:
    add(web)
    reader = web.sign_in_as("ann")
    path = f"/studies/{UID}/withdraw"
    own = {"csrf": reader.headers[CSRF_HEADER], "reason": "because"}
    assert reader.post(path, data=own).status_code == 403
    assert reader.get(path).status_code == 403
    empty = {"csrf": web.client.headers[CSRF_HEADER], "reason": "  "}
    assert web.client.post(path, data=empty).status_code == 422
    assert row(web).state == StudyState.DONE
    assert read_label_notes(web.services.inbox).notes == {}


def test_a_user_is_added_with_what_was_typed(web: WebUnderTest) -> None:
    csrf = web.client.headers[CSRF_HEADER]
    form = {"name": "ann", "password": "twelve letters", "role": "reader", "csrf": csrf}
    assert web.client.post("/admin/users", data=form).status_code == 303
    assert "ann" in web.client.get("/admin/users").text
    again = web.client.post("/admin/users", data=form)
    assert again.status_code == 422
    assert "There is a user of this name already." in again.text


def test_the_openapi_document_names_the_routes(web: WebUnderTest) -> None:
    document = json.loads(web.client.get("/api/openapi.json").text)
    for path in ("/api/v1/studies", "/api/v1/uploads", "/healthz", "/metrics"):
        assert path in document["paths"]


def test_the_worklist_says_that_a_study_is_being_received(
    web: WebUnderTest, tmp_path: Path
) -> None:
    assert "being received" not in web.client.get("/").text
    files = study_files(tmp_path / "sent")
    reception = web.app.state.reception
    for content in files[:3]:
        reception.keep(content, Sender(name="CT1", keeps_identity=False))
    assert "A study is being received" in web.client.get("/").text
    reception.settle(quiet_s=0)
    page = web.client.get("/", params={"state": "coming"}).text
    assert "being received" not in page
    assert "waits" in page
