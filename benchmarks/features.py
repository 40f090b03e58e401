"""What do cached features save, and what does a study cost each classifier?

The alternative is an epoch that runs the frozen backbone on every slice again, as
training without a cache does. Crops are noise: what a network computes does not depend
on what it sees.
"""

import tempfile
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness import Result, in_turns, ratios, spread, timed
from benchmarks.studies import crop_note
from csfd_core.classification.classifier import Classifier, CropShape
from csfd_core.classification.classifiers import CLASSIFIERS, open_classifier
from csfd_core.classification.config import settings_of
from csfd_core.classification.vertebrae import Vertebra
from csfd_core.crops.cutting import CROP_PROFILES
from csfd_core.runtime.compute import computing
from csfd_core.store.crops import CropStore
from csfd_core.store.locations import Location
from csfd_core.vocabulary import LEVEL_NAMES

STUDIES = 2
ROUNDS = 3
LEAST = 10.0
_CACHED = "resnet50"


def _rows(uid: str) -> list[dict[str, Any]]:
    """Return the crops of a study of noise, as the crop store takes them."""
    config = CROP_PROFILES["demo"]
    rng = np.random.default_rng(0)
    shape = (config.channels, config.side_px, config.side_px)
    mask = np.full(shape[1:], 255, dtype=np.uint8).tobytes()
    return [
        {
            "level": level,
            "crop_index": index,
            "z_mm": float(index),
            "label": 0,
            "slice_label": 0,
            "boxes": [],
            "visible_share": 1.0,
            "confidence": 1.0,
            "fold": 0,
            "is_test": False,
            "image": rng.integers(0, 256, shape, dtype=np.uint8).tobytes(),
            "mask": mask,
        }
        for level in LEVEL_NAMES
        for index in range(config.slices)
    ]


def _study() -> list[Vertebra]:
    config = CROP_PROFILES["demo"]
    rng = np.random.default_rng(0)
    side = config.side_px
    return [
        Vertebra(
            images=rng.integers(
                0, 256, (config.slices, config.channels, side, side), dtype=np.uint8
            ),
            masks=np.full((config.slices, side, side), 255, dtype=np.uint8),
            heights_mm=np.arange(config.slices, dtype=float),
            boxes=None,
        )
        for _ in LEVEL_NAMES
    ]


def _cost(classifier: Classifier, study: list[Vertebra]) -> dict[str, float]:
    classifier.logits(study)  # the first call builds the graph
    return spread(
        [timed(lambda: classifier.logits(study)) * 1000 for _ in range(ROUNDS)], 0
    )


def run() -> Result:
    """Time a pass over cached and over fresh features, and a study of each network."""
    config, crop = settings_of("demo"), CROP_PROFILES["demo"]
    shape = CropShape.of(crop.to_note())
    uids = [f"1.2.826.0.1.{index}" for index in range(1, STUDIES + 1)]
    with tempfile.TemporaryDirectory() as folder, computing():
        root = Location(folder)
        crops = CropStore(root)
        for uid in uids:
            crops.write(uid, _rows(uid), crop_note(uid, crop))
        table = pd.DataFrame(
            [(uid, level, "x") for uid in uids for level in LEVEL_NAMES],
            columns=["study_uid", "level", "content_hash"],
        )
        network = open_classifier(_CACHED, config, shape, root)
        study = _study()
        cached, fresh = in_turns(
            lambda: network.stored_logits(crops, table),
            lambda: [network.logits(study) for _ in uids],
            ROUNDS,
        )
        costs = {
            name: _cost(open_classifier(name, config, shape, root), study)
            for name in CLASSIFIERS
        }
    times = ratios(fresh, cached)
    return Result(
        question=f"An epoch of {_CACHED} on cached features against running it again",
        target=f"{LEAST:g} times",
        met=times["median"] >= LEAST,
        data=f"{STUDIES} studies of {len(LEVEL_NAMES)} vertebrae, demo profile",
        measured={
            "cached_ms_per_study": spread([t / STUDIES * 1000 for t in cached], 1),
            "fresh_ms_per_study": spread([t / STUDIES * 1000 for t in fresh], 0),
            "ratio": times,
            "ms_per_study": costs,
        },
    )
