"""The study of ``support.viewed_study``, in the application and behind a port."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser
from support.browser import chromium, served
from support.viewed_study import ViewedStudy, place_study
from support.viewer_page import ViewerPage, add_page
from support.web import set_environment, web_app

from csfd_core.web.viewer import api


@pytest.fixture
def viewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ViewedStudy]:
    set_environment(tmp_path, monkeypatch)
    monkeypatch.setattr(api, "is_blind", lambda *_: False)
    stores, hounsfield = place_study(tmp_path)
    with web_app(tmp_path, monkeypatch) as web:
        yield ViewedStudy(web, stores, hounsfield)


@pytest.fixture
def address(viewed: ViewedStudy) -> Iterator[str]:
    """The same application behind a real port, for a real browser."""
    with served(viewed.web.app) as found:
        yield found


# Not for the session: its loop runs in this thread, where others want their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def screen() -> dict[str, Any]:
    """What the page is shown on."""
    return {"viewport": {"width": 1280, "height": 900}}


@pytest.fixture
def page(
    browser: Browser, viewed: ViewedStudy, address: str, screen: dict[str, Any]
) -> Iterator[ViewerPage]:
    """A page with the viewer alone; afterwards it must have had nothing to complain."""
    add_page(viewed.web.app)
    context = browser.new_context(**screen)
    cookie = next(one for one in viewed.web.client.cookies.jar if one.name == "csfd")
    context.add_cookies([{"name": "csfd", "value": cookie.value or "", "url": address}])
    opened = ViewerPage(context.new_page(), address)
    yield opened
    opened.page.wait_for_timeout(50)
    context.close()
    assert opened.complaints == []
    assert {url.split("/api")[0].split("/static")[0] for url in opened.asked} <= {
        address,
        f"{address}/try",
    }
