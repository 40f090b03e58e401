"""A segmentation training of seconds, in this process or in one of its own.

As a program, with a folder and a number of epochs, it says when an epoch is done.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np

from csfd_core.learning.checkpoint import Checkpoint
from csfd_core.segmentation.config import ModelConfig, NetworkConfig, TrainingConfig
from csfd_core.segmentation.data import GridVolume
from csfd_core.segmentation.training import FixedVolumes, Plan, TrainingData, train
from csfd_core.store.locations import Location


def network(classes: int, *, coordinates: bool) -> NetworkConfig:
    return NetworkConfig(
        shape_zyx=(16, 16, 16),
        spacing_mm=6.0,
        classes=classes,
        filters=(4, 8),
        stem=1,
        coordinates=coordinates,
    )


def volume(seed: int) -> GridVolume:
    rng = np.random.default_rng(seed)
    labels = np.zeros((60, 60, 60), dtype=np.uint8)
    for level in range(1, 8):
        labels[8 + 6 * level : 13 + 6 * level, 20:40, 20:40] = level
    grey = np.where(labels > 0, 160, 70) + rng.normal(0, 5, labels.shape)
    return GridVolume(str(seed), grey.astype(np.uint8), labels, 1.5)


def train_tiny(folder: Path, epochs: int) -> dict[str, object]:
    """Train; return the epochs with their losses, and a digest of the weights."""
    plan = Plan(
        model=ModelConfig(
            locator=network(2, coordinates=False),
            segmenter=network(8, coordinates=True),
        ),
        training=TrainingConfig(
            epochs=epochs,
            steps_per_epoch=4,
            strength=0.3,
            learning_rate=3e-3,
            initial="none",
            patience=0,
        ),
    )
    data = TrainingData(training=FixedVolumes([volume(1)]), validation=[volume(2)])
    checkpoint = Checkpoint(Location(folder), "tiny")
    result = train(plan, data, checkpoint, lambda row, _: _tell(row["epoch"]))
    weights = b"".join(array.tobytes() for array in result.weights)
    return {
        "epochs": [epoch["epoch"] for epoch in result.history],
        "losses": [epoch["loss"] for epoch in result.history],
        "digest": hashlib.sha256(weights).hexdigest(),
        "best": result.best_epoch,
    }


def _tell(epoch: float) -> None:
    print("epoch", int(epoch), flush=True)  # noqa: T201


if __name__ == "__main__":
    train_tiny(Path(sys.argv[1]), int(sys.argv[2]))
