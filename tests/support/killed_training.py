"""A training of seconds that is killed after its second epoch, on a machine that goes.

As a program, with the URL of a store, it is that training.
"""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from csfd_core.classification.classifier_store import FoldResult
from csfd_core.classification.config import NONE, ClassifierConfig
from csfd_core.classification.fit import fit_classifier, plan_classifier
from csfd_core.learning.loop import EpochRow
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from support.drawn_crops import manifest_of
from support.paths import ROOT, TESTS

NAME = "basic_cnn"
SHORT = ClassifierConfig(
    epochs=1,
    steps_per_epoch=4,
    batch_size=8,
    patch_px=16,
    filters=(4, 8, 8),
    initial=NONE,
)
KILLED = replace(SHORT, epochs=3, seed=1)


def train_until_killed(store: str | Path, folder: Path) -> None:
    """Begin a training in a process with a home and a temporary folder of its own.

    When it was killed, both are gone.
    """
    machine = folder / "machine"
    machine.mkdir()
    there = {
        "HOME": str(machine),
        "TMPDIR": str(machine),
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(ROOT)]),
    }
    call = [sys.executable, "-W", "ignore", "-m", __name__, str(store)]
    done = subprocess.run(
        call, check=False, capture_output=True, env={**os.environ, **there}
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    shutil.rmtree(machine)


def go_on(stores: Stores) -> tuple[FoldResult, list[float]]:
    """Do the same training, or what is left of it; return the epochs that were."""
    fit = plan_classifier(NAME, 0, KILLED, manifest_of(stores))
    epochs: list[float] = []
    return fit_classifier(stores, fit, lambda row: epochs.append(row["epoch"])), epochs


def _kill(row: EpochRow) -> None:
    if row["epoch"] == 2:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    begun = Stores(Location(sys.argv[1]))
    fit_classifier(begun, plan_classifier(NAME, 0, KILLED, manifest_of(begun)), _kill)
