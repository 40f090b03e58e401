"""A place whose outbox works, for tests of the DICOM node."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.delivered import PATIENT_S, set_vault
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
    opened = Outbox(services, patience_s=PATIENT_S, connect_s=2, answer_s=2)
    yield opened
    opened.close()
