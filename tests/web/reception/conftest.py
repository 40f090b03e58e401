"""What takes in slices, below a temporary folder, and a study to send."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.receiving import Place, received_place
from support.uploading import study_files


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with received_place(tmp_path / "csfd", monkeypatch) as opened:
        yield opened


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return study_files(tmp_path_factory.mktemp("study"))
