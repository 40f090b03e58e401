"""Who comes in at ``/dicom-web``, and who does not."""

import base64
import re
import sqlite3

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient
from support.dicomweb import ROUTE, bearer, make_token
from support.web import ADDRESS, WebUnderTest

from csfd_core.web.audit import Action
from csfd_core.web.database import audit, tokens
from csfd_core.web.security.sessions import CSRF_HEADER

STUDIES = f"{ROUTE}/studies"
TYPE = 'multipart/related; type="application/dicom"; boundary=b'
NOTHING = b"--b--"
FORM = {"name": "pacs-1", "may_read": "true", "may_send": "true", "priority": "2"}


def program(web: WebUnderTest) -> TestClient:
    return TestClient(web.app, base_url=ADDRESS, follow_redirects=False)


def basic(password: str) -> dict[str, str]:
    pair = base64.b64encode(f"any:{password}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def form(web: WebUnderTest, **values: str) -> dict[str, str]:
    return {"csrf": web.client.headers[CSRF_HEADER], **values}


def actions(web: WebUnderTest) -> list[tuple[str, str]]:
    with web.services.database.transaction() as connection:
        rows = connection.execute(sa.select(audit).order_by(audit.c.number))
        return [(row.action, row.subject) for row in rows]


@pytest.mark.parametrize(
    "path", ["studies", "series", "instances", "studies/1.2/series"]
)
def test_a_stranger_is_asked_for_a_token_and_never_for_a_password(
    web: WebUnderTest, path: str
) -> None:
    answer = program(web).get(f"{ROUTE}/{path}")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="csfd"'
    assert program(web).post(STUDIES).status_code == 401


@pytest.mark.parametrize("way", [bearer, basic])
def test_a_token_opens_what_it_may(web: WebUnderTest, way: object) -> None:
    reads = way(make_token(web, "reads", may_read=True))  # type: ignore[operator]
    sends = way(make_token(web, "sends", may_send=True))  # type: ignore[operator]
    client = program(web)
    assert client.get(STUDIES, headers=reads).status_code == 204
    assert client.get(STUDIES, headers=sends).status_code == 403
    posted = {"content": NOTHING}
    typed = {"Content-Type": TYPE}
    assert client.post(STUDIES, headers=reads | typed, **posted).status_code == 403
    assert client.post(STUDIES, headers=sends | typed, **posted).status_code == 400


def test_a_token_opens_nothing_else(web: WebUnderTest) -> None:
    headers = bearer(make_token(web))
    for path in ("/api/v1/studies", "/api/v1/me", "/", "/admin/tokens"):
        assert program(web).get(path, headers=headers).status_code in (303, 401)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer x",
        "Basic",
        "Basic !!!",
        "Basic eA==",
        "Digest x",
        "x" * 900,
    ],
)
def test_what_is_no_token_is_refused(web: WebUnderTest, header: str) -> None:
    answer = program(web).get(STUDIES, headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.json()["detail"] == "The token is unknown or was revoked."


def test_a_wrong_token_is_not_mended_by_a_session(web: WebUnderTest) -> None:
    answer = web.client.get(STUDIES, headers={"Authorization": "Bearer x"})
    assert answer.status_code == 401


def test_guessing_is_slowed_down_and_a_right_token_is_not(web: WebUnderTest) -> None:
    right, client = bearer(make_token(web)), program(web)
    codes = [client.get(STUDIES, headers=bearer("x")).status_code for _ in range(25)]
    assert codes[:19] == [401] * 19
    assert codes[-1] == 429
    assert [a for a, _ in actions(web)].count(Action.TOKEN_REFUSED) == codes.count(401)
    # Readers who share the address sign in as before, and programs send.
    assert client.get(STUDIES, headers=right).status_code == 204
    assert web.sign_in_as("ann").get("/").status_code == 200


def test_a_session_reads_and_sends_with_its_own_token_alone(web: WebUnderTest) -> None:
    client = web.sign_in_as("ann")
    assert client.get(STUDIES).status_code == 204
    headers = {"Content-Type": TYPE}
    assert client.post(STUDIES, content=NOTHING, headers=headers).status_code == 400
    del client.headers[CSRF_HEADER]
    assert client.post(STUDIES, content=NOTHING, headers=headers).status_code == 403


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_another_site_cannot_send_with_what_a_browser_keeps(
    web: WebUnderTest, headers: dict[str, str]
) -> None:
    token, client = make_token(web), program(web)
    typed = {"Content-Type": TYPE, **headers}
    kept = client.post(STUDIES, content=NOTHING, headers=typed | basic(token))
    assert kept.status_code == 403
    given = client.post(STUDIES, content=NOTHING, headers=typed | bearer(token))
    assert given.status_code == 400  # no browser adds a bearer by itself
    answer = client.get(STUDIES, headers=bearer(token) | headers)
    assert "access-control-allow-origin" not in answer.headers


def test_an_administrator_makes_a_token_that_is_shown_once(web: WebUnderTest) -> None:
    page = web.client.post("/admin/tokens", data=form(web, **FORM))
    assert page.status_code == 200
    found = re.search(r'<code id="made" class="uid">(csfd_[\w-]{43})</code>', page.text)
    assert found is not None
    assert page.headers["cache-control"] == "no-store"
    assert found[1] not in web.client.get("/admin/tokens").text
    assert program(web).get(STUDIES, headers=bearer(found[1])).status_code == 204
    with web.services.database.transaction() as connection:
        row = connection.execute(sa.select(tokens)).one()
    assert (row.name, row.priority, row.keeps_identity) == ("pacs-1", 2, False)
    assert row.used_at is not None
    path = str(web.services.web.database).removeprefix("sqlite:///")
    stored = [str(r) for r in sqlite3.connect(path).execute("SELECT * FROM tokens")]
    assert found[1] not in "".join(stored)
    assert (Action.TOKEN_ADDED, str(row.id)) in actions(web)


def test_a_revoked_token_opens_nothing(web: WebUnderTest) -> None:
    token = make_token(web)
    answer = web.client.post("/admin/tokens/1/revoke", data=form(web))
    assert answer.status_code == 303
    assert program(web).get(STUDIES, headers=bearer(token)).status_code == 401
    assert "revoked" in web.client.get("/admin/tokens").text
    assert (Action.TOKEN_REVOKED, "1") in actions(web)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"name": "pacs-1"}, "must be allowed to send, to read, or both"),
        ({"name": "a<b>", "may_read": "true"}, "has up to 60 letters"),
        ({"name": "taken", "may_read": "true"}, "a token of this name already"),
    ],
)
def test_a_token_that_cannot_be_is_told_why(
    web: WebUnderTest, values: dict[str, str], told: str
) -> None:
    make_token(web, "taken")
    page = web.client.post("/admin/tokens", data=form(web, **values))
    assert page.status_code == 422
    assert told in page.text


def test_readers_make_no_tokens(web: WebUnderTest) -> None:
    client = web.sign_in_as("ann")
    assert client.get("/admin/tokens").status_code == 403
    own = {"csrf": client.headers[CSRF_HEADER], **FORM}
    assert client.post("/admin/tokens", data=own).status_code == 403
    assert client.post("/admin/tokens/1/revoke", data=own).status_code == 403
