"""The reader's panel in a browser: keys, boxes, drafts that survive, what is shown."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from support.browser import NEEDS_CHROMIUM, Watched, chromium, served
from support.dicom_studies import STUDY_UID
from support.reviews import API, add_study, sign
from support.web import PASSWORD, WebUnderTest

from csfd_core.store.labels import read_all_boxes, read_all_labels
from csfd_core.vocabulary import LEVEL_NAMES
from csfd_core.web.database import sessions

HOSTILE = '<img src=x onerror="document.title=1">'

pytestmark = [
    pytest.mark.slow,
    NEEDS_CHROMIUM,
]


@contextmanager
def opened(web: WebUnderTest, name: str) -> Iterator[tuple[Page, list[str]]]:
    """Open the study as a reader; yield the page, and what its console complains of."""
    with served(web.app) as address, chromium() as browser:
        watched = Watched(
            browser.new_page(viewport={"width": 1600, "height": 1000}), address
        )
        page, complaints = watched.page, watched.complaints
        page.goto(f"{address}/sign-in?to=/studies/{STUDY_UID}")
        page.fill("input[name=name]", name)
        page.fill("input[name=password]", PASSWORD)
        page.click("button.primary")
        expect(page.locator("#review [data-place=standing]")).to_have_text(
            re.compile("signed by you"), timeout=30_000
        )
        yield page, complaints


def row(page: Page, level: str) -> Any:
    return page.locator(f"#review .level[data-level={level}]")


def answer_of(page: Page, level: str) -> str | None:
    checked = row(page, level).locator("[aria-checked=true]")
    return checked.get_attribute("data-answer") if checked.count() else None


def draw_box(page: Page) -> None:
    """Draw around the middle of the axial plane."""
    axial = page.locator(".pane[data-plane=axial]").bounding_box()
    assert axial is not None
    x, y = axial["x"] + axial["width"] / 2, axial["y"] + axial["height"] / 2
    page.mouse.move(x - 40, y - 30)
    page.mouse.down()
    page.mouse.move(x, y, steps=5)
    page.mouse.move(x + 40, y + 30, steps=5)
    page.mouse.up()


def serious_findings(page: Page) -> list[str]:
    """Return what axe finds serious in the panel."""
    found = Axe().run(page, context="#review")
    return [
        f"{one['id']}: {one['nodes'][0]['html']}"
        for one in found.response["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def drafts_kept(page: Page) -> list[str]:
    """Return what the browser keeps of drafts."""
    kept: dict[str, str] = page.evaluate("({...localStorage})")
    return [value for name, value in kept.items() if name.startswith("csfd:draft:")]


def test_a_review_from_keys_and_a_box_to_the_label_file(
    web: WebUnderTest, tmp_path: Path
) -> None:
    add_study(web)
    web.sign_in_as("reader")
    with opened(web, "reader") as (page, complaints):
        expect(row(page, "C4").locator(".words")).to_have_text(
            "0.82, above the operating point 0.31"
        )
        expect(row(page, "C7").locator(".words")).to_have_text(
            "not assessed: not found, or hardly in the scan"
        )
        assert serious_findings(page) == []
        for level in LEVEL_NAMES:
            row(page, level).locator("[data-do=go]").click()
            page.keyboard.press("u" if level == "C7" else "n")
        row(page, "C4").locator("[data-do=go]").click()
        page.keyboard.press("b")
        draw_box(page)
        boxes = page.locator("#review .boxes li")
        expect(boxes).to_have_count(1)
        assert answer_of(page, "C4") == "fractured"
        page.fill("#review textarea", HOSTILE)
        saved = page.locator("#review [data-place=saved]")
        expect(saved).to_have_text(re.compile("^saved "), timeout=10_000)
        page.keyboard.press("Control+Enter")
        dialog = page.locator("dialog.signing")
        expect(dialog).to_be_visible()
        assert serious_findings(page) == []
        expect(dialog).to_contain_text("C4: fractured")
        expect(dialog).to_contain_text("C7: not assessable")
        page.screenshot(path=str(tmp_path / "signing.png"))
        page.keyboard.press("Enter")
        history = page.locator("#review [data-place=history] li").first
        expect(history).to_contain_text("reader", timeout=10_000)
        page.locator("#review details.history summary").click()
        expect(page.locator("#review .remark")).to_have_text(HOSTILE)
        assert page.title() != "1"
        page.screenshot(path=str(tmp_path / "signed.png"))
        assert complaints == []
    table = read_all_labels([web.services.inbox]).table
    assert table.loc[STUDY_UID, "C4"] == 1
    assert table.loc[STUDY_UID, ["C1", "C2", "C3", "C5", "C6"]].eq(0).all()
    assert table["C7"].isna().all()
    (box,) = read_all_boxes([web.services.inbox]).table.to_dict("records")
    assert box["width"] > 2
    assert box["width"] / box["height"] == pytest.approx(80 / 60, rel=0.05)
    assert 0 <= box["x"] < box["x"] + box["width"] <= 64


def test_nothing_is_lost_when_the_session_ends(web: WebUnderTest) -> None:
    add_study(web)
    web.sign_in_as("reader")
    with opened(web, "reader") as (page, _):
        page.fill("#review textarea", "of the session before")
        saved = page.locator("#review [data-place=saved]")
        expect(saved).to_have_text(re.compile("^saved "), timeout=10_000)
        with web.services.database.transaction() as connection:
            connection.execute(sessions.delete())
        row(page, "C2").locator("[data-answer=fractured]").click()
        expect(saved).to_have_text(re.compile("kept in this browser"), timeout=10_000)
        (kept,) = drafts_kept(page)
        assert '"C2":"fractured"' in kept
        assert "of the session before" not in kept  # comments stay on the server
        page.goto(page.url)  # to sign in again
        page.fill("input[name=name]", "reader")
        page.fill("input[name=password]", PASSWORD)
        page.click("button.primary")
        offer = page.locator("#review [data-place=offer]")
        expect(offer).to_be_visible(timeout=30_000)
        expect(page.locator("#review textarea")).to_have_value("of the session before")
        assert answer_of(page, "C2") is None
        offer.locator("[data-do=take]").click()
        assert answer_of(page, "C2") == "fractured"
        expect(saved).to_have_text(re.compile("^saved "), timeout=10_000)
        until = time.monotonic() + 10
        while drafts_kept(page) and time.monotonic() < until:
            time.sleep(0.1)
        assert drafts_kept(page) == []


def test_who_reads_blind_sees_nothing_until_they_sign(web: WebUnderTest) -> None:
    add_study(web, locked=True)
    sign(web.client, comment="of the administrator")
    web.sign_in_as("reader")
    with opened(web, "reader") as (page, complaints):
        text = page.content()
        for secret in ("0.82", "of the administrator", "suspicious"):
            assert secret not in text
        expect(page.locator("#review [data-place=blind]")).to_be_visible()
        row(page, "C1").locator("[data-answer=fractured]").click()
        page.click("#review [data-do=sign]")
        page.click("dialog.signing [data-do=confirm]")
        expect(row(page, "C4").locator(".words")).to_have_text(
            "0.82, above the operating point 0.31", timeout=10_000
        )
        expect(page.locator(".head .verdict")).to_have_text("suspicious")
        expect(page.locator("#review [data-place=differ]")).to_have_text(
            "Readers differ on C1."
        )
        expect(row(page, "C1").locator("[data-place=others]")).to_have_text(
            "admin: not fractured"
        )
        assert complaints == []
    (mine,) = [
        review
        for review in web.client.get(f"{API}/review").json()["reviews"]
        if not review["is_mine"]
    ]
    assert mine["saw_ai"] is False


def sign_here(page: Page) -> None:
    page.click("#review [data-do=sign]")
    page.click("dialog.signing [data-do=confirm]")


def test_what_was_signed_stays_said_until_it_is_changed(web: WebUnderTest) -> None:
    add_study(web)
    web.sign_in_as("reader")
    with opened(web, "reader") as (page, complaints):
        outcome = page.locator("#review [data-place=outcome]")
        signs = page.locator("#review [data-do=sign]")
        discards = page.locator("#review [data-do=clear]")
        report = page.locator("#results [data-place=signed]")
        expect(discards).to_be_disabled()
        expect(report).to_be_hidden()
        row(page, "C2").locator("[data-answer=fractured]").click()
        expect(discards).to_be_enabled()
        sign_here(page)
        expect(outcome).to_have_text(
            re.compile(
                r"^Signed by reader, .+\. Its label file is in the inbox\. "
                r"It trains the next model\.$"
            ),
            timeout=10_000,
        )
        for button in (signs, discards):
            expect(button).to_be_disabled()
        expect(report).to_be_visible(timeout=10_000)  # without the page loaded again
        page.keyboard.press("Control+Enter")
        expect(page.locator("dialog.signing")).to_be_hidden()
        page.fill("#review textarea", "a correction")
        expect(outcome).to_contain_text("What you changed since is not signed.")
        for button in (signs, discards):
            expect(button).to_be_enabled()
        page.fill("#review textarea", "")
        expect(signs).to_be_disabled()
        sign(web.client)
        page.reload()
        expect(outcome).to_contain_text("admin has signed since: that review counts.")
        assert complaints == []


def test_a_review_of_the_locked_test_set_compares_models(web: WebUnderTest) -> None:
    add_study(web, locked=True)
    web.sign_in_as("reader")
    with opened(web, "reader") as (page, _):
        row(page, "C2").locator("[data-answer=fractured]").click()
        sign_here(page)
        expect(page.locator("#review [data-place=outcome]")).to_contain_text(
            "It compares models and trains none.", timeout=10_000
        )


@pytest.mark.parametrize("screen", [(1440, 900), (1280, 800)])
def test_what_ends_a_reading_is_always_in_sight(
    web: WebUnderTest, screen: tuple[int, int]
) -> None:
    add_study(web)
    web.sign_in_as("reader")
    with opened(web, "reader") as (page, complaints):
        page.set_viewport_size({"width": screen[0], "height": screen[1]})
        ends = ["#review [data-do=sign]", "#review [data-do=clear]"]
        ends.append("#review [data-do=box]")
        assert [is_seen(page, one) for one in ends] == [True] * 3
        page.focus("#review [data-do=sign]")
        assert page.evaluate("scrollY") == 0
        page.focus("#review textarea")
        assert is_seen(page, "#review textarea")  # not behind what ends a reading
        page.locator("#review .level[data-level=C7] [data-do=go]").focus()
        assert is_seen(page, "#review .level[data-level=C7] [data-do=go]")
        assert [is_seen(page, one) for one in ends] == [True] * 3
        assert is_seen(page, ".pane[data-plane=axial] canvas.over")
        assert complaints == []


def is_seen(page: Page, selector: str) -> bool:
    """Say whether something is on the screen from top to bottom, with nothing on it."""
    found: bool = page.evaluate(
        """(selector) => {
          const one = document.querySelector(selector);
          const { left, top, bottom, width } = one.getBoundingClientRect();
          return [top + 3, (top + bottom) / 2, bottom - 3].every((y) =>
            one.contains(document.elementFromPoint(left + width / 2, y)));
        }""",
        selector,
    )
    return found


def test_a_box_says_that_it_marks_its_level(web: WebUnderTest) -> None:
    add_study(web)
    web.sign_in_as("reader")
    with opened(web, "reader") as (page, complaints):
        told = page.locator("#toasts p")
        row(page, "C3").locator("[data-do=go]").click()
        for count in (1, 2):
            page.keyboard.press("b")
            draw_box(page)
            expect(page.locator("#review .boxes li")).to_have_count(count)
            assert told.all_text_contents() == [
                "C3 is marked fractured, as there is a box in it."
            ]  # the second one changes nothing
        assert answer_of(page, "C3") == "fractured"
        assert complaints == []


def test_more_than_one_change_is_not_discarded_unasked(web: WebUnderTest) -> None:
    add_study(web)
    web.sign_in_as("reader")
    with opened(web, "reader") as (page, complaints):
        dialog = page.locator("dialog.discarding")
        row(page, "C1").locator("[data-answer=whole]").click()
        page.click("#review [data-do=clear]")
        expect(row(page, "C1").locator("[aria-checked=true]")).to_have_count(0)
        expect(dialog).to_be_hidden()
        row(page, "C1").locator("[data-answer=whole]").click()
        page.fill("#review textarea", "a remark")
        page.click("#review [data-do=clear]")
        expect(dialog).to_contain_text("What you changed is lost: C1 and the comment.")
        assert serious_findings(page) == []
        page.keyboard.press("Enter")  # keeps it
        expect(dialog).to_be_hidden()
        assert answer_of(page, "C1") == "whole"
        page.click("#review [data-do=clear]")
        dialog.locator("[data-do=drop]").click()
        expect(page.locator("#review textarea")).to_have_value("")
        expect(row(page, "C1").locator("[aria-checked=true]")).to_have_count(0)
        expect(page.locator("#review [data-do=clear]")).to_be_disabled()
        assert complaints == []


@pytest.mark.parametrize("way", ["button", "key"])
def test_all_others_are_answered_at_once(web: WebUnderTest, way: str) -> None:
    add_study(web)
    web.sign_in_as("reader")
    said = {"C2": "fractured", "C7": "not_assessable"}
    with opened(web, "reader") as (page, complaints):
        for level, answer in said.items():
            row(page, level).locator(f"[data-answer={answer}]").click()
        if way == "key":
            page.keyboard.press("r")
        else:
            page.click("#review [data-do=rest]")
        told = page.locator("#toasts p")
        expect(told).to_have_text("Marked not fractured: C1, C3, C4, C5 and C6.")
        found = {level: answer_of(page, level) for level in LEVEL_NAMES}
        assert found == dict.fromkeys(LEVEL_NAMES, "whole") | said
        saved = page.locator("#review [data-place=saved]")
        expect(saved).to_have_text(re.compile("^saved "), timeout=10_000)
        assert complaints == []
