"""Trains the general model that comes with csfd, on nothing but phantoms.

Run ``python -m csfd_core.pretraining.segmentation OUT``; with ``--start FOLDER`` it
goes on from an earlier model. Every epoch some phantoms of a pool are replaced by new
ones, so that no more than a few samples are drawn from each. Needs no data and no
network; run again with the same OUT, it goes on where it was stopped.
"""

import argparse
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import numpy as np

from csfd_core.dicom.pixels import window_to_uint8
from csfd_core.learning.checkpoint import Checkpoint
from csfd_core.learning.loop import EpochRow, Trained
from csfd_core.phantom.config import GridOverride
from csfd_core.phantom.volume import build_phantom_volume
from csfd_core.pretraining.phantoms import phantom_config
from csfd_core.segmentation.augment import Labels, cut_field_of_view
from csfd_core.segmentation.bundle import ModelBundle, read_bundle, write_bundle
from csfd_core.segmentation.card import SegmentationCard
from csfd_core.segmentation.config import (
    SMALL,
    TrainingConfig,
)
from csfd_core.segmentation.data import LAST, GridVolume
from csfd_core.segmentation.training import (
    VALIDATION_DICE,
    Plan,
    TrainingData,
    train,
)
from csfd_core.store.locations import Location
from csfd_core.vocabulary import BONE_WINDOW, LEVEL_NAMES

TRAINING_SEED: Final = 90_001  # phantom seeds that no other part of csfd uses
VALIDATION_SEED: Final = 90_002
_VALIDATION: Final = 8
_SPACING_MM: Final = 1.5
_SHAPE: Final = (184, 136, 136)
_log = logging.getLogger(__name__)


class PhantomPool:
    """Endless phantoms: ``size`` at a time, ``fresh`` of them new in every epoch."""

    def __init__(self, seed: int, size: int, fresh: int) -> None:
        """Start making the first phantoms."""
        self._seed, self._size, self._fresh = seed, size, fresh
        self._workers = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        self._made: dict[int, Future[GridVolume]] = {}

    def volumes(self, epoch: int) -> Sequence[GridVolume]:
        """Return the phantoms of an epoch and start making those of the next."""
        first = epoch * self._fresh
        for index in range(first, first + self._size + self._fresh):
            if index not in self._made:
                self._made[index] = self._workers.submit(
                    phantom_volume, self._seed, index
                )
        for index in [index for index in self._made if index < first]:
            self._made.pop(index).cancel()
        return [self._made[i].result() for i in range(first, first + self._size)]

    def close(self) -> None:
        """Stop making phantoms."""
        self._workers.shutdown(cancel_futures=True)


def pretrain(settings: TrainingConfig, folder: Path, pool: int = 120) -> Trained:
    """Train the small model on phantoms; write it to ``folder`` and return it."""
    phantoms = PhantomPool(TRAINING_SEED + settings.seed * 10, pool, pool // 12)
    started = time.monotonic()
    start, earlier = None, "none"
    if settings.initial != "none":
        earlier = "an earlier run of this command"
        start = read_bundle(Location(settings.initial)).weights
    try:
        validation = validation_volumes()
        data = TrainingData(training=phantoms, validation=validation)
        plan = Plan(model=SMALL, training=settings, initial=start)
        checkpoint = Checkpoint(Location(folder), "general", inputs=repr(settings))
        result = train(
            plan, data, checkpoint, lambda row, _: _report(row, settings.epochs)
        )
    finally:
        phantoms.close()
    card = SegmentationCard(
        model_id=f"general-{settings.seed}-{settings.epochs}",
        networks=SMALL,
        # Not the place of an earlier model, which means nothing elsewhere.
        training=replace(settings, initial=earlier),
        training_data="procedural phantoms only, domain randomization",
        best_epoch=result.best_epoch,
        validation_dice_on_grid=round(result.best(VALIDATION_DICE.score), 4),
        seconds=round(time.monotonic() - started),
    )
    bundle = ModelBundle(card=card, weights=result.weights)
    write_bundle(Location(folder), bundle)
    return result


def validation_volumes() -> list[GridVolume]:
    """Return necks to stop by; every second scan ends within its column."""
    volumes = [phantom_volume(VALIDATION_SEED, i) for i in range(_VALIDATION)]
    return [_cut(v, i) if i % 2 else v for i, v in enumerate(volumes)]


def _cut(volume: GridVolume, index: int) -> GridVolume:
    """Draw ends of the scan until a cervical level is missing."""
    whole = _levels(volume.labels)
    draws = (
        cut_field_of_view(
            volume.grey.astype(np.float32),
            volume.labels,
            np.random.default_rng(seed),
            volume.spacing_mm,
        )
        for seed in count(1000 * index)
    )
    grey, labels = next(draw for draw in draws if _levels(draw[1]) < whole)
    return replace(volume, grey=grey.astype(np.uint8), labels=labels)


def _levels(labels: Labels) -> set[int]:
    return {int(label) for label in np.unique(labels) if 0 < label <= LAST}


def phantom_volume(seed: int, index: int) -> GridVolume:
    """Return one phantom study on the grid for training, its field of view wide."""
    rng = np.random.default_rng([seed, index, 7])
    grid = GridOverride(
        shape_zyx=_SHAPE,
        spacing_zyx_mm=(_SPACING_MM,) * 3,
        centre_lps_mm=(0.0, float(rng.uniform(-25, 15)), float(rng.uniform(-25, 25))),
    )
    volume = build_phantom_volume(phantom_config(seed, index), index, grid=grid)
    return GridVolume(
        study_uid=volume.plan.study_uid,
        grey=window_to_uint8(volume.hounsfield.astype(np.float32), BONE_WINDOW),
        labels=volume.mask,
        spacing_mm=_SPACING_MM,
    )


def _report(row: EpochRow, epochs: int) -> None:
    _log.info(
        "epoch %d: loss %.4f, validation Dice %.4f (%s), %.0f s, %.0f s left",
        row["epoch"],
        row["loss"],
        row[VALIDATION_DICE.score],
        " ".join(f"{row[f'dice_{name}']:.2f}" for name in LEVEL_NAMES),
        row["seconds"],
        row["seconds"] * (epochs - row["epoch"]),
    )


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=1.5e-3, help="Learning rate.")
    parser.add_argument("--pool", type=int, default=120, help="Phantoms at a time.")
    parser.add_argument("--start", help="Folder of a model to go on from.")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    settings = replace(
        TrainingConfig(),
        epochs=arguments.epochs,
        steps_per_epoch=arguments.steps,
        seed=arguments.seed,
        learning_rate=arguments.rate,
        strength=1.0,
        initial=arguments.start or "none",
    )
    pretrain(settings, arguments.out, arguments.pool)


if __name__ == "__main__":
    main()
