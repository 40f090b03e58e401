"""A page, and the files of a study to upload."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.uploading import study_files
from support.web import WebUnderTest, web_app


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebUnderTest]:
    with web_app(tmp_path / "home", monkeypatch) as found:
        yield found


@pytest.fixture
def files(tmp_path: Path) -> list[bytes]:
    return study_files(tmp_path / "outside")
