"""What an attacker would try on the way to an OpenID Connect provider, and back."""

import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives import hashes
from httpx2 import Response
from starlette.testclient import TestClient
from support.oidc import (
    CLIENT,
    SECRET,
    Provider,
    Signer,
    base64url,
    ec_jwk,
    ec_signer,
    hmac_signer,
    public_pem,
    rsa_jwk,
    rsa_signer,
    served_provider,
    token_of,
)
from support.web import (
    ADDRESS,
    PASSWORD,
    WebUnderTest,
    set_environment,
    signed_in,
    web_app,
)

from csfd_core.errors import SettingsError
from csfd_core.settings import OidcSettings, Settings, WebSettings
from csfd_core.web.audit import Action, verify
from csfd_core.web.database import addresses, audit, users
from csfd_core.web.security.oidc.asking import ProviderError
from csfd_core.web.security.oidc.provider import open_provider
from csfd_core.web.security.sessions import CSRF_HEADER
from csfd_core.web.security.users import Role, add_user, change_user
from csfd_dagster.serving import look_before

UNPROVEN = "cannot be believed"
CLOCK = "clock"
NOT_BEGUN = "not begun in this browser"
REFUSED = "has refused"
UNREACHABLE = "cannot be reached"


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    with served_provider() as served:
        for name, value in settings_of(served).items():
            monkeypatch.setenv(name, value)
        yield served


@pytest.fixture
def page(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WebUnderTest]:
    """The page, with a reader ann who has no password, and who is number 2."""
    with web_app(tmp_path, monkeypatch) as opened:
        with opened.services.database.transaction() as connection:
            add_user(connection, None, "ann", None, Role.READER)
        yield opened


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[WebUnderTest, Provider]]:
    """A page that keeps nothing of an attempt that fails."""
    home = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch, served_provider() as served:
        for name, value in settings_of(served).items():
            patch.setenv(name, value)
        with web_app(home, patch) as opened:
            with opened.services.database.transaction() as connection:
                add_user(connection, None, "ann", None, Role.READER)
            patch.undo()  # what others of this file set is theirs
            yield opened, served


@pytest.fixture
def attacked(
    shared: tuple[WebUnderTest, Provider], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[WebUnderTest, Provider]]:
    """The page and its provider, which tells the truth again afterwards."""
    opened, served = shared
    set_environment(Path(opened.services.settings.home), monkeypatch)
    with opened.services.database.transaction() as connection:
        connection.execute(addresses.delete())
    yield shared
    fresh = Provider(served.port)
    for one in fields(Provider):
        setattr(served, one.name, getattr(fresh, one.name))


def settings_of(served: Provider) -> dict[str, str]:
    return {
        "CSFD_OIDC_ISSUER": served.issuer,
        "CSFD_OIDC_CLIENT_ID": CLIENT,
        "CSFD_OIDC_CLIENT_SECRET": SECRET,
    }


def browser(page: WebUnderTest, address: str = ADDRESS) -> TestClient:
    return TestClient(page.app, base_url=address, follow_redirects=False)


def begin(client: TestClient, to: str = "/") -> str:
    answer = client.get("/sign-in/oidc", params={"to": to})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def through(client: TestClient, provider: Provider, to: str = "/") -> Response:
    return client.get(provider.authorize(begin(client, to)))


def told(answer: Response) -> str:
    assert answer.status_code in (403, 503), answer.status_code
    assert "set-cookie" not in answer.headers or "-oidc" in answer.headers["set-cookie"]
    found = re.search(r'role="alert">([^<]+)<', answer.text)
    assert found is not None
    return found[1]


def who(client: TestClient) -> str | None:
    answer = client.get("/api/v1/me")
    return None if answer.status_code == 401 else answer.json()["name"]


def entries(page: WebUnderTest) -> list[tuple[str, int | None, str]]:
    """Return what was audited since ann was added."""
    with page.services.database.transaction() as connection:
        rows = connection.execute(sa.select(audit).order_by(audit.c.number)).all()
    assert verify(page.services.database)[1] is None
    return [(row.action, row.user_id, row.subject) for row in rows][3:]


def names(page: WebUnderTest) -> list[str]:
    with page.services.database.transaction() as connection:
        return list(connection.scalars(sa.select(users.c.name).order_by("id")))


def set_active(page: WebUnderTest, user_id: int, *, is_active: bool) -> None:
    with page.services.database.transaction() as connection:
        change_user(connection, 1, user_id, role=Role.READER, is_active=is_active)


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


OTHERS = "https://other.example"


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"nonce": "another"}, UNPROVEN),
        ({"nonce": None}, UNPROVEN),
        ({"iss": OTHERS}, UNPROVEN),
        ({"iss": None}, UNPROVEN),
        ({"aud": "another page"}, UNPROVEN),
        ({"aud": ["another page"]}, UNPROVEN),
        ({"aud": None}, UNPROVEN),
        ({"aud": {CLIENT: 1}}, UNPROVEN),
        ({"aud": [CLIENT, "another page"]}, UNPROVEN),
        ({"aud": [CLIENT, "another page"], "azp": "another page"}, UNPROVEN),
        ({"azp": "another page"}, UNPROVEN),
        ({"exp": timedelta(seconds=-120)}, CLOCK),
        ({"exp": None}, UNPROVEN),
        ({"exp": float("nan")}, UNPROVEN),
        ({"exp": float("inf")}, UNPROVEN),
        ({"exp": True}, UNPROVEN),
        ({"exp": "9999999999"}, UNPROVEN),
        ({"iat": timedelta(seconds=600)}, CLOCK),
        ({"iat": timedelta(seconds=-3600)}, CLOCK),
        ({"iat": None}, UNPROVEN),
        ({"nbf": timedelta(seconds=600)}, CLOCK),
        ({"sub": None}, UNPROVEN),
        ({"sub": ""}, UNPROVEN),
        ({"sub": 248}, UNPROVEN),
        ({"sub": "x" * 256}, UNPROVEN),
    ],
)
def test_a_token_that_says_something_else_is_refused(
    attacked: tuple[WebUnderTest, Provider], said: dict[str, Any], sentence: str
) -> None:
    page, provider = attacked
    provider.said = said
    client = browser(page)
    assert sentence in told(through(client, provider))
    assert len(provider.tokens) == 1
    assert who(client) is None
    assert entries(page)[-1] == (Action.SIGN_IN_FAILED, None, "")


@pytest.mark.parametrize(
    "said",
    [
        {"aud": [CLIENT]},
        {"aud": [CLIENT, "another page"], "azp": CLIENT},
        {"exp": timedelta(seconds=0.5)},
        {
            "iat": timedelta(seconds=30),
            "exp": timedelta(seconds=31),
        },  # clocks differ a little
    ],
)
def test_a_token_that_says_enough_is_accepted(
    attacked: tuple[WebUnderTest, Provider], said: dict[str, Any]
) -> None:
    page, provider = attacked
    provider.said = said
    client = browser(page)
    through(client, provider)
    assert who(client) == "ann"


FORGERIES: dict[str, tuple[dict[str, Any], Callable[[], Signer]]] = {
    "none": ({"alg": "none"}, lambda: lambda _: b""),
    "None": ({"alg": "None", "kid": "one"}, lambda: lambda _: b""),
    "no alg": ({"kid": "one"}, lambda: rsa_signer(1)),
    "HS256 with the public key": (
        {"alg": "HS256", "kid": "one"},
        lambda: hmac_signer(public_pem(1)),
    ),
    "HS256 with n of the key": (
        {"alg": "HS256", "kid": "one"},
        lambda: hmac_signer(rsa_jwk(1, "one")["n"].encode()),
    ),
    "HS256 with the secret": (
        {"alg": "HS256", "kid": "one"},
        lambda: hmac_signer(SECRET.encode()),
    ),
    "RS512": ({"alg": "RS512", "kid": "one"}, lambda: rsa_signer(1, hashes.SHA512())),
    "another key": ({"alg": "RS256", "kid": "one"}, lambda: rsa_signer(2)),
    "its own key": (
        {"alg": "RS256", "kid": "two", "jwk": rsa_jwk(2, "two")},
        lambda: rsa_signer(2),
    ),
    "a key elsewhere": (
        {"alg": "RS256", "kid": "two", "jku": f"{OTHERS}/keys"},
        lambda: rsa_signer(2),
    ),
    "unknown key": ({"alg": "RS256", "kid": "../one"}, lambda: rsa_signer(1)),
    "critical": (
        {"alg": "RS256", "kid": "one", "crit": ["x"], "x": 1},
        lambda: rsa_signer(1),
    ),
    "no signature": ({"alg": "RS256", "kid": "one"}, lambda: lambda _: b""),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_token_that_the_provider_has_not_signed_is_refused(
    attacked: tuple[WebUnderTest, Provider], forgery: str
) -> None:
    page, provider = attacked
    provider.header, signer = FORGERIES[forgery]
    provider.sign = signer()
    client = browser(page)
    assert UNPROVEN in told(through(client, provider))
    assert len(provider.tokens) == 1
    assert who(client) is None


@pytest.mark.parametrize(
    "token",
    ["", "a.b", "a.b.c", "ä.ö.ü", "." * 3, "e30.e30.", "x" * 200_000, "[" * 5000],
)
def test_what_is_no_token_is_refused(
    attacked: tuple[WebUnderTest, Provider], token: str
) -> None:
    page, provider = attacked
    body = json.dumps({"id_token": token}).encode()
    provider.answers["/token"] = (200, {}, body)
    client = browser(page)
    assert UNPROVEN in told(through(client, provider))


def test_a_token_of_which_a_letter_was_changed_is_refused(
    page: WebUnderTest, provider: Provider
) -> None:
    client = browser(page)
    back = provider.authorize(begin(client))
    nonce = next(iter(provider.codes.values()))["nonce"]
    header, _, signature = token_of(
        provider.header, provider.claims(nonce), provider.sign
    ).split(".")
    changed = {**provider.claims(nonce), "preferred_username": "admin"}
    payload = base64url(json.dumps(changed).encode())
    body = json.dumps({"id_token": f"{header}.{payload}.{signature}"}).encode()
    provider.answers["/token"] = (200, {}, body)
    assert UNPROVEN in told(client.get(back))


def test_keys_may_change_at_any_time(page: WebUnderTest, provider: Provider) -> None:
    through(browser(page), provider)
    provider.keys, provider.sign = [rsa_jwk(2, "one")], rsa_signer(2)  # the same name
    client = browser(page)
    through(client, provider)
    assert who(client) == "ann"
    provider.keys = ["x", {}, {"kty": "OKP"}, {"kty": "RSA"}, ec_jwk(1, "three")]
    provider.header, provider.sign = {"alg": "ES256", "kid": "three"}, ec_signer(1)
    client = browser(page)
    through(client, provider)
    assert who(client) == "ann"


def test_a_key_that_was_taken_back_proves_nothing_any_more(
    page: WebUnderTest, provider: Provider
) -> None:
    through(browser(page), provider)
    provider.keys = [rsa_jwk(2, "two")]
    client = browser(page)
    assert UNPROVEN in told(through(client, provider))
    provider.keys = []
    assert UNPROVEN in told(through(client, provider))


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


def test_without_the_provider_passwords_still_open(
    page: WebUnderTest, provider: Provider
) -> None:
    client = browser(page)
    back = provider.authorize(begin(client))
    for path in ("/token", "/keys"):
        provider.answers[path] = (503, {}, b"")
        assert UNREACHABLE in told(client.get(back))
        del provider.answers[path]
        back = provider.authorize(begin(client))
    assert entries(page) == []  # nobody here is to blame
    page.app.state.provider = open_provider(
        OidcSettings.read(issuer="http://127.0.0.1:9")
    )
    assert UNREACHABLE in told(client.get("/sign-in/oidc"))
    assert signed_in(page.app, "admin").get("/").status_code == 200


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": OTHERS},
        {"issuer": None},
        {"token_endpoint": "http://other.example/token"},
        {"jwks_uri": "file:///etc/passwd"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": None},
        {"token_endpoint": ["https://other.example"]},
        {"jwks_uri": "https://"},
        {"jwks_uri": "https://[/"},
    ],
)
def test_a_provider_that_leads_elsewhere_is_not_followed(
    provider: Provider, document: dict[str, object]
) -> None:
    asking = open_provider(OidcSettings.read())
    assert asking is not None
    provider.document = document
    with pytest.raises(ProviderError, match="OpenID Connect"):
        asking.endpoints()
    with pytest.raises(SettingsError, match="another issuer, or places without https"):
        asking.require_usable()


@pytest.mark.parametrize("path", ["/token", "/keys"])
def test_code_and_secret_go_along_no_redirect(
    page: WebUnderTest, provider: Provider, path: str
) -> None:
    with served_provider() as thief:
        for status in (302, 307, 308):
            elsewhere = {"Location": f"{thief.issuer}{path}"}
            provider.answers[path] = (status, elsewhere, b"{}")
            answer = through(browser(page), provider)
            assert answer.status_code in (403, 503)
        assert thief.asked == []


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b"[" * 100_000, b"x" * 2**21])
def test_an_answer_that_is_none_is_refused(
    attacked: tuple[WebUnderTest, Provider], body: bytes
) -> None:
    page, provider = attacked
    provider.answers["/token"] = (200, {}, body)
    assert "OpenID Connect" in told(through(browser(page), provider))


def test_a_wrong_secret_is_told_as_a_fault_of_the_settings(
    page: WebUnderTest, provider: Provider
) -> None:
    given = {"client_secret": "wrong"}
    page.app.state.provider = open_provider(OidcSettings.read(**given))
    assert "registered there otherwise" in told(through(browser(page), provider))


def test_the_secret_goes_into_the_form_where_the_provider_wants_it(
    page: WebUnderTest, provider: Provider
) -> None:
    ways = ["client_secret_post"]
    provider.document = {"token_endpoint_auth_methods_supported": ways}
    client = browser(page)
    through(client, provider)
    assert who(client) == "ann"


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


@pytest.mark.parametrize("missing", ["ISSUER", "CLIENT_ID", "CLIENT_SECRET"])
def test_settings_by_half_are_refused(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.delenv(f"CSFD_OIDC_{missing}")
    with pytest.raises(SettingsError, match=f"CSFD_OIDC_{missing} is missing"):
        open_provider(OidcSettings.read())


@pytest.mark.parametrize("name", ["issuer", "address"])
def test_a_provider_that_others_read_along_with_is_refused(
    provider: Provider, name: str
) -> None:
    with pytest.raises(SettingsError, match="https://, unless it is this machine"):
        open_provider(OidcSettings.read(**{name: "http://login.hospital"}))


def test_check_tells_what_is_wrong_before_the_start(
    page: WebUnderTest, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> list[str]:
        remarks = look_before(Settings.read(), WebSettings.read())
        return [one.text for one in remarks if "OpenID" in one.text and one.is_fault]

    assert found() == []
    provider.answers["/.well-known/openid-configuration"] = (500, {}, b"")
    (text,) = found()
    assert f"{provider.issuer}/.well-known/openid-configuration cannot be" in text
    assert "the network" in text
    monkeypatch.delenv("CSFD_OIDC_CLIENT_ID")
    (text,) = found()
    assert "CSFD_OIDC_CLIENT_ID is missing" in text
    assert SECRET not in text
