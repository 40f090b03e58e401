"""Who somebody is here whom an OpenID Connect provider has signed in."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from support.oidc import Provider
from support.oidc_page import browser, entries, names, set_active, through, told, who
from support.web import PASSWORD, WebUnderTest, signed_in, web_app

from csfd_core.web.audit import Action
from csfd_core.web.database import users
from csfd_core.web.security.sessions import CSRF_HEADER
from csfd_core.web.security.users import Role, add_user


def test_a_user_who_is_switched_off_stays_out(
    page: WebUnderTest, provider: Provider
) -> None:
    client = browser(page)
    set_active(page, 2, is_active=False)
    assert "may not sign in here any more" in told(through(client, provider))
    set_active(page, 2, is_active=True)
    through(client, provider)
    assert who(client) == "ann"
    set_active(page, 2, is_active=False)
    assert who(client) is None
    assert "may not sign in here any more" in told(through(client, provider))
    assert entries(page).count((Action.SIGN_IN_FAILED, None, "2")) == 2


def test_who_is_not_known_has_to_be_added(
    page: WebUnderTest, provider: Provider
) -> None:
    provider.user = {"sub": "3-ben", "preferred_username": "ben"}
    client = browser(page)
    assert "There is no user ben here." in told(through(client, provider))
    assert names(page) == ["admin", "ann"]
    csrf = page.client.headers[CSRF_HEADER]
    form = {"name": "ben", "password": "", "role": Role.READER, "csrf": csrf}
    assert page.client.post("/admin/users", data=form).status_code == 303
    through(client, provider)
    assert who(client) == "ben"


def test_a_hostile_name_is_shown_as_text_and_never_added(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.user = {"sub": "4", "preferred_username": "<script>alert(1)</script>"}
    for number, role in enumerate(("none", "reader")):
        monkeypatch.setenv("CSFD_OIDC_ROLE", role)
        with web_app(tmp_path / str(number), monkeypatch) as page:
            answer = through(browser(page), provider)
            assert answer.status_code == 403
            assert "<script>alert" not in answer.text
            assert names(page) == ["admin"]


def test_where_it_is_allowed_who_is_not_known_becomes_a_reader(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSFD_OIDC_ROLE", "reader")
    with web_app(tmp_path, monkeypatch) as page:
        client = browser(page)
        through(client, provider)
        me = client.get("/api/v1/me").json()
        assert (me["name"], me["role"]) == ("ann", Role.READER)
        assert "no password here" in client.get("/account").text
        for password in ("", " ", PASSWORD):
            form = {"name": "ann", "password": password}
            assert client.post("/sign-in", data=form).status_code in (403, 422)
        with page.services.database.transaction() as connection:
            hashed = sa.select(users.c.password_hash).where(users.c.name == "ann")
            assert connection.scalar(hashed) == ""
        provider.user = {"sub": "5", "preferred_username": "x" * 61}
        assert "gives no name" in told(through(browser(page), provider))


def test_no_name_at_the_provider_makes_anybody_the_administrator(
    page: WebUnderTest, provider: Provider
) -> None:
    provider.user = {"sub": "mallory", "preferred_username": "admin"}
    client = browser(page)
    for _ in range(6):
        assert "signs in with it" in told(through(client, provider))
    assert who(client) is None
    assert signed_in(page.app, "admin").get("/").status_code == 200  # nor locks it out
    with page.services.database.transaction() as connection:
        add_user(connection, None, "chief", None, Role.ADMINISTRATOR)
    provider.user = {"sub": "chief", "preferred_username": "chief"}
    through(client, provider)
    assert client.get("/admin/users").status_code == 200


def test_a_name_that_is_given_to_somebody_else_there_opens_nothing(
    page: WebUnderTest, provider: Provider
) -> None:
    through(browser(page), provider)
    provider.user = {"sub": "another", "preferred_username": "ann"}
    client = browser(page)
    assert "Another account" in told(through(client, provider))
    assert who(client) is None
    csrf = {"csrf": page.client.headers[CSRF_HEADER]}
    assert "Release" in page.client.get("/admin/users").text
    reader = page.sign_in_as("eve")
    own = {"csrf": reader.headers[CSRF_HEADER]}
    assert reader.post("/admin/users/2/release", data=own).status_code == 403
    assert "Another account" in told(through(client, provider))
    assert page.client.post("/admin/users/2/release", data=csrf).status_code == 303
    through(client, provider)
    assert who(client) == "ann"
    assert (Action.ACCOUNT_RELEASED, 1, "2") in entries(page)


def test_an_account_stays_the_same_user_under_another_name(
    page: WebUnderTest, provider: Provider
) -> None:
    through(browser(page), provider)
    provider.user = {"sub": "248-ann", "preferred_username": "admin"}
    client = browser(page)
    through(client, provider)
    assert who(client) == "ann"


def test_an_address_that_nobody_has_confirmed_is_no_name(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSFD_OIDC_NAME_CLAIM", "email")
    with web_app(tmp_path, monkeypatch) as page:
        with page.services.database.transaction() as connection:
            add_user(connection, None, "ann@hospital", None, Role.READER)
        client = browser(page)
        for sure in (None, False, "true", 1):
            said = {"email": "ann@hospital", "email_verified": sure}
            provider.user = {"sub": "6", **said}
            assert "gives no name" in told(through(client, provider))
        provider.user = {"sub": "6", "email": "ann@hospital", "email_verified": True}
        through(client, provider)
        assert who(client) == "ann@hospital"


@pytest.mark.parametrize("name", [None, "", 5, ["ann"], {"ann": 1}])
def test_without_a_name_nobody_is_known(
    attacked: tuple[WebUnderTest, Provider], name: object
) -> None:
    page, provider = attacked
    provider.user = {"sub": "7", "preferred_username": name}
    assert "gives no name" in told(through(browser(page), provider))
