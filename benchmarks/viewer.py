"""How fast is the viewer in a browser without a GPU?

A study of 350 slices of 512x512 in headless Chromium, served by the application on this
machine: from the address to the first slice on the screen, slices a second while one
scrolls with the mask on, frames a second while one drags the window (all three planes
anew), and memory, with all Hounsfield units: of the process that holds the page, and of
the whole browser. That is another browser, which nothing drives: a debugger, as which
Playwright comes, lets a browser keep a copy of what it was sent.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import psutil
import uvicorn
from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from benchmarks.harness import Result, spread
from benchmarks.studies import large_volume, tasks_of, write_copy
from csfd_core.ingest.convert import convert_study
from csfd_core.store.notes import PredictedMaskNote
from csfd_core.web.app import build_app
from csfd_core.web.pages import render
from csfd_core.web.security.sessions import begin_session
from csfd_core.web.security.users import Role, add_user, all_users
from csfd_core.web.services import Services

SLICES: Final = 350
ROUNDS: Final = 3
FIRST_S: Final = 2.0
SLICES_PER_S: Final = 20.0
FRAMES_PER_S: Final = 15.0
MOST_MB: Final = 700.0

_CHROMIUM: Final = shutil.which("chromium") or "chromium"
_PASSWORD: Final = "only for this benchmark"
_MOST_S: Final = 300.0
_MEGABYTE: Final = 2**20
_SETTLE_S: Final = 10.0  # until what is free goes back to the system
_reached = threading.Event()  # the browser alone has all of the study

_PAGE: Final = """{% extends "base.html" %}{% block title %}Viewer{% endblock %}
{% block head %}<link rel="stylesheet" href="{{ static('viewer.css') }}">{% endblock %}
{% block body %} class="reading"{% endblock %}
{% block main %}{% include "viewer.html" %}
{% if is_alone %}<script type="module" src="/alone.js"></script>{% endif %}
{% endblock %}"""
_ALONE: Final = """import { openViewer } from "/static/viewer/viewer.js";
const root = document.getElementById("viewer");
const viewer = await openViewer(root, { studyUid: "%s" });
while (viewer.volume.shown < viewer.volume.depth || !viewer.volume.mask) {
  await new Promise((go) => setTimeout(go, 200));
}
viewer.setWindow("soft");
while (viewer.volume.exact < viewer.volume.depth) {
  await new Promise((go) => setTimeout(go, 200));
}
await fetch("/reached");
"""

_OPEN: Final = """async (options) => {
  const { openViewer } = await import("/static/viewer/viewer.js");
  window.viewer = await openViewer(document.getElementById("viewer"), options);
  const frame = () => new Promise((go) => requestAnimationFrame(go));
  while (!viewer.volume?.shown) await frame();
  await frame();
  await frame();
  return performance.now() / 1000;
}"""
_REPEAT: Final = """async ([count, act]) => {
  const acts = {
    scroll: (at) => viewer.scroll(at < count / 2 ? 1 : -1, "axial"),
    sagittal: (at) => viewer.scroll(at < count / 2 ? 1 : -1, "sagittal"),
    window: (at) => viewer.dragWindow(at < count / 2 ? 3 : -3, 1),
  };
  const start = performance.now();
  for (let at = 0; at < count; at += 1) {
    acts[act](at);
    await new Promise((go) => requestAnimationFrame(go));
  }
  await new Promise((go) => requestAnimationFrame(go));
  return (count * 1000) / (performance.now() - start);
}"""


def run() -> Result:
    """Measure on a study that is made for it."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        _set_environment(home)
        uid = _make_study(home)
        with _served() as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=_CHROMIUM, args=["--no-sandbox"]
            )
            measured = _measure(browser, address, uid)
            browser.close()
            measured["memory_mb"] = _memory_mb(address, home)
    met = (
        measured["first_picture_s"]["highest"] < FIRST_S
        and measured["scroll_slices_per_s"]["median"] >= SLICES_PER_S
        and measured["window_frames_per_s"]["median"] >= FRAMES_PER_S
        and measured["memory_mb"]["browser"] < MOST_MB
    )
    return Result(
        question="The viewer in Chromium without a GPU: first picture, frames, memory",
        target=f"{FIRST_S:.0f} s; {SLICES_PER_S:.0f} slices/s; {FRAMES_PER_S:.0f} "
        f"frames/s; {MOST_MB:.0f} MB",
        met=met,
        data=f"{SLICES} slices of 512x512 of the full-profile phantom, with its mask",
        measured=measured,
    )


def _measure(browser: Browser, address: str, uid: str) -> dict[str, Any]:
    context = browser.new_context(viewport={"width": 1920, "height": 1080})
    _sign_in(context, address)
    first = []
    for _ in range(ROUNDS):  # in the first one the server has not seen the mask yet
        page = context.new_page()
        page.goto(f"{address}/bench")
        first.append(float(page.evaluate(_OPEN, {"studyUid": uid})))
        if len(first) < ROUNDS:
            page.close()
    begun = time.perf_counter()
    _until(page, "viewer.volume.shown === viewer.volume.depth && viewer.volume.mask")
    grey_s = time.perf_counter() - begun + first[-1]
    loading = _speeds(page)  # the first drag of the window asks for Hounsfield units
    page.evaluate("viewer.setWindow('soft')")
    _until(page, "viewer.volume.exact === viewer.volume.depth")
    exact = _speeds(page)
    heap = page.evaluate("performance.memory.usedJSHeapSize")
    return {
        "first_picture_s": spread(first, 2),
        "first_picture_of_an_unseen_study_s": round(first[0], 2),
        "all_grey_levels_s": round(grey_s, 1),
        **exact,
        **{f"{name}_while_loading": value for name, value in loading.items()},
        "script_heap_mb": round(heap / _MEGABYTE, 1),
    }


def _speeds(page: Page) -> dict[str, Any]:
    def several(act: str) -> dict[str, float]:
        runs = [float(page.evaluate(_REPEAT, [80, act])) for _ in range(ROUNDS)]
        return spread(runs, 1)

    return {
        "scroll_slices_per_s": several("scroll"),
        "sagittal_slices_per_s": several("sagittal"),
        "window_frames_per_s": several("window"),
    }


def _memory_mb(address: str, home: Path) -> dict[str, int]:
    """Return what a browser by itself holds; pages of several processes count once."""
    _reached.clear()
    flags = ["--headless", "--no-sandbox", "--window-size=1920,1080"]
    profile = f"--user-data-dir={home / 'profile'}"
    command = [_CHROMIUM, *flags, profile, f"{address}/alone"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as started:
        try:
            if not _reached.wait(_MOST_S):
                raise TimeoutError("The browser has not shown the study.")
            time.sleep(_SETTLE_S)
            own = psutil.Process(started.pid)
            processes = [own, *own.children(recursive=True)]
            held = [one.memory_full_info().pss / _MEGABYTE for one in processes]
        finally:
            started.terminate()
    return {"page": round(max(held)), "browser": round(sum(held))}


def _until(page: Page, condition: str) -> None:
    until = time.monotonic() + _MOST_S
    while not page.evaluate(f"Boolean({condition})"):
        if time.monotonic() > until:
            raise TimeoutError(condition)
        time.sleep(0.1)


def _set_environment(home: Path) -> None:
    for name, value in {
        "CSFD_HOME": home,
        "CSFD_SOURCE": home / "source",
        "CSFD_STORE": home / "store",
        "CSFD_INBOX": home / "inbox",
        "CSFD_KEY_FILE": home / "patients.key",
        "CSFD_WEB_DATABASE": f"sqlite:///{home}/web.db",
    }.items():
        os.environ[name] = str(value)


def _make_study(home: Path) -> str:
    volume = large_volume(SLICES)
    uid = write_copy(home / "source", volume, 0)
    (task,) = tasks_of(home / "source", home / "store")
    convert_study(task)
    note = task.stores.slices.read_note(uid)
    assert note is not None
    is_upwards = volume.z_step_mm > 0  # the store goes from head to feet
    mask = volume.mask[::-1] if is_upwards else volume.mask
    task.stores.predicted_masks.write(
        uid,
        mask,
        PredictedMaskNote(
            study_uid=uid,
            format=1,
            content_hash=note.content_hash,
            model_id="drawn",
            fold=0,
            standing="unseen",
            levels={},
            flags=(),
            **asdict(note.geometry),
        ),
    )
    return uid


@contextmanager
def _served() -> Iterator[str]:
    services = Services.open()
    with services.database.transaction() as connection:
        add_user(connection, None, "reader", _PASSWORD, Role.READER)
    app = build_app(services)
    app.add_api_route("/bench", _page, methods=["GET"])
    app.add_api_route("/alone", _alone, methods=["GET"])
    app.add_api_route("/alone.js", _script, methods=["GET"])
    app.add_api_route("/reached", _reach, methods=["GET"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = uvicorn.Config(app, port=port, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)
    services.database.close()


def _page(request: Request) -> HTMLResponse:
    template = render._environment().from_string(_PAGE)
    is_alone = request.url.path == "/alone"
    facts = {"path": "/bench", "user": None, "csrf": "", "notice": render.NOTICE}
    return HTMLResponse(template.render(is_alone=is_alone, **facts))


def _alone(request: Request) -> HTMLResponse:
    """Return the page that opens the study by itself, for a reader of its own."""
    services: Services = request.app.state.services
    response = _page(request)
    with services.database.transaction() as connection:
        (reader,) = all_users(connection)
        begin_session(connection, response, services.web, reader)
    return response


def _script(request: Request) -> Response:
    (uid,) = request.app.state.services.stores.metadata.study_uids()
    return Response(_ALONE % uid, media_type="text/javascript")


def _reach() -> Response:
    _reached.set()
    return Response(status_code=204)


def _sign_in(context: BrowserContext, address: str) -> None:
    page = context.new_page()
    page.goto(f"{address}/sign-in")
    page.fill('input[name="name"]', "reader")
    page.fill('input[name="password"]', _PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "sign-in" not in url)
    page.close()
