"""What does the input of a classifier's training cost: in time, and in memory?

A step on batches that are made while it trains, against a step on the same batch held
in memory, in turns; and the peak of a training on as many studies as the competition
has. Crops are noise with a mask and boxes of the usual size: neither time nor memory
depends on what they show. All but a few studies are links to the files of these few.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmarks.harness import Result, in_turns, ratios, spread
from benchmarks.studies import crop_note
from csfd_core.classification.basic_cnn.network import NAME as BASIC_CNN
from csfd_core.classification.basic_cnn.network import BasicCnn
from csfd_core.classification.basic_cnn.patches import PatchPool
from csfd_core.classification.classifier import CropShape, TrainingSet
from csfd_core.classification.classifiers import open_classifier
from csfd_core.classification.config import settings_of
from csfd_core.classification.vertebrae import read_vertebrae
from csfd_core.crops.cutting import CROP_PROFILES, CropConfig
from csfd_core.learning.checkpoint import Checkpoint
from csfd_core.learning.loop import take_steps
from csfd_core.runtime.compute import computing
from csfd_core.store.crops import CropStore
from csfd_core.store.locations import Location
from csfd_core.vocabulary import LEVEL_NAMES

STUDIES, WRITTEN = 2019, 3
PATIENTS_HELD_OUT = 10  # studies to stop by: they are read one by one
STEPS, ROUNDS = 40, 5
MOST_SLOWER, MOST_MB = 1.05, 4000.0
_BACKBONE: Final = "resnet50"  # 2048 features, as inception_v3 and efficientnet_b5
_FRACTURED: Final = 0.1  # of the vertebrae, as in the competition's labels
_MASK_MM: Final = 55.0  # diameter of the disc that stands for a vertebra


def run() -> Result:
    """Time the steps of the basic CNN, then train each kind once for its memory."""
    real, held = _step_times()
    slower = ratios(real, held)
    peaks = {
        f"{name}, {profile}": _peak(name, profile)
        for profile in CROP_PROFILES
        for name in (BASIC_CNN, _BACKBONE)
    }
    return Result(
        question="Input of a training: time of a step, and memory",
        target=f"a step at most {MOST_SLOWER - 1:.0%} slower than with the batch in "
        f"memory; below {MOST_MB:.0f} MB for the crops of {STUDIES} studies",
        met=slower["median"] <= MOST_SLOWER and max(peaks.values()) < MOST_MB,
        data=f"crops of noise: {STUDIES} studies of {len(LEVEL_NAMES)} vertebrae",
        measured={
            "real_ms_per_step": spread([t / STEPS * 1000 for t in real], 1),
            "held_ms_per_step": spread([t / STEPS * 1000 for t in held], 1),
            "alternative": "the same batch, held in memory",
            "ratio": slower,
            "peak_mb": peaks,
        },
    )


def _step_times() -> tuple[list[float], list[float]]:
    """Return seconds of some steps of the demo profile: on real and on held batches."""
    config, crop = settings_of("demo"), CROP_PROFILES["demo"]
    with tempfile.TemporaryDirectory() as folder, computing():
        root = Location(folder)
        rows = write_crops(root, WRITTEN * 10, crop)
        pool = PatchPool(config.patch_px, config.mined_share)
        for place, vertebra in read_vertebrae(CropStore(root), rows):
            pool.add(vertebra, int(rows["label"][place]))
        model = BasicCnn(config, CropShape.of(crop.to_note()), root).compiled()
        rngs = [np.random.default_rng(step) for step in range(STEPS)]
        one = pool.batch(config.batch_size, rngs[0])
        return in_turns(
            lambda: take_steps(
                model, (pool.batch(config.batch_size, rng) for rng in rngs)
            ),
            lambda: take_steps(model, (one for _ in rngs)),
            ROUNDS,
        )


def write_crops(root: Location, studies: int, crop: CropConfig) -> pd.DataFrame:
    """Write the crops of a few studies, link the rest to them; return the manifest."""
    store, rng = CropStore(root), np.random.default_rng(0)
    uids = [f"1.2.826.0.1.{number}" for number in range(1, studies + 1)]
    for number, uid in enumerate(uids):
        if number < WRITTEN:
            store.write(uid, _rows(crop, rng), crop_note(uid, crop))
        else:
            original = Path(str(root)) / store.path(uids[number % WRITTEN])
            os.link(original, Path(str(root)) / store.path(uid))
    rows = pd.DataFrame(
        [(uid, level) for uid in uids for level in LEVEL_NAMES],
        columns=["study_uid", "level"],
    )
    rows["label"] = (rng.random(len(rows)) < _FRACTURED).astype(int)
    rows["content_hash"] = "x"
    rows["slice_labels"] = None
    return rows


def _rows(crop: CropConfig, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return the crops of a study, as the crop store takes them."""
    shape = (crop.channels, crop.side_px, crop.side_px)
    off = np.arange(crop.side_px) - (crop.side_px - 1) / 2
    inside = np.hypot(*np.meshgrid(off, off)) * crop.pixel_mm < _MASK_MM / 2
    mask = np.where(inside, 255, 0).astype(np.uint8).tobytes()
    middle = crop.side_px / 2
    return [
        {
            "level": level,
            "crop_index": index,
            "z_mm": float(index),
            "label": 0,
            "slice_label": 0,
            "boxes": [middle - 9, middle - 9, middle + 9, middle + 9],
            "visible_share": 1.0,
            "confidence": 1.0,
            "fold": 0,
            "is_test": False,
            "image": rng.integers(0, 256, shape, dtype=np.uint8).tobytes(),
            "mask": mask,
        }
        for level in LEVEL_NAMES
        for index in range(crop.slices)
    ]


def _peak(name: str, profile: str) -> float:
    """Return the peak memory in MB of a training in a process of its own."""
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.pipeline", name, profile],
        capture_output=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    return float(json.loads(child.stdout.splitlines()[-1])["peak_mb"])


def train_once(name: str, profile: str) -> None:
    """Train for two epochs of few steps on crops of 2019 studies; print the peak."""
    config = settings_of(profile, epochs=2, steps_per_epoch=2, weights="none")
    # Fine-tuning holds one study at a time, and its steps take minutes without a GPU.
    config = replace(config, fine_tune_epochs=0)
    crop = CROP_PROFILES[profile]
    with tempfile.TemporaryDirectory() as folder, computing():
        root = Location(f"{folder}/store")
        rows = write_crops(root, STUDIES, crop)
        held_out = rows["study_uid"].isin(
            rows["study_uid"].unique()[:PATIENTS_HELD_OUT]
        )
        data = TrainingSet(
            crops=CropStore(root),
            training=rows[~held_out],
            validation=rows[held_out],
            checkpoint=Checkpoint(root, name),
        )
        classifier = open_classifier(name, config, CropShape.of(crop.to_note()), root)
        if name != BASIC_CNN:
            _link_features(classifier, data, root)
        classifier.train(data)
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    print(json.dumps({"peak_mb": round(peak / 1000, 1)}))


def _link_features(classifier: Any, data: TrainingSet, root: Location) -> None:  # noqa: ANN401
    """Compute the features of a study; link those of the others to them."""
    one = data.training[
        data.training["study_uid"] == data.training["study_uid"].iloc[0]
    ]
    classifier.stored_logits(data.crops, one)
    (original,) = (Path(str(root)) / "features").rglob("*.npz")
    uid = str(one["study_uid"].iloc[0])
    others = pd.concat([data.training, data.validation])["study_uid"].unique()
    for other in others:
        if other != uid:
            os.link(original, original.with_name(original.name.replace(uid, other)))


if __name__ == "__main__":
    train_once(*sys.argv[1:])
