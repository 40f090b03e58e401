"""A provider that misbehaves, and settings that make none."""

import pytest
from support.oidc import SECRET, Provider, served_provider
from support.oidc_page import (
    OTHERS,
    UNREACHABLE,
    begin,
    browser,
    entries,
    through,
    told,
    who,
)
from support.web import WebUnderTest, signed_in

from csfd_core.errors import SettingsError
from csfd_core.settings import OidcSettings, Settings, WebSettings
from csfd_core.web.security.oidc.asking import ProviderError
from csfd_core.web.security.oidc.provider import open_provider
from csfd_dagster.serving import look_before


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
