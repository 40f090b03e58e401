"""SIGKILL at many moments of a promotion: whole after one more time."""

import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support.challenges import LABELS, challenge, number_of, train, train_and_challenge
from support.contenders import write_store_manifest
from support.kills import MOMENTS, done_in, killed_after

from csfd_core.registry.appointment import standing_of
from csfd_core.registry.champion import ChampionRegistry
from csfd_core.registry.history import Alias, read_history
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores


def open_registry(folder: Path) -> ChampionRegistry:
    stores = Stores(Location(folder / "store"))
    return ChampionRegistry(stores, f"sqlite:///{folder}/mlflow/mlflow.db")


def promote(folder: Path) -> None:
    challenge(open_registry(folder))


def facts(folder: Path) -> dict[str, object]:
    registry = open_registry(folder)
    files = registry.stores.root.find("models")[0]
    history = read_history(registry.stores.root)
    return {
        "aliases": [number_of(registry, alias) for alias in Alias],
        "versions": [version.number for version in registry.versions()],
        "standing": standing_of(registry)[1],
        "history": [(c.alias, c.before, c.after, c.action) for c in history],
        "files": [file.path for file in files if "/history/" not in file.path],
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("networks")
def test_a_promotion_that_is_killed_is_whole_after_one_more_time(
    tmp_path: Path, start_mlflow: Callable[[Path], str]
) -> None:
    before = tmp_path / "before"
    (before / "mlflow").mkdir(parents=True)
    start_mlflow(before / "mlflow")
    registry = open_registry(before)
    write_store_manifest(registry.stores, LABELS)
    train_and_challenge(registry, 1.5)
    train(registry.stores, 3.0)
    expected = tmp_path / "expected"
    shutil.copytree(before, expected)
    whole_s = done_in(partial(promote, expected))
    assert facts(expected)["aliases"] == [2, 2]
    moments, working = random.Random(0), 0
    for number in range(MOMENTS):
        folder = tmp_path / f"store {number}"
        shutil.copytree(before, folder)
        delay_s = moments.uniform(0.1, 1.1) * whole_s
        took_s = killed_after(partial(promote, folder), delay_s)
        working += took_s is None
        whole_s = min(whole_s, took_s or whole_s)  # the first time takes longest
        promote(folder)
        assert facts(folder) == facts(expected)
        assert list(folder.rglob("*.tmp-*")) == []
        shutil.rmtree(folder)
    assert working > MOMENTS / 4  # it was killed while it worked, not before or after
