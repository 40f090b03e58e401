"""Places of one test, an instance, and models and phantoms that are cheap."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from support.coarse import (
    cheap_models,
    coarse_phantoms,
    plain_figures,
    untraced_networks,
)
from support.instances import small_instance
from support.ports import free_port


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Source, inbox, store, MLflow and Dagster of this test alone."""
    (tmp_path / "dagster").mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("CSFD_SOURCE", str(tmp_path / "source"))
    monkeypatch.setenv("CSFD_INBOX", str(tmp_path / "inbox"))
    monkeypatch.setenv("CSFD_STORE", str(tmp_path / "store"))
    return tmp_path


@pytest.fixture
def home(places: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything of a page that nobody has used."""
    monkeypatch.setenv("CSFD_HOME", str(places))
    monkeypatch.setenv("CSFD_WEB_DATABASE", f"sqlite:///{places}/web.db")
    monkeypatch.setenv("CSFD_WEB_PORT", str(free_port()))
    monkeypatch.setenv("CSFD_FILES_PORT", str(free_port()))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return places


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the whole graph run in seconds."""
    coarse_phantoms(monkeypatch)
    cheap_models(monkeypatch)
    with untraced_networks():
        yield


@pytest.fixture(autouse=True, scope="module")
def _settled_at_once() -> Iterator[None]:
    """A study has to stay as it is from one look of the sensor to the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CSFD_SETTLE_S", "0")
        yield


@pytest.fixture(autouse=True, scope="module")
def _plain_figures() -> Iterator[None]:
    """What is tried here is who makes a report and when, not how it looks."""
    with pytest.MonkeyPatch.context() as patch:
        plain_figures(patch)
        yield


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A schedule's context takes no instance that lives in memory alone."""
    with small_instance(tmp_path / "home") as found:
        yield found
