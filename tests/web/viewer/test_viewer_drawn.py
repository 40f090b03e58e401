"""What the viewer draws in Chromium, against NumPy."""

import numpy as np
import numpy.typing as npt
import pytest
from support.viewed_study import (
    SLICES,
    study_hounsfield,
    study_mask,
)
from support.viewer_page import PIXEL_MM, ViewerPage, look_at, middles

from csfd_core.dicom.pixels import window_to_uint8
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_COLOURS, Window
from csfd_core.web.viewer import api
from csfd_core.web.viewer.facts import geometry_facts

pytestmark = pytest.mark.slow

BONE = Window(center_hu=400, width_hu=1800)
SOFT = Window(center_hu=40, width_hu=400)


def grey(plane: npt.NDArray[np.integer], window: Window) -> npt.NDArray[np.int64]:
    return window_to_uint8(plane.astype(np.float32), window).astype(np.int64)


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
        found = page.pixels(plane, middles(page, plane, PIXEL_MM))
        assert (found == found[..., :1]).all()
        off = np.abs(found[..., 0] - grey(hounsfield, window))
        inner = off[2:-2, 2:-2]
        # Beside an edge a pixel of the screen is not quite the middle of a voxel.
        assert np.percentile(inner, 90) <= (6 if window is BONE else 12), plane
        assert (
            np.corrcoef(found[..., 0].ravel(), grey(hounsfield, window).ravel())[0, 1]
            > 0.99
        )
    told = page.corner("axial", "slice") + page.corner("axial", "place")
    assert told == f"13 / {SLICES} · z 76.0 mm"
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
    found = page.pixels("axial", middles(page, "axial", PIXEL_MM))[..., 0]
    expected = grey(volume[5, ::-1, ::-1], BONE)
    assert np.percentile(np.abs(found - expected)[2:-2, 2:-2], 90) <= 6
    letters = page.run("viewer.panes.axial.plane.letters")
    assert letters == {"left": "R", "right": "L", "top": "A", "bottom": "P"}
    letters = page.run("viewer.panes.sagittal.plane.letters")
    assert letters == {"left": "A", "right": "P", "top": "H", "bottom": "F"}


def test_mask_and_heat_lie_where_they_belong(page: ViewerPage) -> None:
    page.open().settle()
    page.press("c").press("l")
    look_at(page, 20, 44, 27)
    labels = study_mask()[20]
    rows, columns = np.nonzero(labels)
    found = page.pixels("axial", middles(page, "axial", PIXEL_MM))
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
        np.ptp(page.pixels("axial", middles(page, "axial", PIXEL_MM)), axis=-1) == 0
    ).all()
    page.press("h")
    page.until("viewer.volume.heat !== null")
    look_at(page, 21, 38, 27)
    page.drawn()
    hot = np.ptp(page.pixels("axial", middles(page, "axial", PIXEL_MM)), axis=-1) > 60
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
        found = page.pixels("coronal", middles(page, "coronal", PIXEL_MM))[..., 0]
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
