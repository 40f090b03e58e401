"""The study of ``support.viewed_study``, in the application and behind a port."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Error, sync_playwright
from support.viewed_study import ViewedStudy, place_study
from support.viewer_page import CHROMIUM, ViewerPage, add_page
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = uvicorn.Config(
        viewed.web.app, host="127.0.0.1", port=port, log_level="error", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started and time.monotonic() < until:
        time.sleep(0.02)
    assert server.started
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        try:
            opened = playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox"]
            )
        except Error as error:
            pytest.skip(f"Chromium cannot be started: {str(error).splitlines()[0]}")
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser, viewed: ViewedStudy, address: str) -> Iterator[ViewerPage]:
    """A page with the viewer alone; afterwards it must have had nothing to complain."""
    add_page(viewed.web.app)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
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
