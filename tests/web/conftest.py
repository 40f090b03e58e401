"""The reader's page, opened below a temporary folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.web import WebUnderTest, web_app


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebUnderTest]:
    with web_app(tmp_path, monkeypatch) as opened:
        yield opened
