"""The page on a tablet: what fingers do on the planes, and a review by them alone."""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from support.browser import NEEDS_CHROMIUM, Watched, served
from support.dicom_studies import STUDY_UID
from support.fingers import Fingers
from support.reviews import add_study
from support.viewed_study import EVIDENCE_SLICE
from support.viewer_page import ViewerPage
from support.web import WebUnderTest

from csfd_core.store.labels import read_all_boxes, read_all_labels
from csfd_core.vocabulary import LEVEL_NAMES

pytestmark = [pytest.mark.slow, NEEDS_CHROMIUM]

LANDSCAPE = {"width": 1024, "height": 768}
PORTRAIT = {"width": 768, "height": 1024}
PHONE = {"width": 844, "height": 390}
LONG_PRESS_S = 0.6
FINGER_PX = 44
FRAME = (255, 210, 77)  # of the plane that is drawn on, in the dark
USED_WHILE_READING = (
    "[data-window]",
    "[data-show]",
    "[data-field]",
    ".tools [data-level]",
    "[data-do]",
    "[data-enlarge]",
    "[data-answer]",
    ".menu summary",
    "header.top nav a",
    "header.top .account a",
    "header.top button",
)
PAGES = ("/", "/upload", "/model", "/account", "/admin/users", f"/studies/{STUDY_UID}")

Opens = Callable[[dict[str, int]], AbstractContextManager[tuple[Page, Fingers]]]


@pytest.fixture
def screen() -> dict[str, Any]:
    return {"viewport": LANDSCAPE, "has_touch": True, "color_scheme": "dark"}


@pytest.fixture
def tablet(web: WebUnderTest, browser: Browser) -> Iterator[Opens]:
    """Opens the page of a study on a tablet that is held one way or the other."""
    add_study(web)

    @contextmanager
    def opens(viewport: dict[str, int]) -> Iterator[tuple[Page, Fingers]]:
        context = browser.new_context(viewport=viewport, has_touch=True)  # type: ignore[arg-type]
        watched = Watched(context.new_page(), address)
        page = watched.sign_in()
        page.goto(f"{address}/studies/{STUDY_UID}")
        standing = page.locator("#review [data-place=standing]")
        expect(standing).to_have_text("not signed by you", timeout=30_000)
        try:
            yield page, Fingers(page)
        finally:
            context.close()
        assert watched.complaints == []

    with served(web.app) as address:
        yield opens


def middle(page: ViewerPage, plane: str) -> tuple[float, float]:
    box = page.page.locator(f'[data-plane="{plane}"]').bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def placement(page: ViewerPage, plane: str = "axial") -> dict[str, Any]:
    found: dict[str, Any] = page.run(
        "(plane) => viewer.panes[plane].placement()", plane
    )
    return found


def edge_of(page: ViewerPage, plane: str) -> tuple[int, ...]:
    """The colour of the left edge of a plane, as it is seen."""
    box = page.page.locator(f'[data-plane="{plane}"]').bounding_box()
    assert box is not None
    clip = {"x": box["x"], "y": box["y"] + 100, "width": 3, "height": 3}
    seen = page.page.screenshot(clip=clip)  # type: ignore[arg-type]
    found = Image.open(io.BytesIO(seen)).convert("RGB").getpixel((1, 1))
    assert isinstance(found, tuple)
    return tuple(int(part) for part in found)


def moved(page: Page) -> tuple[float, float]:
    """How far the page is scrolled, and how much it is enlarged."""
    found = page.evaluate("[scrollY, visualViewport.scale]")
    return found[0], found[1]


@pytest.fixture
def opened(page: ViewerPage) -> ViewerPage:
    """The viewer, on a page that is long enough to be scrolled."""
    page.open().settle()
    page.run("document.body.style.height = '3000px'")
    return page.drawn()


def test_one_finger_scrolls_slices_and_a_tap_sets_the_crosshair(
    opened: ViewerPage,
) -> None:
    fingers = Fingers(opened.page)
    x, y = middle(opened, "axial")
    look = opened.run("[viewer.window, viewer.panes.axial.placement()]")
    fingers.put((x, y)).move((0, 94)).lift()
    assert opened.run("viewer.sliceIndex") == EVIDENCE_SLICE + 10
    fingers.put((x, y)).move((0, -76)).lift()
    assert opened.run("viewer.sliceIndex") == EVIDENCE_SLICE + 2
    column = opened.run("viewer.cursor[2]")
    fingers.put(middle(opened, "sagittal")).move((0, -67)).lift()
    assert opened.run("viewer.cursor[2]") == column - 7
    assert opened.run("viewer.sliceIndex") == EVIDENCE_SLICE + 2
    scale = placement(opened)["scale"]
    fingers.tap(x + 10.2 * scale * 1.5, y - 6.2 * scale * 1.5)
    assert opened.run("viewer.cursor") == [EVIDENCE_SLICE + 2, 25, 42]
    assert opened.run("[viewer.window, viewer.panes.axial.placement()]") == look


def test_two_fingers_pan_and_zoom_and_more_do_nothing_else(opened: ViewerPage) -> None:
    fingers = Fingers(opened.page)
    x, y = middle(opened, "axial")
    cursor = opened.run("viewer.cursor")
    before = placement(opened)
    fingers.put((x - 40, y), (x + 40, y)).move((-40, 0), (40, 0)).lift()
    after = placement(opened)
    assert after["scale"] == pytest.approx(2 * before["scale"])
    fingers.put((x - 40, y), (x + 40, y)).move((30, 20), (30, 20)).lift()
    panned = placement(opened)
    assert panned["scale"] == pytest.approx(after["scale"])
    assert panned["matrix"][4] - after["matrix"][4] == pytest.approx(30)
    assert panned["matrix"][5] - after["matrix"][5] == pytest.approx(20)
    three = (x - 40, y), (x + 40, y), (x, y + 60)
    fingers.put(*three).move((0, 0), (0, 0), (0, 60)).lift()
    assert opened.run("viewer.cursor") == cursor  # neither scrolled nor tapped
    assert opened.run("viewer.window.preset") == "bone"
    fingers.put((x, y)).move((0, 67)).lift()
    assert opened.run("viewer.sliceIndex") == cursor[0] + 7
    assert moved(opened.page) == (0, 1)


def test_a_long_press_and_then_a_drag_changes_the_window(opened: ViewerPage) -> None:
    fingers = Fingers(opened.page)
    cursor = opened.run("viewer.cursor")
    x, y = middle(opened, "coronal")
    fingers.put((x, y)).hold(LONG_PRESS_S).move((60, 20)).lift()
    window = opened.run("viewer.window")
    assert window["width"] > 1800
    assert window["center"] > 400
    assert opened.run("viewer.cursor") == cursor
    fingers.put((x, y)).hold(LONG_PRESS_S).lift()  # no tap
    assert opened.run("viewer.cursor") == cursor
    assert opened.run("getSelection().toString()") == ""


@pytest.mark.parametrize("has_been_active", [False, True])
def test_a_long_press_shakes_once_the_browser_allows_it(
    opened: ViewerPage, has_been_active: bool
) -> None:
    """Before the first tap Chromium complains; a script of a test counts as one."""
    opened.run(
        """(hasBeenActive) => {
          window.shaken = 0;
          const value = { hasBeenActive };
          Object.defineProperty(navigator, "userActivation", { value });
          navigator.vibrate = () => { shaken += 1; };
        }""",
        has_been_active,
    )
    at = middle(opened, "axial")
    Fingers(opened.page).put(at).hold(LONG_PRESS_S).lift()
    assert opened.run("shaken") == int(has_been_active)


def test_a_finger_on_a_plane_leaves_the_page_where_it_is(opened: ViewerPage) -> None:
    page, fingers = opened.page, Fingers(opened.page)
    x, y = middle(opened, "axial")
    fingers.put((x, y)).move((0, -200)).hold(0.1).lift()
    fingers.put((x - 20, y), (x + 20, y)).move((-80, 0), (80, 0)).hold(0.1).lift()
    for selector in ('[data-plane="coronal"] .enlarge', '[data-plane="sagittal"]'):
        box = page.locator(selector).bounding_box()
        assert box is not None
        edge = box["x"] + box["width"] + (1 if "enlarge" not in selector else -20)
        at = edge, box["y"] + 20
        fingers.put(at).move((0, -150)).hold(0.1).lift()
        fingers.put(at, (at[0] - 60, at[1])).move((0, 0), (-80, 0)).hold(0.1).lift()
    assert moved(page) == (0, 1)
    # Beside the planes both would come to pass.
    fingers.put((4, y)).move((0, -200)).hold(0.1).lift()
    assert moved(page)[0] > 100
    below = LANDSCAPE["height"] - 20
    fingers.put((300, below), (360, below)).move((-60, 0), (60, 0)).hold(0.1).lift()
    assert moved(page)[1] > 1.5


def test_a_second_finger_stops_a_box_and_drawing_goes_on(opened: ViewerPage) -> None:
    fingers = Fingers(opened.page)
    opened.run("viewer.enlarge('sagittal')")
    opened.run("window.drawn = 'nothing'")
    opened.run("void viewer.beginBox((box) => { drawn = box })")
    opened.drawn()
    x, y = middle(opened, "axial")  # it was hidden
    assert edge_of(opened, "axial") == FRAME  # it can be seen
    before = placement(opened)["scale"]
    fingers.put((x, y)).move((30, 30)).put((x + 40, y))
    assert opened.run("viewer.drawnBox") is None
    fingers.move((0, 0), (60, 0)).lift()
    assert opened.run("drawn") == "nothing"
    assert placement(opened)["scale"] > before
    fingers.put((x, y)).move((50, 40)).lift()
    told = opened.run("drawn")
    assert told["slice_index"] == EVIDENCE_SLICE
    assert told["width"] / told["height"] == pytest.approx(50 / 40, rel=0.05)
    assert edge_of(opened, "axial") != FRAME


@pytest.mark.parametrize("held", [LANDSCAPE, PORTRAIT], ids=["landscape", "portrait"])
def test_a_study_is_read_and_signed_by_touch_alone(
    tablet: Opens, web: WebUnderTest, held: dict[str, int]
) -> None:
    with tablet(held) as (page, fingers):
        review = page.locator("#review")
        for level in LEVEL_NAMES:
            answer = "not_assessable" if level == "C7" else "whole"
            row = review.locator(f".level[data-level={level}]")
            fingers.tap_on(row.locator(f"[data-answer={answer}]"))
        axial = page.locator('[data-plane="axial"]')
        fingers.tap_on(review.locator(".level[data-level=C4] [data-do=go]"))
        assert in_sight(page, '[data-plane="axial"]')
        fingers.tap_on(review.locator("[data-do=box]"))
        assert in_sight(page, '[data-plane="axial"]')
        x, y = fingers.reach(axial)
        fingers.put((x - 40, y - 30)).move((80, 60)).lift()
        expect(review.locator(".boxes li")).to_have_count(1)
        fingers.tap_on(review.locator(".boxes li button").first)
        assert in_sight(page, '[data-plane="axial"]')
        fingers.tap_on(review.locator("[data-do=sign]"))
        dialog = page.locator("dialog.signing")
        expect(dialog).to_contain_text("C4: fractured")
        fingers.tap_on(dialog.locator("[data-do=confirm]"))
        standing = review.locator("[data-place=standing]")
        expect(standing).to_have_text(re.compile("^signed by you"), timeout=10_000)
        assert too_small(page, "#review summary") == []
    table = read_all_labels([web.services.inbox]).table
    assert table.loc[STUDY_UID, "C4"] == 1
    assert table.loc[STUDY_UID, ["C1", "C2", "C3", "C5", "C6"]].eq(0).all()
    assert table["C7"].isna().all()
    (box,) = read_all_boxes([web.services.inbox]).table.to_dict("records")
    assert box["width"] / box["height"] == pytest.approx(80 / 60, rel=0.05)


def test_what_is_used_while_reading_is_as_large_as_a_finger(tablet: Opens) -> None:
    with tablet(LANDSCAPE) as (page, fingers):
        for held in (LANDSCAPE, PORTRAIT):
            page.set_viewport_size(held)  # type: ignore[arg-type]
            assert in_sight(page, ".panes")
            fingers.tap_on(page.locator(".menu summary"))
            for selector in (*USED_WHILE_READING, ".menu li a"):
                assert too_small(page, selector) == []
            assert page.evaluate(SIDEWAYS) == []
            fingers.tap_on(page.locator(".menu summary"))
        fingers.tap_on(page.locator("[data-do=keys]"))
        assert too_small(page, "dialog.keys button") == []


def test_words_are_in_the_middle_and_cover_no_letter_of_a_plane(tablet: Opens) -> None:
    with tablet(PORTRAIT) as (page, _):
        off = page.evaluate(
            """() => [...document.querySelectorAll("header.top nav a")].map((one) => {
              const range = document.createRange();
              range.selectNodeContents(one);
              const [text, box] = [range, one].map((of) => of.getBoundingClientRect());
              return Math.abs(text.top + text.bottom - box.top - box.bottom) / 2;
            })"""
        )
        assert max(off) <= 1
        beside = page.evaluate(
            """() => [...document.querySelectorAll(".corner.preview")].map((one) => {
              one.textContent = "preview grey levels";
              const pane = one.parentElement.getBoundingClientRect();
              return one.getBoundingClientRect().left - (pane.left + pane.right) / 2;
            })"""
        )
        assert min(beside) > 6  # half of a letter


def test_a_phone_held_sideways_shows_all_planes_at_once(tablet: Opens) -> None:
    with tablet(PHONE) as (page, _):
        page.locator(".viewer").evaluate("(viewer) => viewer.scrollIntoView()")
        for seen in (".viewer .tools", "#review h2", '[data-plane="coronal"]'):
            assert in_sight(page, seen), seen
        assert page.evaluate(SIDEWAYS) == []
        below = page.evaluate(
            """() => [...document.querySelectorAll(".corner.bottom")].map((one) => {
              const pane = one.parentElement.getBoundingClientRect();
              return (pane.left + pane.right) / 2 - one.getBoundingClientRect().right;
            })"""
        )
        assert min(below) > 6  # half of the letter in the middle
        page.locator("[data-do=keys]").tap()  # beyond the edge, to where tools scroll
        expect(page.locator("dialog.keys")).to_be_visible()


def test_corners_of_small_planes_keep_beside_the_letter(tablet: Opens) -> None:
    with tablet({"width": 390, "height": 844}) as (page, _):
        for plane in ("sagittal", "coronal"):
            pane = page.locator(f'.pane[data-plane="{plane}"]')
            expect(pane.locator("[data-corner=window]")).to_be_hidden()
            expect(pane.locator("[data-corner=slice]")).to_contain_text("/ 64")
            expect(pane.locator("[data-corner=place]")).to_be_hidden()
            beside = pane.evaluate(
                """(pane) => {
                  const { left, right } = pane.getBoundingClientRect();
                  const corner = pane.querySelector(".corner.bottom");
                  return (left + right) / 2 - corner.getBoundingClientRect().right;
                }"""
            )
            assert beside > 6  # half of the letter in the middle
        axial = page.locator('.pane[data-plane="axial"] [data-corner=window]')
        expect(axial).to_be_visible()
        page.locator('[data-enlarge="coronal"]').tap()
        expect(pane.locator("[data-corner=window]")).to_be_visible()


def test_no_page_is_wider_than_a_tablet_held_upright(tablet: Opens) -> None:
    with tablet(PORTRAIT) as (page, _):
        base = page.url.split("/studies")[0]
        for path in PAGES:
            page.goto(base + path)
            assert page.evaluate(SIDEWAYS) == [], path


# What lies beyond the left or the right edge of the screen, unless it scrolls there.
SIDEWAYS = """() => [...document.querySelectorAll("body *")]
  .filter((one) => !one.closest(".visually-hidden, .unseen"))
  .filter((one) => {
    for (let above = one.parentElement; above; above = above.parentElement) {
      if (/auto|scroll/.test(getComputedStyle(above).overflowX)) return false;
    }
    return true;
  })
  .filter((one) => {
    const { left, right, width } = one.getBoundingClientRect();
    return width && (left < -0.5 || right > document.documentElement.clientWidth + 0.5);
  })
  .map((one) => one.outerHTML.slice(0, 120))"""


def in_sight(page: Page, selector: str) -> bool:
    found: bool = page.evaluate(
        """(selector) => {
          const box = document.querySelector(selector).getBoundingClientRect();
          return box.top >= -1 && box.bottom <= innerHeight + 1;
        }""",
        selector,
    )
    return found


def too_small(page: Page, selector: str) -> list[str]:
    """What is seen of a kind, and lower than a finger, or not as wide as one."""
    found: list[dict[str, Any]] = page.evaluate(
        """(selector) => [...document.querySelectorAll(selector)].map((one) => {
          const { width, height } = one.getBoundingClientRect();
          return { width, height, told: one.outerHTML.slice(0, 100) };
        })""",
        selector,
    )
    seen = [one for one in found if one["width"]]
    assert seen, selector
    return [
        f"{one['width']:.0f} x {one['height']:.0f}: {one['told']}"
        for one in seen
        if min(one["width"], one["height"]) < FINGER_PX - 0.5
    ]
