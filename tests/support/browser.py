"""Chromium on the reader's page, as a reader has it; skipped where there is none."""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, Error, Page, sync_playwright

from support.web import PASSWORD

CHROMIUM = shutil.which("chromium")
NEEDS_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Let an application that has begun answer at a port; yield its address."""
    config = uvicorn.Config(app, port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 30
    while not server.started and time.monotonic() < until:
        time.sleep(0.02)
    assert server.started
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium without a GPU."""
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
            )
        except Error as error:
            pytest.skip(f"Chromium cannot be started: {str(error).splitlines()[0]}")
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page, what its console complained of, and where its requests went."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.errors: list[str] = []  # of scripts
        self.complaints: list[str] = []  # of the console, errors among them
        self.elsewhere: list[str] = []
        page.on("pageerror", self._fail)
        page.on("console", self._hear)
        page.on("request", self._follow)

    def sign_in(self, name: str = "admin", password: str = PASSWORD) -> Page:
        """Sign in from whatever page asks for it."""
        self.page.goto(f"{self.address}/sign-in")
        self.page.fill("input[name=name]", name)
        self.page.fill("input[name=password]", password)
        self.page.click("button.primary")
        self.page.wait_for_url(f"{self.address}/")
        return self.page

    def _fail(self, error: Error) -> None:
        self.errors.append(str(error))
        self.complaints.append(str(error))

    def _hear(self, told: Any) -> None:
        if told.type in ("error", "warning"):
            self.complaints.append(told.text)

    def _follow(self, request: Any) -> None:
        if not request.url.startswith((self.address, "blob:", "data:")):
            self.elsewhere.append(request.url)
