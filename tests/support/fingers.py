"""Fingers on a touch screen: Chromium makes of them what it makes of real ones."""

import time
from typing import Any, Final

from playwright.sync_api import Locator, Page

STEPS: Final = 6  # of a movement


class Fingers:
    """Fingers that are put down, moved and lifted, each by its number."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._session = page.context.new_cdp_session(page)
        self._down: dict[int, tuple[float, float]] = {}

    def put(self, *places: tuple[float, float]) -> "Fingers":
        """Put one more finger on each place."""
        for place in places:
            self._down[len(self._down)] = place
            self._send("touchStart")
        return self

    def move(self, *ways: tuple[float, float]) -> "Fingers":
        """Move the fingers at once, each by its way, in steps."""
        begun = dict(self._down)
        for step in range(1, STEPS + 1):
            for finger, (dx, dy) in enumerate(ways):
                x, y = begun[finger]
                self._down[finger] = (x + dx * step / STEPS, y + dy * step / STEPS)
            self._send("touchMove")
        return self

    def hold(self, seconds: float) -> "Fingers":
        self._page.wait_for_timeout(1000 * seconds)
        return self

    def lift(self) -> None:
        """Lift all of them, and let the page draw what has come of it."""
        while self._down:
            self._down.popitem()
            self._send("touchEnd")
        self._page.evaluate(
            "() => new Promise((go) => requestAnimationFrame("
            "() => requestAnimationFrame(go)))"
        )

    def tap(self, x: float, y: float) -> None:
        self.put((x, y)).lift()

    def tap_on(self, what: Locator) -> None:
        """Swipe until the middle of something can be seen, and tap on it."""
        self.tap(*self.reach(what))

    def reach(self, what: Locator) -> tuple[float, float]:
        """Swipe along the left edge until something can be seen; return its middle."""
        until = time.monotonic() + 20
        while True:
            height = self._page.viewport_size["height"]  # type: ignore[index]
            box = what.bounding_box()
            assert box is not None
            x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
            if box["y"] >= 0 and box["y"] + box["height"] <= height:
                return x, y
            assert time.monotonic() < until, "it cannot be reached"
            far = max(-0.7 * height, min(0.7 * height, height / 2 - y))
            self.put((4, height / 2 - far / 2)).move((0, far)).hold(0.1).lift()

    def _send(self, kind: str) -> None:
        points: list[dict[str, Any]] = [
            {"x": x, "y": y, "id": finger} for finger, (x, y) in self._down.items()
        ]
        self._session.send(
            "Input.dispatchTouchEvent", {"type": kind, "touchPoints": points}
        )
