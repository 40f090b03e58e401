"""A store whose classifier, which needs no network, is the best of a comparison."""

from pathlib import Path

import pytest
from support.drawn_crops import BrightClassifier
from support.drift_store import NAME, write_best_store

from csfd_core.classification import classifiers as registry
from csfd_core.store.stores import Stores


@pytest.fixture(autouse=True)
def bright(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.CLASSIFIERS, NAME, BrightClassifier)


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return write_best_store(tmp_path / "store")
