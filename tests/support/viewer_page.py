"""The viewer in a real browser: a page with nothing else, and how to look at it."""

import time
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from playwright.sync_api import ConsoleMessage, Page

from csfd_core.web.pages.render import static_address
from csfd_core.web.security.sessions import find_session
from support.dicom_studies import STUDY_UID
from support.viewed_study import COLUMNS, ROWS, SLICES

_MOST_S: Final = 30.0
_TEMPLATE: Final = """{% extends "base.html" %}
{% block title %}Viewer{% endblock %}
{% block head %}<link rel="stylesheet" href="{{ css }}">{% endblock %}
{% block body %} class="reading"{% endblock %}
{% block main %}{% include "viewer.html" %}<textarea id="note"></textarea>{% endblock %}
"""

PIXEL_MM, SLICE_MM = 1.5, 2.0
EXTENT_MM = {  # to the right and down, of each plane
    "axial": (COLUMNS * PIXEL_MM, ROWS * PIXEL_MM),
    "sagittal": (ROWS * PIXEL_MM, SLICES * SLICE_MM),
    "coronal": (COLUMNS * PIXEL_MM, SLICES * SLICE_MM),
}


def add_page(app: FastAPI) -> None:
    """Add ``/try``: the markup of the viewer in the page's frame, under its policy."""
    from csfd_core.web.pages import render

    def page(request: Request) -> HTMLResponse:
        session = find_session(request)
        assert session is not None
        template = render._environment().from_string(_TEMPLATE)
        return HTMLResponse(
            template.render(
                path="/try",
                user=session.user,
                csrf=session.csrf,
                notice=render.NOTICE,
                css=static_address("viewer.css"),
            )
        )

    app.add_api_route("/try", page, methods=["GET"])


class ViewerPage:
    """A tab with the viewer, and what the browser complained of."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.complaints: list[str] = []
        self.asked: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def open(self, uid: str = STUDY_UID, **options: object) -> "ViewerPage":
        """Open the viewer of a study; it is ``viewer`` to the page's scripts."""
        self.page.goto(f"{self.address}/try")
        self.run(
            """async (options) => {
              const { openViewer } = await import("/static/viewer/viewer.js");
              window.heard = [];
              window.viewer = await openViewer(
                document.getElementById("viewer"), options);
              for (const name of ["level", "slice"]) {
                viewer.on(name, (fact) => heard.push([name, fact]));
              }
            }""",
            {"studyUid": uid, **options},
        )
        return self

    def run(self, script: str, argument: object = None) -> Any:  # noqa: ANN401 - JSON
        return self.page.evaluate(script, argument)

    def until(self, condition: str) -> None:
        """Wait for an expression; the page's policy forbids Playwright's own way."""
        until = time.monotonic() + _MOST_S
        while not self.run(condition):
            assert time.monotonic() < until, f"never: {condition}"
            time.sleep(0.02)

    def settle(self) -> "ViewerPage":
        """Wait until all grey levels and the mask are there, and drawn."""
        self.until("viewer.volume.shown === viewer.volume.depth")
        self.until("!viewer.facts.has_mask || viewer.volume.mask !== null")
        return self.drawn()

    def exact(self) -> "ViewerPage":
        """Wait until all Hounsfield units are there, and drawn."""
        self.until("viewer.volume.exact === viewer.volume.depth")
        return self.drawn()

    def drawn(self) -> "ViewerPage":
        self.run(
            "() => new Promise((go) => requestAnimationFrame("
            "() => requestAnimationFrame(go)))"
        )
        return self

    def hide(self) -> "ViewerPage":
        """Take away what lies over the images."""
        self.run(
            "for (const one of Object.keys(viewer.shows)) viewer.shows[one] = false"
        )
        self.run("viewer.setOpacity(viewer.opacity)")
        return self.drawn()

    def press(self, key: str) -> "ViewerPage":
        self.page.keyboard.press(key)
        return self.drawn()

    def corner(self, plane: str, name: str) -> str:
        place = f'[data-plane="{plane}"] [data-corner="{name}"]'
        return self.page.locator(place).text_content() or ""

    def size(self, plane: str) -> tuple[int, int]:
        """Return width and height of a pane, in pixels."""
        found = self.run(
            """(plane) => {
              const { width, height } = viewer.panes[plane].image;
              return [width, height];
            }""",
            plane,
        )
        return found[0], found[1]

    def pixels(
        self, plane: str, places: npt.NDArray[np.floating], over: bool = False
    ) -> npt.NDArray[np.int64]:
        """Return red, green and blue at places (x, y) of a canvas, shape (..., 3)."""
        flat = np.rint(places.reshape(-1, 2)).astype(int).tolist()
        found = self.run(
            """([plane, places, over]) => {
              const canvas = viewer.panes[plane][over ? "over" : "image"];
              const context = canvas.getContext("2d");
              const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
              return places.map(([x, y]) => {
                const at = 4 * (y * canvas.width + x);
                return [data[at], data[at + 1], data[at + 2]];
              });
            }""",
            [plane, flat, over],
        )
        return np.array(found).reshape(*places.shape[:-1], 3)

    def _hear(self, message: ConsoleMessage) -> None:
        is_of_tests = "willReadFrequently" in message.text  # they read the canvases
        if message.type in ("error", "warning") and not is_of_tests:
            self.complaints.append(message.text)


def middles(page: ViewerPage, plane: str, right_mm: float) -> npt.NDArray[np.float64]:
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
    """Let the three planes meet in a voxel."""
    page.run(
        """([z, y, x]) => {
          for (const [plane, at] of [["axial", z], ["coronal", y], ["sagittal", x]]) {
            viewer.scrollTo(at / (viewer.panes[plane].plane.count - 1), plane);
          }
        }""",
        [z, y, x],
    )
    page.drawn()
