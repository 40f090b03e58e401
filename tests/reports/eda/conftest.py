"""Fixtures: the small source of ``eda_source``, and its store."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.eda_source import fill, write_source

from csfd_core.reports.eda.report import EdaReport, write_eda_report
from csfd_core.store.locations import Location
from csfd_core.store.source import Source, Sources
from csfd_core.store.stores import Stores

MONDAY = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def whole_report(tmp_path_factory: pytest.TempPathFactory) -> EdaReport:
    """The report on the small source, to be read only: it is made once."""
    folder = tmp_path_factory.mktemp("whole")
    sources = Sources([Source(write_source(folder / "source"))])
    stores = Stores(Location(folder / "store"))
    fill(stores, sources)
    return write_eda_report(sources, stores, now=MONDAY)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source")


@pytest.fixture
def sources(tmp_path: Path, source: Path) -> Sources:
    return Sources([Source(source), Source(tmp_path / "inbox")])


@pytest.fixture
def stores(tmp_path: Path, sources: Sources) -> Stores:
    found = Stores(Location(tmp_path / "store"))
    fill(found, sources)
    return found
