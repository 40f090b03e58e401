"""Places that take studies in, or whose outbox works, for tests of the DICOM node."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.delivered import PATIENT_S, set_vault
from support.receiving import Listening, Place, listening, received_place
from support.uploading import study_files
from support.web import set_environment

from csfd_core.network.outbox import Outbox
from csfd_core.web.services import Services


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    set_environment(tmp_path, monkeypatch)
    set_vault(monkeypatch)
    opened = Services.open()
    yield opened
    opened.database.close()


@pytest.fixture
def box(services: Services) -> Iterator[Outbox]:
    opened = Outbox(services, patience_s=PATIENT_S, connect_s=20, answer_s=20)
    yield opened
    opened.close()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with received_place(tmp_path / "csfd", monkeypatch) as opened:
        yield opened


@pytest.fixture
def node(place: Place) -> Iterator[Listening]:
    with listening(place) as opened:
        yield opened


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return study_files(tmp_path_factory.mktemp("study"))
