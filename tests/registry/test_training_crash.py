"""SIGKILL in the middle of a training: all stays as it was, another machine goes on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.challenges import IDENTITY
from support.drawn_crops import manifest_of, write_store
from support.killed_training import KILLED, NAME, SHORT, go_on, train_until_killed

from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.classification.fit import (
    fit_classifier,
    is_current,
    plan_classifier,
)
from csfd_core.registry.champion import ChampionRegistry
from csfd_core.registry.contest import hold_contest
from csfd_core.registry.decision import PromotionConfig
from csfd_core.runtime.tracking import tracked_run
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_training_leaves_everything_and_the_next_goes_on(
    tmp_path: Path, start_mlflow: Callable[[Path], str]
) -> None:
    stores = write_store(tmp_path / "store", 60)
    registry = ChampionRegistry(stores, start_mlflow(tmp_path))
    manifest = manifest_of(stores)
    fit_classifier(stores, plan_classifier(NAME, 0, SHORT, manifest))
    with tracked_run(registry.tracking_uri, "classification", IDENTITY) as run:
        # Any first champion: its scores are not what this is about.
        easy = PromotionConfig(repeats=100, least_subjects=2)
        hold_contest(registry, NAME, run, easy, by="a test")
    before, holder = contents(tmp_path / "store"), registry.champion()
    fit = plan_classifier(NAME, 0, KILLED, manifest)
    train_until_killed(tmp_path / "store", tmp_path)
    after = contents(tmp_path / "store")
    kept = {path for path in after if path.startswith("checkpoints/")}
    assert {path: after[path] for path in after if path not in kept} == before
    assert ChampionRegistry(stores, registry.tracking_uri).champion() == holder
    assert not is_current(stores, fit)
    assert {Path(path).name.partition("-fold_0-")[0] for path in kept} == {NAME}
    assert {"".join(Path(path).suffixes) for path in kept} == {".npz", ".studies.json"}

    _, epochs = go_on(stores)
    assert epochs == [3]  # the two that were done are not done again
    assert is_current(stores, fit)
    assert stores.root.entries("checkpoints") == []
    whole = Stores(Location(tmp_path / "other"))
    write_store(tmp_path / "other", 60)
    go_on(whole)
    resumed, straight = (
        ClassifierStore(found.root).read_weights(NAME, 0) for found in (stores, whole)
    )
    for ours, theirs in zip(resumed, straight, strict=True):
        np.testing.assert_array_equal(ours, theirs)
