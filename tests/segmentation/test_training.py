"""Training with tiny networks: it learns, repeats itself, and survives a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

CODE = """
import sys, json, hashlib, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import numpy as np
from csfd_core.segmentation.config import ModelConfig, NetworkConfig, TrainingConfig
from csfd_core.segmentation.data import GridVolume
from csfd_core.segmentation.training import FixedVolumes, Plan, TrainingData, train

def network(classes, coordinates):
    return NetworkConfig(shape_zyx=(16, 16, 16), spacing_mm=6.0, classes=classes,
                         filters=(4, 8), stem=1, coordinates=coordinates)

def volume(seed):
    rng = np.random.default_rng(seed)
    labels = np.zeros((60, 60, 60), dtype=np.uint8)
    for level in range(1, 8):
        labels[8 + 6 * level : 13 + 6 * level, 20:40, 20:40] = level
    grey = np.where(labels > 0, 160, 70) + rng.normal(0, 5, labels.shape)
    return GridVolume(str(seed), grey.astype(np.uint8), labels, 1.5)

folder, epochs = Path(sys.argv[1]), int(sys.argv[2])
plan = Plan(
    model=ModelConfig(locator=network(2, False), segmenter=network(8, True)),
    training=TrainingConfig(epochs=epochs, steps_per_epoch=4, strength=0.3,
                            learning_rate=3e-3, initial="none", patience=0),
)
data = TrainingData(training=FixedVolumes([volume(1)]), validation=[volume(2)])
print("ready", flush=True)
result = train(plan, data, folder, lambda e, m: print("epoch", e.epoch, flush=True))
digest = hashlib.sha256(b"".join(w.tobytes() for w in result.weights)).hexdigest()
losses = [e.loss for e in result.history]
print(json.dumps({"epochs": [e.epoch for e in result.history], "losses": losses,
                  "digest": digest, "best": result.best_epoch}))
"""


def start(folder: Path, epochs: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        [sys.executable, "-c", CODE, str(folder), str(epochs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )


def finish(process: subprocess.Popen[str]) -> dict[str, object]:
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    found: dict[str, object] = json.loads(out.strip().splitlines()[-1])
    return found


@pytest.mark.slow
def test_a_killed_training_goes_on_and_ends_as_if_nothing_had_happened(
    tmp_path: Path,
) -> None:
    whole = finish(start(tmp_path / "whole", 6))
    process = start(tmp_path / "killed", 6)
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            if line.startswith("epoch 3"):
                break
        time.sleep(0.05)  # in the middle of the next epoch
        process.send_signal(signal.SIGKILL)
        process.wait()
    resumed = finish(start(tmp_path / "killed", 6))
    assert resumed["epochs"] == [1, 2, 3, 4, 5, 6]
    assert resumed == whole  # the losses and the very weights
    losses = np.array(whole["losses"])
    assert losses[-1] < losses[0]
