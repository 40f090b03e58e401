"""The way to the provider and back in a real browser, from one site to another."""

from pathlib import Path

import pytest
from support.browser import NEEDS_CHROMIUM, Watched, chromium, served
from support.oidc import CLIENT, SECRET, served_provider
from support.web import web_app

from csfd_core.web.security.users import Role, add_user


@pytest.mark.slow
@NEEDS_CHROMIUM
def test_a_browser_comes_back_signed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served_provider() as provider:
        provider.host = "localhost"
        monkeypatch.setenv("CSFD_OIDC_ISSUER", provider.issuer)
        monkeypatch.setenv("CSFD_OIDC_CLIENT_ID", CLIENT)
        monkeypatch.setenv("CSFD_OIDC_CLIENT_SECRET", SECRET)
        with (
            web_app(tmp_path, monkeypatch) as web,
            served(web.app) as address,
            chromium() as browser,
        ):
            with web.services.database.transaction() as connection:
                add_user(connection, None, "ann", None, Role.READER)
            watched = Watched(browser.new_page(), address)
            page = watched.page
            page.goto(f"{address}/upload")
            assert page.url == f"{address}/sign-in?to=/upload"
            page.click(f"text=Sign in with localhost:{provider.port}")
            page.wait_for_url(f"{address}/upload")
            assert page.inner_text("form.account a") == "ann"
            held = {one["name"]: one for one in page.context.cookies(address)}
            assert set(held) == {"csfd"}
            assert held["csfd"]["httpOnly"]
            page.click("text=Sign out")
            page.wait_for_url(f"{address}/sign-in")
            assert watched.complaints == []
            other = browser.new_page()  # of an attacker, with a link of theirs
            state = provider.authorize(
                f"{provider.issuer}/authorize?theme=dark&response_type=code&client_id="
                "csfd+page&scope=openid&code_challenge_method=S256&state=x&redirect_uri="
                f"{address}/sign-in/oidc/back"
            )
            other.goto(state)
            assert "not begun in this browser" in other.inner_text("[role=alert]")
