"""A store of its own and its registry, in an MLflow that a module's tests share."""

from pathlib import Path

import pytest
from support.challenges import LABELS, kept_predictions
from support.contenders import write_store_manifest

from csfd_core.registry import contest
from csfd_core.registry.champion import ChampionRegistry
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    found = Stores(Location(tmp_path / "store"))
    write_store_manifest(found, LABELS)
    return found


@pytest.fixture
def registry(stores: Stores, uri: str, networks: None) -> ChampionRegistry:
    return ChampionRegistry(stores, uri)


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network is behind these classifiers; the frozen tables speak for them."""
    monkeypatch.setattr(contest, "_predict_anew", kept_predictions)
