"""What an attacker would try on the way to an OpenID Connect provider, and back."""

import logging
import re
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import sqlalchemy as sa
from support.oidc import CLIENT, SECRET, Provider, base64url
from support.oidc_page import (
    NOT_BEGUN,
    OTHERS,
    REFUSED,
    UNPROVEN,
    begin,
    browser,
    entries,
    through,
    told,
    who,
)
from support.web import ADDRESS, WebUnderTest, signed_in, web_app

from csfd_core.settings import WebSettings
from csfd_core.web.audit import Action
from csfd_core.web.database import addresses
from csfd_core.web.security.sessions import CSRF_HEADER
from csfd_core.web.security.users import Role, add_user


def test_who_signs_in_at_the_provider_is_signed_in_here(
    page: WebUnderTest, provider: Provider
) -> None:
    client = browser(page)
    answer = through(client, provider, "/studies/1.2.3")
    assert (answer.status_code, answer.headers["location"]) == (303, "/studies/1.2.3")
    assert who(client) == "ann"
    assert entries(page) == [
        (Action.ACCOUNT_BOUND, None, "2"),
        (Action.SIGNED_IN, 2, ""),
    ]
    again = browser(page)
    through(again, provider)
    assert who(again) == "ann"
    assert entries(page)[2:] == [(Action.SIGNED_IN, 2, "")]


def test_the_request_binds_the_answer_to_this_browser(
    page: WebUnderTest, provider: Provider
) -> None:
    first, second = browser(page), browser(page)
    asked = [parse_qs(urlsplit(begin(one)).query) for one in (first, second)]
    for name in ("state", "nonce", "code_challenge"):
        values = {query[name][0] for query in asked}
        assert len(values) == 2
        assert all(len(value) >= 43 for value in values)
    assert asked[0]["redirect_uri"] == [f"{ADDRESS}/sign-in/oidc/back"]
    cookie = first.get("/sign-in/oidc").headers["set-cookie"].lower()
    for word in ("httponly", "samesite=lax", "max-age=600", "path=/"):
        assert word in cookie
    held = str(first.cookies["csfd-oidc"])
    assert asked[0]["state"][0] not in held
    assert base64url(asked[0]["nonce"][0].encode()) not in held


@pytest.mark.parametrize("state", ["", "x", None])
def test_a_wrong_state_is_refused_before_the_provider_is_asked(
    page: WebUnderTest, provider: Provider, state: str | None
) -> None:
    client, other = browser(page), browser(page)
    back = provider.authorize(begin(client))
    right = parse_qs(urlsplit(back).query)["state"][0]
    wrong = parse_qs(urlsplit(begin(other)).query)["state"][0]
    changed = wrong if state is None else state
    assert NOT_BEGUN in told(client.get(back.replace(right, changed)))
    assert "/token" not in provider.asked
    assert entries(page) == []  # nobody's sign-in has failed
    assert client.get(back).status_code == 303  # which nobody could disturb


def test_a_link_from_an_attacker_signs_nobody_in(
    page: WebUnderTest, provider: Provider
) -> None:
    back = provider.authorize(begin(browser(page)))
    victim = browser(page)
    assert NOT_BEGUN in told(victim.get(back))
    begin(victim)  # with a cookie, of another attempt
    assert NOT_BEGUN in told(victim.get(back))
    victim.cookies.set("csfd-oidc", "gAAAAA-forged")
    assert NOT_BEGUN in told(victim.get(back))
    assert "/token" not in provider.asked
    assert who(victim) is None


def test_an_answer_is_taken_once(page: WebUnderTest, provider: Provider) -> None:
    client = browser(page)
    location = begin(client)
    cookie = client.cookies["csfd-oidc"]
    back = provider.authorize(location)
    assert client.get(back).status_code == 303
    assert "csfd-oidc" not in client.cookies
    stolen = browser(page)
    stolen.cookies.set("csfd-oidc", cookie)
    assert NOT_BEGUN in told(stolen.get(back))
    assert NOT_BEGUN in told(stolen.get(provider.authorize(location)))  # a new code
    assert provider.asked.count("/token") == 1
    assert who(stolen) is None


def test_a_code_is_of_use_once(page: WebUnderTest, provider: Provider) -> None:
    client = browser(page)
    back = provider.authorize(begin(client))
    provider.codes.clear()  # somebody else has used it
    assert REFUSED in told(client.get(back))
    assert who(client) is None


def test_an_attempt_ends_after_ten_minutes_though_its_cookie_is_kept(
    page: WebUnderTest, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, keeper = browser(page), browser(page)
    back = provider.authorize(begin(client))
    keeper.cookies.set("csfd-oidc", client.cookies["csfd-oidc"])
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 602)
    assert NOT_BEGUN in told(keeper.get(back))
    assert "/token" not in provider.asked


@pytest.mark.parametrize(("checks_pkce", "sentence"), [(1, REFUSED), (0, UNPROVEN)])
def test_a_stolen_code_is_of_no_use_in_an_attempt_of_the_thief(
    page: WebUnderTest, provider: Provider, checks_pkce: bool, sentence: str
) -> None:
    provider.checks_pkce = checks_pkce  # without it the nonce still tells
    stolen = provider.authorize(begin(browser(page)))
    thief = browser(page)
    state = parse_qs(urlsplit(begin(thief)).query)["state"][0]
    code = parse_qs(urlsplit(stolen).query)["code"][0]
    answer = thief.get("/sign-in/oidc/back", params={"state": state, "code": code})
    assert sentence in told(answer)
    assert who(thief) is None


@pytest.mark.parametrize(
    "to",
    [
        "https://evil.example/", "//evil.example", "/\\evil.example", "///evil.example",
        "/\t/evil.example", "javascript:alert(1)", "", "/" + "x" * 500,
    ],
)  # fmt: skip
def test_the_way_back_leads_to_this_site_alone(
    attacked: tuple[WebUnderTest, Provider], to: str
) -> None:
    page, provider = attacked
    client = browser(page)
    assert through(client, provider, to).headers["location"] == "/"
    assert client.get("/sign-in/oidc", params={"to": to}).headers["location"] == "/"


def test_who_goes_back_at_the_provider_is_told_so(
    page: WebUnderTest, provider: Provider
) -> None:
    client = browser(page)
    back = provider.authorize(begin(client), error="access_denied<b>")
    answer = client.get(back)
    assert REFUSED in told(answer)
    assert "<b>" not in answer.text
    assert "/token" not in provider.asked
    assert entries(page) == [(Action.SIGN_IN_FAILED, None, "")]


def test_an_answer_that_names_another_provider_is_refused(
    page: WebUnderTest, provider: Provider
) -> None:
    client = browser(page)
    back = provider.authorize(begin(client), iss=OTHERS)
    assert UNPROVEN in told(client.get(back))
    back = provider.authorize(begin(client), iss=provider.issuer)
    assert client.get(back).status_code == 303


def test_a_provider_that_always_names_itself_must_do_so(
    page: WebUnderTest, provider: Provider
) -> None:
    provider.document = {"authorization_response_iss_parameter_supported": True}
    assert UNPROVEN in told(through(browser(page), provider))


def test_after_twenty_failures_an_address_waits_and_passwords_do_not(
    page: WebUnderTest, provider: Provider
) -> None:
    provider.said = {"nonce": "guessed"}
    client = browser(page)
    for _ in range(20):
        assert UNPROVEN in told(through(client, provider))
    provider.said, asked = {}, provider.asked.count("/token")
    assert "Too many attempts." in told(through(client, provider))
    assert provider.asked.count("/token") == asked
    assert signed_in(page.app, "admin").get("/").status_code == 200
    with page.services.database.transaction() as connection:
        connection.execute(addresses.update().values(locked_until=0.0))
    through(client, provider)
    assert who(client) == "ann"
    with page.services.database.transaction() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(addresses)) == 0


def test_nothing_that_is_secret_or_names_somebody_is_logged(
    page: WebUnderTest, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client, secrets = browser(page), [SECRET, CLIENT, "248-ann", "mallory", "admin"]
    for said in ({}, {"aud": "mallory"}, {"preferred_username": "mallory"}):
        provider.said = said
        location = begin(client)
        query = parse_qs(urlsplit(location).query)
        secrets += [query[name][0] for name in ("state", "nonce", "code_challenge")]
        secrets.append(client.cookies["csfd-oidc"])
        back = provider.authorize(location)
        secrets += provider.codes
        client.get(back)
        client.cookies.clear()
    secrets += [part for token in provider.tokens for part in token.split(".")[1:]]
    ours = [one for one in caplog.records if one.name.startswith("csfd")]
    assert any("audience of an ID token" in one.getMessage() for one in ours)
    text = "\n".join(f"{one.getMessage()} {one.exc_info}" for one in ours)
    assert [secret for secret in secrets if secret in text] == []


def test_other_machines_need_https(page: WebUnderTest, provider: Provider) -> None:
    for address in ("http://reader.hospital", "http://127.0.0.1.evil.example"):
        answer = browser(page, address).get("/sign-in/oidc")
        assert "needs https" in told(answer)
        assert "set-cookie" not in answer.headers
    location = begin(browser(page, "https://reader.hospital"))
    back = parse_qs(urlsplit(location).query)["redirect_uri"]
    assert back == ["https://reader.hospital/sign-in/oidc/back"]
    for host in ("", "evil.example/x", "a@evil.example", "evil.example?", "[", "a b"):
        client = browser(page, "https://reader.hospital")
        answer = client.get("/sign-in/oidc", headers={"Host": host})
        assert (host, answer.status_code) == (host, 503)


def test_behind_tls_the_cookie_goes_through_it_alone(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSFD_OIDC_ADDRESS", "https://csfd.hospital/")
    with web_app(tmp_path, monkeypatch) as page:
        object.__setattr__(page.services, "web", WebSettings.read(behind_tls=True))
        with page.services.database.transaction() as connection:
            add_user(connection, None, "ann", None, Role.READER)
        client = browser(page, "https://csfd.hospital")
        answer = client.get("/sign-in/oidc", headers={"Host": "evil.example"})
        query = parse_qs(urlsplit(answer.headers["location"]).query)
        assert query["redirect_uri"] == ["https://csfd.hospital/sign-in/oidc/back"]
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-csfd-oidc=")
        assert "secure" in cookie.lower()
        through(client, provider)
        assert who(client) == "ann"


def test_the_entrance_shows_the_way_and_keeps_its_policy(
    page: WebUnderTest, provider: Provider
) -> None:
    answer = browser(page).get("/sign-in", params={"to": "/studies/1.2.3"})
    link = re.search(r'<a class="button" href="([^"]+)">([^<]+)</a>', answer.text)
    assert link is not None
    assert link[1] == "/sign-in/oidc?to=/studies/1.2.3"
    assert link[2] == f"Sign in with 127.0.0.1:{provider.port}"
    for path in ("/sign-in", "/sign-in/oidc", "/sign-in/oidc/back"):
        headers = browser(page).get(path).headers
        assert "form-action 'self'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"


def test_signing_out_ends_the_session_here(
    page: WebUnderTest, provider: Provider
) -> None:
    client = browser(page)
    through(client, provider)
    text = client.get("/account").text
    csrf = text.split('name="csrf" content="')[1].split('"')[0]
    assert client.post("/sign-out", data={"csrf": csrf}).status_code == 303
    assert who(client) is None


def test_without_a_provider_there_is_no_such_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with web_app(tmp_path, monkeypatch) as page:
        assert "/sign-in/oidc" not in browser(page).get("/sign-in").text
        for path in ("/sign-in/oidc", "/sign-in/oidc/back?state=x&code=y"):
            answer = browser(page).get(path)
            assert answer.status_code == 303
            assert answer.headers["location"].startswith("/sign-in?to=/")
        csrf = page.client.headers[CSRF_HEADER]
        form = {"name": "ben", "password": "", "role": Role.READER, "csrf": csrf}
        assert page.client.post("/admin/users", data=form).status_code == 422
