"""Training with tiny networks: it learns, repeats itself, and survives a kill."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support import tiny_segmentation
from support.paths import ROOT, TESTS
from support.tiny_segmentation import train_tiny


def kill_in_epoch_4(folder: Path, epochs: int) -> None:
    """Train in a process of its own, which dies in the middle of its fourth epoch."""
    paths = os.pathsep.join([str(TESTS), str(ROOT)])
    process = subprocess.Popen(
        [sys.executable, "-m", tiny_segmentation.__name__, str(folder), str(epochs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": paths},
    )
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            if line.startswith("epoch 3"):
                break
        time.sleep(0.05)  # in the middle of the next epoch
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Keras' and TensorFlow's own
def test_a_killed_training_goes_on_and_ends_as_if_nothing_had_happened(
    tmp_path: Path,
) -> None:
    whole = train_tiny(tmp_path / "whole", 6)
    kill_in_epoch_4(tmp_path / "killed", 6)
    resumed = train_tiny(tmp_path / "killed", 6)
    assert resumed["epochs"] == [1, 2, 3, 4, 5, 6]
    assert resumed == whole  # the losses and the very weights
    losses = np.array(whole["losses"])
    assert losses[-1] < losses[0]
