"""What an attacker would try at the entrance, and with a session."""

import re
import sqlite3

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient
from support.web import ADDRESS, PASSWORD, WebUnderTest, signed_in

from csfd_core.web.database import addresses, sessions, users
from csfd_core.web.security import users as users_module
from csfd_core.web.security.sessions import CSRF_HEADER
from csfd_core.web.security.users import Role, first_administrator

PRIVATE = (
    "/",
    "/upload",
    "/model",
    "/account",
    "/admin/users",
    "/admin/audit",
    "/studies/1.2.3",
    "/studies/1.2.3/withdraw",
    "/reports/eda/index.html",
)
PRIVATE_API = (
    "/api/v1/studies",
    "/api/v1/studies/1.2.3",
    "/api/v1/events",
    "/api/v1/me/keys",
    "/api/v1/studies/1.2.3/geometry",
    "/api/v1/studies/1.2.3/frames?start=0&stop=1",
    "/api/v1/studies/1.2.3/mask",
    "/api/v1/studies/1.2.3/heat",
    "/api/v1/studies/1.2.3/volume?start=0&stop=1",
    "/api/v1/studies/1.2.3/review",
    "/api/v1/studies/1.2.3/prediction",
    "/api/v1/studies/1.2.3/summary.pdf",
)


def stranger(web: WebUnderTest) -> TestClient:
    return TestClient(web.app, base_url=ADDRESS, follow_redirects=False)


def attempt(client: TestClient, name: str, password: str) -> str:
    answer = client.post("/sign-in", data={"name": name, "password": password})
    assert answer.status_code == 403
    found = re.search(r'role="alert">([^<]+)<', answer.text)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("path", PRIVATE)
def test_a_stranger_is_led_to_the_entrance(web: WebUnderTest, path: str) -> None:
    answer = stranger(web).get(path)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/sign-in?to=/")


@pytest.mark.parametrize("path", PRIVATE_API)
def test_a_stranger_gets_nothing_of_the_api(web: WebUnderTest, path: str) -> None:
    assert stranger(web).get(path).status_code == 401


def test_every_route_but_the_public_ones_needs_a_session(web: WebUnderTest) -> None:
    public = {"/sign-in", "/healthz", "/readyz", "/metrics", "/api/openapi.json"}
    client, open_to_all = stranger(web), []
    document = web.client.get("/api/openapi.json").json()
    for path, methods in document["paths"].items():
        for method in methods:
            address = re.sub(r"\{[^}]+\}", "1", path)
            answer = client.request(method.upper(), address)
            if answer.status_code not in (401, 403) and path not in public:
                open_to_all.append((method, path, answer.status_code))
    assert open_to_all == []
    assert len(document["paths"]) > 15


def test_a_wrong_password_and_an_unknown_name_are_told_alike(
    web: WebUnderTest,
) -> None:
    client = stranger(web)
    assert attempt(client, "admin", "wrong") == attempt(client, "nobody", "wrong")


def test_after_five_failures_the_right_password_has_to_wait(web: WebUnderTest) -> None:
    client = stranger(web)
    for _ in range(5):
        assert attempt(client, "admin", "wrong") == "Name or password is wrong."
    assert attempt(client, "admin", PASSWORD).startswith("Too many attempts.")
    with web.services.database.transaction() as connection:
        connection.execute(users.update().values(locked_until=0.0))
        connection.execute(addresses.delete())
    assert signed_in(web.app, "admin").get("/").status_code == 200


def test_guessing_many_names_locks_the_address(web: WebUnderTest) -> None:
    client = stranger(web)
    for number in range(20):
        attempt(client, f"name{number}", "wrong")
    assert attempt(client, "another", "wrong").startswith("Too many attempts.")


def test_signing_out_ends_the_session_and_not_the_cookie_alone(
    web: WebUnderTest,
) -> None:
    client = web.sign_in_as("ann")
    token = client.cookies["csfd"]
    form = {"csrf": client.headers[CSRF_HEADER]}
    assert client.post("/sign-out", data=form).status_code == 303
    stolen = stranger(web)
    stolen.cookies.set("csfd", token)
    assert stolen.get("/api/v1/studies").status_code == 401


def test_the_database_holds_neither_token_nor_password(web: WebUnderTest) -> None:
    token = web.client.cookies["csfd"]
    path = str(web.services.web.database).removeprefix("sqlite:///")
    web.services.database.close()  # which writes the log back
    content = b"".join(
        " ".join(map(str, row)).encode()
        for (name,) in sqlite3.connect(path).execute("SELECT name FROM sqlite_master")
        if not name.startswith(("sqlite_", "ix_"))
        for row in sqlite3.connect(path).execute(f'SELECT * FROM "{name}"')
    )
    assert b"admin" in content
    assert token.encode() not in content
    assert PASSWORD.encode() not in content


def test_an_idle_session_ends(
    web: WebUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with web.services.database.transaction() as connection:
        connection.execute(sessions.update().values(seen_at=sessions.c.seen_at - 3601))
    assert web.client.get("/api/v1/studies").status_code == 401


def test_an_old_session_ends_though_it_is_used(web: WebUnderTest) -> None:
    with web.services.database.transaction() as connection:
        old = sessions.c.created_at - 12 * 3600 - 1
        connection.execute(sessions.update().values(created_at=old))
    assert web.client.get("/api/v1/studies").status_code == 401


def test_without_the_sessions_token_nothing_changes(web: WebUnderTest) -> None:
    client = web.sign_in_as("ann")
    del client.headers[CSRF_HEADER]
    keys = {"keys": {"mask": "x"}}
    assert client.put("/api/v1/me/keys", json=keys).status_code == 403
    forged = {CSRF_HEADER: web.client.headers[CSRF_HEADER]}  # of another session
    answer = client.put("/api/v1/me/keys", json=keys, headers=forged)
    assert answer.status_code == 403
    assert client.get("/api/v1/me/keys").json() == {"keys": {}}
    own = client.get("/api/v1/me").json()
    assert (own["name"], own["role"]) == ("ann", Role.READER)
    answer = client.put(
        "/api/v1/me/keys", json=keys, headers={CSRF_HEADER: own["csrf"]}
    )
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "null"},
    ],
)
def test_another_site_cannot_send_forms(
    web: WebUnderTest, headers: dict[str, str]
) -> None:
    form = {"name": "admin", "password": PASSWORD}
    answer = stranger(web).post("/sign-in", data=form, headers=headers)
    assert answer.status_code == 403
    assert "another site" in answer.text


@pytest.mark.parametrize(
    "to", ["https://evil.example/", "//evil.example", "/\\evil.example", "x", ""]
)
def test_signing_in_leads_to_this_site_alone(web: WebUnderTest, to: str) -> None:
    form = {"name": "admin", "password": PASSWORD, "to": to}
    answer = stranger(web).post("/sign-in", data=form)
    assert answer.headers["location"] == "/"


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(
    web: WebUnderTest,
) -> None:
    form = {"name": "admin", "password": PASSWORD}
    cookie = stranger(web).post("/sign-in", data=form).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie


def test_pages_carry_a_strict_policy_and_no_script_of_their_own(
    web: WebUnderTest,
) -> None:
    for path in ("/", "/upload", "/model", "/account", "/admin/users", "/admin/audit"):
        answer = web.client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=\"", answer.text)


def test_a_reader_is_no_administrator(web: WebUnderTest) -> None:
    reader = web.sign_in_as("ann")
    csrf = {"csrf": reader.headers[CSRF_HEADER]}
    assert reader.get("/admin/users").status_code == 403
    assert reader.get("/admin/audit").status_code == 403
    added = {"name": "eve", "password": PASSWORD, "role": Role.ADMINISTRATOR, **csrf}
    assert reader.post("/admin/users", data=added).status_code == 403
    risen = {"role": Role.ADMINISTRATOR, "is_active": "true", **csrf}
    assert reader.post("/admin/users/2", data=risen).status_code == 403
    assert reader.post("/admin/users/1/sign-out", data=csrf).status_code == 403
    with web.services.database.transaction() as connection:
        found = connection.execute(sa.select(users.c.name, users.c.role)).all()
    assert [tuple(row) for row in found] == [
        ("admin", Role.ADMINISTRATOR),
        ("ann", Role.READER),
    ]


def test_a_user_who_is_switched_off_is_out_at_once(web: WebUnderTest) -> None:
    reader = web.sign_in_as("ann")
    form = {"role": Role.READER, "csrf": web.client.headers[CSRF_HEADER]}
    assert web.client.post("/admin/users/2", data=form).status_code == 303
    assert reader.get("/api/v1/studies").status_code == 401
    assert attempt(stranger(web), "ann", PASSWORD) == "Name or password is wrong."


def test_the_last_administrator_stays(web: WebUnderTest) -> None:
    csrf = web.client.headers[CSRF_HEADER]
    form = {"role": Role.READER, "is_active": "true", "csrf": csrf}
    answer = web.client.post("/admin/users/1", data=form)
    assert answer.status_code == 422
    assert "There must be an active administrator." in answer.text


def test_another_password_ends_all_sessions(web: WebUnderTest) -> None:
    first = web.sign_in_as("ann")
    second = signed_in(web.app, "ann")
    changed = {
        "old": PASSWORD,
        "new": "another long password",
        "again": "another long password",
        "csrf": second.headers[CSRF_HEADER],
    }
    assert second.post("/account", data=changed).status_code == 303
    assert first.get("/api/v1/studies").status_code == 401
    changed_one = signed_in(web.app, "ann", "another long password")
    assert changed_one.get("/").status_code == 200


@pytest.mark.parametrize(
    ("old", "new", "again", "told"),
    [
        ("wrong", "another long password", "another long password", "old password"),
        (PASSWORD, "short", "short", "12 to 200 characters"),
        (PASSWORD, "another long password", "a different password", "differ"),
    ],
)
def test_a_password_is_not_changed_by_mistake(
    web: WebUnderTest, old: str, new: str, again: str, told: str
) -> None:
    csrf = web.client.headers[CSRF_HEADER]
    form = {"old": old, "new": new, "again": again, "csrf": csrf}
    answer = web.client.post("/account", data=form)
    assert answer.status_code == 422
    assert told in answer.text
    assert web.client.get("/api/v1/studies").status_code == 200


def test_the_first_administrator_is_made_once(
    web: WebUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with web.services.database.transaction() as connection:
        assert first_administrator(connection) is None
        for table in (sessions, users):
            connection.execute(table.delete())
        password = first_administrator(connection)
    assert password is not None
    assert len(password) >= users_module.LEAST_PASSWORD
    assert signed_in(web.app, "admin", password).get("/admin/users").status_code == 200


@pytest.mark.parametrize("name", ["", "a b", "<script>", "x" * 61, "a/../b", "a\nb"])
def test_hostile_names_are_refused(web: WebUnderTest, name: str) -> None:
    csrf = web.client.headers[CSRF_HEADER]
    form = {"name": name, "password": PASSWORD, "role": Role.READER, "csrf": csrf}
    answer = web.client.post("/admin/users", data=form)
    assert answer.status_code == 422
    with web.services.database.transaction() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(users)) == 1


def test_a_hostile_search_is_shown_as_text(web: WebUnderTest) -> None:
    page = web.client.get("/", params={"q": '"><script>alert(1)</script>'}).text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_body_that_is_too_large_is_refused_unread(web: WebUnderTest) -> None:
    headers = {"Content-Length": str(21 * 2**20)}
    answer = web.client.put("/api/v1/me/keys", content=b"{}", headers=headers)
    assert answer.status_code == 413
