"""What readers do with the viewer in Chromium, and what it tells them."""

import numpy as np
import pytest
from playwright.sync_api import Route
from support.viewed_study import (
    BOX,
    EVIDENCE_SLICE,
    SLICES,
    ViewedStudy,
    study_mask,
)
from support.viewer_page import PIXEL_MM, ViewerPage, look_at, middles

from csfd_core.web.viewer import api

pytestmark = pytest.mark.slow


def test_it_opens_at_the_worst_level_and_levels_can_be_walked(page: ViewerPage) -> None:
    page.open().settle()
    assert page.run("[viewer.level, viewer.sliceIndex]") == ["C5", EVIDENCE_SLICE]
    assert page.corner("axial", "plane").startswith("Axial · C")
    assert "slice 22 of 40" in (
        page.page.locator('[data-plane="axial"] canvas.image').get_attribute(
            "aria-label"
        )
        or ""
    )
    page.press("ArrowRight")
    mask = study_mask()
    middle = round(float(np.argwhere(mask == 6)[:, 0].mean()))
    assert page.run("[viewer.level, viewer.sliceIndex]") == ["C6", middle]
    page.press("f")  # findings: C5, then C2
    page.press("f")
    assert page.run("viewer.level") == "C2"
    page.press("ArrowLeft")
    assert page.run("viewer.level") == "C1"
    levels = [fact for name, fact in page.run("heard") if name == "level"]
    assert levels == ["C6", "C5", "C2", "C1"]


def test_keys_and_wheel_scroll_and_stop_at_the_ends(page: ViewerPage) -> None:
    page.open(level="C4").settle()
    page.run("viewer.scrollTo(0.5, 'axial')")
    start = page.run("viewer.sliceIndex")
    page.press("ArrowDown").press("ArrowDown").press("ArrowUp").press("PageDown")
    assert page.run("viewer.sliceIndex") == start + 11
    page.press("End").press("ArrowDown")
    assert page.run("viewer.sliceIndex") == SLICES - 1
    page.press("Home")
    assert page.run("viewer.sliceIndex") == 0
    pane = page.page.locator('[data-plane="sagittal"]')
    pane.hover(position={"x": 60, "y": 200})
    before = page.run("viewer.cursor[2]")
    page.page.mouse.wheel(0, 300)
    page.until(f"viewer.cursor[2] === {before + 3}")
    assert page.run("viewer.sliceIndex") == 0


def test_a_click_links_the_planes_and_drags_do_what_they_say(page: ViewerPage) -> None:
    page.open().settle()
    box = page.page.locator('[data-plane="axial"]').bounding_box()
    assert box is not None
    at = middles(page, "axial", PIXEL_MM)[50, 12]
    x, y = box["x"] + at[0] + 0.5, box["y"] + at[1] + 0.5
    mouse = page.page.mouse
    mouse.click(x, y)
    assert page.run("viewer.cursor") == [EVIDENCE_SLICE, 50, 12]
    mouse.down()
    mouse.move(x + 30, y + 10, steps=4)
    mouse.up()
    window = page.run("viewer.window")
    assert window["width"] > 1800
    assert window["center"] > 400
    assert page.run("viewer.cursor") == [EVIDENCE_SLICE, 50, 12]
    before = page.run("viewer.panes.axial.placement()")
    for button in ("middle", "right"):
        mouse.move(x, y)
        mouse.down(button=button)
        mouse.move(x + 20, y - 40, steps=4)
        mouse.up(button=button)
    page.drawn()
    after = page.run("viewer.panes.axial.placement()")
    assert after["scale"] > before["scale"]
    page.press(" ")
    assert page.run("viewer.panes.axial.placement()") == before
    assert page.run("viewer.window.preset") == "bone"


def test_presets_and_invert_change_the_window(page: ViewerPage) -> None:
    page.open().settle()
    for key, told in {
        "2": "W 2500 L 480 · wide bone",
        "3": "W 400 L 40 · soft tissue",
        "4": "W 80 L 40 · brain",
        "5": "W 1500 L -600 · lung",
        "0": "W 1800 L 400 · bone",
    }.items():
        page.press(key)
        assert page.corner("sagittal", "window") == told
    page.exact().hide()
    look_at(page, 30, 5, 60)
    spot = middles(page, "axial", PIXEL_MM)[50:51, 50]
    plain = page.pixels("axial", spot)[0, 0]
    page.press("i")
    assert abs(page.pixels("axial", spot)[0, 0] - (255 - plain)) <= 1


def test_boxes_are_drawn_and_told_in_pixels_of_the_slice(page: ViewerPage) -> None:
    page.open().settle()
    page.run("window.drawn = 'nothing'; void viewer.beginBox((box) => { drawn = box })")
    box = page.page.locator('[data-plane="axial"]').bounding_box()
    assert box is not None
    at = middles(page, "axial", PIXEL_MM)
    step = at[0, 1, 0] - at[0, 0, 0]
    # From the outer corner of pixel (row 10, column 20) to that of (18, 32).
    start = (
        box["x"] + at[10, 20, 0] + 0.5 - step / 2,
        box["y"] + at[10, 20, 1] + 0.5 - step / 2,
    )
    mouse = page.page.mouse
    mouse.move(*start)
    mouse.down()
    mouse.move(start[0] + 12 * step, start[1] + 8 * step, steps=5)
    mouse.up()
    told = page.run("drawn")
    assert told["slice_index"] == EVIDENCE_SLICE
    found = [told[name] for name in ("x", "y", "width", "height")]
    assert found == pytest.approx([20, 10, 12, 8], abs=0.15)
    assert page.run("viewer.window.preset") == "bone"  # the drag was no window drag
    page.press("c").press("l")
    page.run("(box) => viewer.setBoxes([{ ...box, level: 'C3' }])", told)
    page.drawn()
    edge = np.array([[at[14, 20, 0] - step / 2 + 0.5, at[14, 20, 1]]])
    assert page.pixels("axial", edge, over=True).min() > 200  # white on its left edge
    evidence = np.array(
        [[x, at[0, 0, 1] + (BOX["y"] - 0.5) * step] for x in
         np.linspace(at[0, 21, 0], at[0, 29, 0], 30)]
    )  # fmt: skip
    assert (page.pixels("axial", evidence, over=True)[:, 0] > 200).mean() > 0.4
    page.press("ArrowDown")
    assert page.pixels("axial", edge, over=True).max() == 0
    page.run("void viewer.beginBox((box) => { drawn = box })")
    page.press("Escape")
    assert page.run("drawn") is None


def test_keys_can_be_changed_and_leave_fields_alone(page: ViewerPage) -> None:
    page.open().settle()
    page.run(
        "window.said = []; void viewer.keys.add('y', 'Fractured', () => said.push('y'))"
    )
    page.press("y")
    page.page.locator("#note").fill("")
    page.page.locator("#note").focus()
    page.press("y").press("m")
    assert page.run("[said, viewer.shows.mask]") == [["y"], True]
    assert page.page.locator("#note").input_value() == "ym"
    page.run("document.activeElement.blur()")
    page.press("?")
    dialog = page.page.locator("dialog.keys")
    assert dialog.is_visible()
    row = dialog.locator("tr", has_text="Fractured")
    row.locator("button").click()
    page.press("m")  # what the mask had: they change places
    page.press("Escape")
    page.press("m")
    assert page.run("[said.length, viewer.shows.mask]") == [2, True]
    page.press("y")
    assert page.run("viewer.shows.mask") is False
    page.open().settle()  # kept by user
    page.run(
        "window.said = []; void viewer.keys.add('y', 'Fractured', () => said.push('y'))"
    )
    page.press("m")
    assert page.run("[said.length, viewer.shows.mask]") == [1, True]


@pytest.mark.parametrize(
    ("wanted", "tops"),
    [
        ([10, 50, 70], [10, 50, 72]),  # none over another
        ([10, 170, 190], [10, 156, 178]),  # nor over the words of the corner
        ([190, 195], [156, 178]),
        ([*range(0, 200, 20)], [*range(0, 220, 22)]),  # there is no room above
    ],
)
def test_names_lie_neither_over_another_nor_over_the_corner(
    page: ViewerPage, wanted: list[int], tops: list[int]
) -> None:
    page.open().settle()
    found = page.run(
        """async (wanted) => {
          const { spread } = await import("/static/viewer/painter.js");
          return spread(wanted, 200);
        }""",
        wanted,
    )
    assert found == tops


def test_mouse_and_touch_are_told_in_short_rows(page: ViewerPage) -> None:
    page.open().settle()
    page.press("?")
    rows = page.page.locator("dialog.keys dl > div")
    told = [" ".join(text.split()) for text in rows.all_inner_texts()]
    for row in ("Wheel slices", "Left drag window", "Two fingers pan and zoom"):
        assert row in told


def test_a_plane_is_enlarged_and_tools_say_so(page: ViewerPage) -> None:
    page.open().settle()
    page.press("d")
    assert page.page.locator('[data-plane="coronal"]').is_visible()
    assert not page.page.locator('[data-plane="axial"]').is_visible()
    button = page.page.locator('[data-enlarge="coronal"]')
    assert button.get_attribute("aria-pressed") == "true"
    page.press("d")
    assert page.page.locator('[data-plane="axial"]').is_visible()
    page.page.locator('[data-show="mask"]').click()
    page.drawn()
    button = page.page.locator('[data-show="mask"]')
    assert button.get_attribute("aria-pressed") == "false"


def test_a_blind_reader_sees_neither_evidence_nor_findings(
    page: ViewerPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "is_blind", lambda *_: True)
    page.open().settle()
    assert page.run("viewer.level") is None
    assert page.page.locator('[data-show="heat"]').is_disabled()
    assert page.page.locator('[data-do="finding"]').is_disabled()
    page.press("f").press("h")
    assert page.run("[viewer.level, viewer.shows.heat]") == [None, False]
    assert not any("/heat" in url for url in page.asked)


def test_a_lost_connection_is_told_and_tried_again(page: ViewerPage) -> None:
    lost = []

    def lose(route: Route) -> None:
        lost.append(route.request.url)
        if len(lost) < 3:
            route.abort()
        else:
            route.continue_()

    page.page.route("**/frames?*", lose)
    page.open()
    page.until("document.querySelector('.told').textContent.includes('connection')")
    page.settle()
    page.until("document.querySelector('.told').textContent === ''")
    assert len(lost) > 3
    page.complaints = [one for one in page.complaints if "ERR_FAILED" not in one]


def test_what_is_not_there_is_told(page: ViewerPage, viewed: ViewedStudy) -> None:
    page.open("1.2.3")
    page.until("document.querySelector('.told').textContent.includes('no slices yet')")
    for folder in viewed.web.services.sources.studies():
        for entry in folder.files:
            folder.source.remove(entry.path)
    page.open().settle().press("3")
    page.until("document.querySelector('.told').textContent.includes('approximated')")
    assert page.corner("axial", "preview") == "preview grey levels"
    page.complaints = [one for one in page.complaints if "404" not in one]
