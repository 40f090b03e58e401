"""A store whose classifier, which needs no network, is the best of a comparison."""

from collections.abc import Callable
from pathlib import Path

import pytest

from csfd_core.store.stores import Stores


@pytest.fixture(autouse=True)
def classifier(bright: None) -> None:
    """Every test here works with the classifier that needs no network."""


@pytest.fixture
def stores(copy_best_store: Callable[[Path], Stores], tmp_path: Path) -> Stores:
    return copy_best_store(tmp_path / "store")
