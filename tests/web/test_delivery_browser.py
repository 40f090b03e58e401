"""Peers and results in a real browser: an archive is added, and results go to it."""

import threading
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from support.browser import NEEDS_CHROMIUM, Watched, chromium, served
from support.delivered import CLASSES, StorePeer, bring_study, set_vault, store_peer
from support.web import WebUnderTest

from csfd_core.network.outbox import Outbox

pytestmark = [pytest.mark.slow, NEEDS_CHROMIUM]


@pytest.fixture
def peer() -> Iterator[StorePeer]:
    with store_peer(CLASSES) as opened:
        yield opened


@pytest.fixture
def uid(web: WebUnderTest, monkeypatch: pytest.MonkeyPatch) -> str:
    set_vault(monkeypatch)
    monkeypatch.setattr("csfd_core.web.review.blind.is_locked", lambda *_: False)
    return bring_study(web.services)


@pytest.fixture
def node(web: WebUnderTest, uid: str) -> Iterator[None]:
    """What ``csfd receive`` does for the outbox."""
    ended = threading.Event()
    outbox = Outbox(web.services, connect_s=20)

    def work() -> None:
        while not ended.wait(0.2):
            outbox.work_once()
        outbox.close()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    ended.set()
    thread.join(30)


def test_an_archive_is_added_asked_and_sent_to(
    web: WebUnderTest, uid: str, peer: StorePeer, node: None
) -> None:
    with served(web.app) as address, chromium() as browser:
        watched = Watched(browser.new_page(), address)
        page = watched.sign_in()
        page.goto(f"{address}/admin/peers")
        form = page.locator("form", has=page.locator("input[name=ae_title]"))
        form.locator("input[name=name]").fill("archive")
        form.locator("input[name=ae_title]").fill(peer.endpoint.ae_title)
        form.locator("input[name=host]").fill(peer.endpoint.host)
        form.locator("input[name=port]").fill(str(peer.endpoint.port))
        form.get_by_role("button", name="Add").click()
        page.get_by_role("button", name="Ask whether archive answers").click()
        expect(page.get_by_text("It answers.")).to_be_visible(timeout=20_000)
        assert _violations(watched) == []

        page.goto(f"{address}/studies/{uid}")
        results = page.locator("#results")
        results.get_by_role("button", name="Send").click()
        expect(results.locator(".badge.good")).to_have_text("sent", timeout=30_000)
        expect(results.locator("td.told")).to_have_text("4 objects stored.")
        assert _violations(watched) == []
        with page.expect_download() as download:
            results.get_by_role("link", name="Findings (SR)").click()
        assert download.value.suggested_filename == f"{uid}_sr.dcm"
        assert watched.complaints == []
        assert watched.elsewhere == []
    assert len(peer.received) == 4


def _violations(watched: Watched) -> list[str]:
    """Return what hinders readers with a disability, in either colour scheme."""
    told = []
    for scheme in ("light", "dark"):
        watched.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        found = Axe().run(watched.page).response["violations"]
        told += [f"{scheme}: {one['id']}: {one['help']}" for one in found]
    return told
