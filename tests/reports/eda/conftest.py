"""Fixtures: copies of the small source of ``eda_source``, and of its store."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.eda_source import MASKED, fill, write_source
from support.once import made_once

from csfd_core.reports.eda.film import current_films
from csfd_core.reports.eda.report import EdaReport, write_eda_report
from csfd_core.store.locations import Location
from csfd_core.store.source import Source, Sources
from csfd_core.store.stores import Stores

MONDAY = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small source and its store, to be read only."""

    def make(folder: Path) -> None:
        sources = Sources([Source(write_source(folder / "source"))])
        fill(Stores(Location(folder / "store")), sources)

    return made_once(tmp_path_factory, "small", make)


@pytest.fixture(scope="session")
def whole_report(small: Path, tmp_path_factory: pytest.TempPathFactory) -> EdaReport:
    """The report on the small source, to be read only: it is made once."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(small, folder, dirs_exist_ok=True)
    stores = Stores(Location(folder / "store"))
    return write_eda_report(Sources([Source(folder / "source")]), stores, now=MONDAY)


@pytest.fixture(scope="session")
def filmed(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the films of a study lie, to be read only."""

    def make(folder: Path) -> None:
        stores = Stores(Location(small / "store"))
        assert current_films(Location(folder), stores, MASKED)[1]

    return made_once(tmp_path_factory, "filmed", make)


@pytest.fixture
def source(small: Path, tmp_path: Path) -> Path:
    return shutil.copytree(small / "source", tmp_path / "source")


@pytest.fixture
def sources(tmp_path: Path, source: Path) -> Sources:
    return Sources([Source(source), Source(tmp_path / "inbox")])


@pytest.fixture
def stores(small: Path, tmp_path: Path) -> Stores:
    return Stores(Location(shutil.copytree(small / "store", tmp_path / "store")))
