"""The viewer in Chromium: what it draws against NumPy, and what readers do with it."""

import numpy as np
import numpy.typing as npt
import pytest
from playwright.sync_api import Route
from support.viewed_study import (
    BOX,
    COLUMNS,
    EVIDENCE_SLICE,
    ROWS,
    SLICES,
    ViewedStudy,
    study_hounsfield,
    study_mask,
)
from support.viewer_page import ViewerPage

from csfd_core.dicom.pixels import window_to_uint8
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_COLOURS, Window
from csfd_core.web.viewer import api
from csfd_core.web.viewer.facts import geometry_facts

pytestmark = pytest.mark.slow

PIXEL_MM, SLICE_MM = 1.5, 2.0
BONE = Window(center_hu=400, width_hu=1800)
SOFT = Window(center_hu=40, width_hu=400)
EXTENT_MM = {  # to the right and down, of each plane
    "axial": (COLUMNS * PIXEL_MM, ROWS * PIXEL_MM),
    "sagittal": (ROWS * PIXEL_MM, SLICES * SLICE_MM),
    "coronal": (COLUMNS * PIXEL_MM, SLICES * SLICE_MM),
}


def grey(plane: npt.NDArray[np.integer], window: Window) -> npt.NDArray[np.int64]:
    return window_to_uint8(plane.astype(np.float32), window).astype(np.int64)


def places(page: ViewerPage, plane: str, right_mm: float) -> npt.NDArray[np.float64]:
    """Where the middle of each pixel must lie: mm are equal on the screen."""
    width, height = page.size(plane)
    wide, tall = EXTENT_MM[plane]
    scale = min(width / wide, height / tall)
    below_mm = PIXEL_MM if plane == "axial" else SLICE_MM
    across, down = round(wide / right_mm), round(tall / below_mm)
    x = width / 2 + (np.arange(across) - (across - 1) / 2) * right_mm * scale
    y = height / 2 + (np.arange(down) - (down - 1) / 2) * below_mm * scale
    return np.stack(np.meshgrid(x, y), axis=-1) - 0.5  # to the middle of that pixel


def look_at(page: ViewerPage, z: int, y: int, x: int) -> None:
    page.run(
        """([z, y, x]) => {
          for (const [plane, at] of [["axial", z], ["coronal", y], ["sagittal", x]]) {
            viewer.scrollTo(at / (viewer.panes[plane].plane.count - 1), plane);
          }
        }""",
        [z, y, x],
    )
    page.drawn()


@pytest.mark.parametrize("window", [BONE, SOFT], ids=["preview", "hounsfield"])
def test_planes_are_those_of_numpy(
    page: ViewerPage, window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    if window is BONE:
        monkeypatch.setattr(api, "has_hounsfield", lambda *_: False)
    page.open().settle()
    if window is SOFT:
        page.press("3").exact()
    page.hide()
    look_at(page, 12, 40, 27)
    volume = study_hounsfield()
    expected = {
        "axial": volume[12],
        "sagittal": volume[:, :, 27],
        "coronal": volume[:, 40, :],
    }
    for plane, hounsfield in expected.items():
        found = page.pixels(plane, places(page, plane, PIXEL_MM))
        assert (found == found[..., :1]).all()
        off = np.abs(found[..., 0] - grey(hounsfield, window))
        inner = off[2:-2, 2:-2]
        # Beside an edge a pixel of the screen is not quite the middle of a voxel.
        assert np.percentile(inner, 90) <= (6 if window is BONE else 12), plane
        assert (
            np.corrcoef(found[..., 0].ravel(), grey(hounsfield, window).ravel())[0, 1]
            > 0.99
        )
    assert page.corner("axial", "slice").startswith(f"13 / {SLICES} · z 76.0 mm")
    shown = page.corner("axial", "preview")
    assert shown == ("preview grey levels" if window is BONE else "")


def test_a_turned_scan_is_shown_as_every_other(
    page: ViewerPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The patient lies prone in the scanner: rows run to the right, columns forward."""

    def turned(stores: Stores, study_uid: str, *, is_blind: bool) -> dict[str, object]:
        facts = geometry_facts(stores, study_uid, is_blind=is_blind)
        facts["affine_lps"] = [
            [0, 0, -1.5, 48.0], [0, -1.5, 0, 40.0], [-2.0, 0, 0, 100.0], [0, 0, 0, 1],
        ]  # fmt: skip
        return facts

    monkeypatch.setattr(api, "geometry_facts", turned)
    page.open().settle().hide()
    look_at(page, 5, 30, 30)
    volume = study_hounsfield()
    found = page.pixels("axial", places(page, "axial", PIXEL_MM))[..., 0]
    expected = grey(volume[5, ::-1, ::-1], BONE)
    assert np.percentile(np.abs(found - expected)[2:-2, 2:-2], 90) <= 6
    letters = page.run("viewer.panes.axial.plane.letters")
    assert letters == {"left": "R", "right": "L", "top": "A", "bottom": "P"}
    letters = page.run("viewer.panes.sagittal.plane.letters")
    assert letters == {"left": "A", "right": "P", "top": "H", "bottom": "F"}


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
    at = places(page, "axial", PIXEL_MM)[50, 12]
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
    spot = places(page, "axial", PIXEL_MM)[50:51, 50]
    plain = page.pixels("axial", spot)[0, 0]
    page.press("i")
    assert abs(page.pixels("axial", spot)[0, 0] - (255 - plain)) <= 1


def test_mask_and_heat_lie_where_they_belong(page: ViewerPage) -> None:
    page.open().settle()
    page.press("c").press("l")
    look_at(page, 20, 44, 27)
    labels = study_mask()[20]
    rows, columns = np.nonzero(labels)
    found = page.pixels("axial", places(page, "axial", PIXEL_MM))
    (label,) = set(labels[labels > 0].tolist())
    colour = LEVEL_COLOURS[f"C{label}"]
    rgb = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)])
    under = grey(study_hounsfield()[20], BONE)
    inside = (rows > 38) & (rows < 44) & (columns > 23) & (columns < 30)
    y, x = rows[inside], columns[inside]
    expected = under[y, x][:, None] * 0.65 + rgb * 0.35
    assert np.abs(found[y, x] - expected).max() <= 8
    is_coloured = np.ptp(found, axis=-1) > 20
    overlap = (is_coloured & (labels > 0)).sum() / (is_coloured | (labels > 0)).sum()
    assert overlap > 0.85
    page.press("m")
    assert (
        np.ptp(page.pixels("axial", places(page, "axial", PIXEL_MM)), axis=-1) == 0
    ).all()
    page.press("h")
    page.until("viewer.volume.heat !== null")
    look_at(page, 21, 38, 27)
    page.drawn()
    hot = np.ptp(page.pixels("axial", places(page, "axial", PIXEL_MM)), axis=-1) > 60
    y, x = np.nonzero(hot)
    assert (y.min(), y.max(), x.min(), x.max()) == pytest.approx(
        (36, 39, 25, 28), abs=1
    )


def test_a_slab_is_the_mean_or_the_maximum(page: ViewerPage) -> None:
    page.open().settle().press("3").exact().hide()
    look_at(page, 12, 40, 27)
    volume = study_hounsfield()
    count = round(10 / PIXEL_MM)
    first = 40 - (count - 1) // 2
    slab = volume[:, first : first + count]
    for mode, expected in (
        ("average", np.rint(slab.mean(axis=1))),
        ("maximum", slab.max(axis=1)),
    ):
        page.page.locator('[data-field="slab"]').select_option("10")
        page.page.locator('[data-field="mode"]').select_option(mode)
        page.drawn()
        found = page.pixels("coronal", places(page, "coronal", PIXEL_MM))[..., 0]
        off = np.abs(found - grey(expected.astype(np.int16), SOFT))[2:-2, 2:-2]
        assert np.percentile(off, 90) <= 12, mode
        assert page.corner("coronal", "plane") == f"Coronal · 10 mm {mode}"


def test_pure_planes_and_windows_are_numpys(page: ViewerPage) -> None:
    page.open().settle()
    page.run("viewer.setWindow('soft')")
    page.exact()
    volume = study_hounsfield()
    found = page.run(
        """async () => {
          const s = await import("/static/viewer/slicing.js");
          const { volume } = viewer;
          const plane = (size) => new Int16Array(size);
          return {
            axial: [...s.axialPlane(volume, 7, plane(64 * 64))],
            sagittal: [...s.sagittalPlane(volume, 9, 10, "average", plane(40 * 64))],
            average: [...s.sagittalPlane(volume, 9, 13, "average", plane(40 * 64))],
            maximum: [...s.coronalPlane(volume, 30, 35, "maximum", plane(40 * 64))],
            window: [...s.windowTable(40, 400)],
            slab: [s.slabOf(0, 10, 1.5, 64), s.slabOf(63, 10, 1.5, 64),
                   s.slabOf(20, 0, 1.5, 64)],
          };
        }"""
    )
    assert found["axial"] == volume[7].ravel().tolist()
    assert found["sagittal"] == volume[:, :, 9].ravel().tolist()
    mean = volume[:, :, 9:13].mean(axis=2).ravel()
    assert np.abs(np.array(found["average"]) - mean).max() <= 0.5
    assert found["maximum"] == volume[:, 30:35].max(axis=1).ravel().tolist()
    hounsfield = np.arange(-32767, 32768, dtype=np.float32)
    np.testing.assert_array_equal(
        found["window"][1:], window_to_uint8(hounsfield, SOFT)
    )
    assert found["slab"] == [[0, 4], [60, 64], [20, 21]]


def test_boxes_are_drawn_and_told_in_pixels_of_the_slice(page: ViewerPage) -> None:
    page.open().settle()
    page.run("window.drawn = 'nothing'; void viewer.beginBox((box) => { drawn = box })")
    box = page.page.locator('[data-plane="axial"]').bounding_box()
    assert box is not None
    at = places(page, "axial", PIXEL_MM)
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
