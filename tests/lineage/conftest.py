"""A store as training leaves it, with a champion: written once, copied each time."""

import shutil
from pathlib import Path

import pytest
from support.lineage_store import (
    FIRST,
    NEW,
    freeze_champion,
    write_lineage_store,
    write_prediction,
)
from typer.testing import CliRunner

from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("withdrawal")
    stores = write_lineage_store(folder)
    freeze_champion(stores)
    for uid in (FIRST, NEW):
        write_prediction(stores, uid)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def stores(folder: Path) -> Stores:
    return Stores(Location(folder / "store"))


@pytest.fixture
def command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("CSFD_STORE", str(folder / "store"))
    monkeypatch.setenv("CSFD_SOURCE", str(folder / "source"))
    monkeypatch.setenv("CSFD_INBOX", str(folder / "inbox"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/none.db")
    monkeypatch.setenv("DAGSTER_HOME", str(folder / "dagster"))  # not the clone's own
    return CliRunner()
