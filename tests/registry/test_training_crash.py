"""SIGKILL in the middle of a training: all stays as it was, and the next goes on."""

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from support.challenges import IDENTITY
from support.drawn_crops import manifest_of, write_store
from support.paths import TESTS

from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.classification.config import NONE, ClassifierConfig
from csfd_core.classification.fit import (
    fit_classifier,
    is_current,
    plan_classifier,
)
from csfd_core.learning.checkpoint import checkpoint_folder
from csfd_core.registry.champion import ChampionRegistry
from csfd_core.registry.contest import hold_contest
from csfd_core.registry.decision import PromotionConfig
from csfd_core.runtime.tracking import tracked_run
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores

NAME = "basic_cnn"
OLD = ClassifierConfig(
    epochs=1,
    steps_per_epoch=4,
    batch_size=8,
    patch_px=16,
    filters=(4, 8, 8),
    initial=NONE,
)
NEW = replace(OLD, epochs=3, seed=1)
TRAIN = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from support.drawn_crops import manifest_of
from csfd_core.classification.config import ClassifierConfig
from csfd_core.classification.fit import fit_classifier, plan_classifier
from csfd_core.ingest.convert import Stores
from csfd_core.store.locations import Location

stores = Stores(Location({store!r}))
config = ClassifierConfig(**{config!r})
fit = plan_classifier("basic_cnn", 0, config, manifest_of(stores))

def killed(row):
    if row["epoch"] == 2:
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    fit_classifier(stores, fit, killed)
"""


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
    fit_classifier(stores, plan_classifier(NAME, 0, OLD, manifest))
    with tracked_run(registry.tracking_uri, "classification", IDENTITY) as run:
        # Any first champion: its scores are not what this is about.
        easy = PromotionConfig(repeats=100, least_subjects=2)
        hold_contest(registry, NAME, run, easy, by="a test")
    before, holder = contents(tmp_path / "store"), registry.champion()
    fit = plan_classifier(NAME, 0, NEW, manifest)
    script = tmp_path / "train.py"
    script.write_text(
        TRAIN.format(
            tests=str(TESTS),
            store=str(tmp_path / "store"),
            config=asdict(NEW),
        )
    )
    call = [sys.executable, "-W", "ignore", str(script)]
    done = subprocess.run(call, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert contents(tmp_path / "store") == before
    assert ChampionRegistry(stores, registry.tracking_uri).champion() == holder
    assert not is_current(stores, fit)
    assert any(checkpoint_folder(stores.root, fit.inputs).iterdir())

    epochs: list[float] = []
    fit_classifier(stores, fit, lambda row: epochs.append(row["epoch"]))
    assert epochs == [3]  # the two that were done are not done again
    assert is_current(stores, fit)
    assert not checkpoint_folder(stores.root, fit.inputs).exists()
    whole = Stores(Location(tmp_path / "other"))
    write_store(tmp_path / "other", 60)
    fit_classifier(whole, plan_classifier(NAME, 0, NEW, manifest_of(whole)))
    resumed, straight = (
        ClassifierStore(found.root).read_weights(NAME, 0) for found in (stores, whole)
    )
    for ours, theirs in zip(resumed, straight, strict=True):
        np.testing.assert_array_equal(ours, theirs)
