"""Trains the general classifiers that come with csfd, on nothing but phantoms.

Run ``python -m csfd_core.pretraining.classifier WORK OUT``. Phantoms are cut once for
all classifiers and kept in WORK; run again, it goes on where it was stopped. Needs no
data and no network.
"""

import argparse
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from csfd_core.classification.classifier_store import (
    CARD,
    PREDICTIONS,
    WEIGHTS,
    ClassifierStore,
    FoldResult,
)
from csfd_core.classification.config import NONE, ClassifierConfig, settings_of
from csfd_core.classification.fit import fit_classifier, is_current, plan_classifier
from csfd_core.classification.general import GENERAL_FOLD
from csfd_core.classification.manifest import Manifest, manifest_of, rows_of_study
from csfd_core.data_kind import DataKind
from csfd_core.learning.loop import EpochRow
from csfd_core.learning.splits import Split
from csfd_core.pretraining.phantoms import CROP, PhantomSet, cut_neck
from csfd_core.runtime.executors import completed, default_workers, open_executor
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES

TRAINING_SEED: Final = 90_003  # phantom seeds that no data set has by default
VALIDATION_SEED: Final = 90_004
NETWORKS: Final = ("basic_cnn", "triplanar_cnn")
_IN_MEMORY: Final = 20_000  # vertebrae, of 0.8 MB at most
_log = logging.getLogger(__name__)


def phantom_sets(training_necks: int, validation_necks: int) -> list[PhantomSet]:
    """Return the necks to learn from, and those that stop and calibrate."""
    return [
        PhantomSet(seed=TRAINING_SEED, necks=training_necks, is_training=True),
        PhantomSet(seed=VALIDATION_SEED, necks=validation_necks, is_training=False),
    ]


def cut_phantoms(stores: Stores, sets: Sequence[PhantomSet], workers: int) -> None:
    """Cut the vertebrae of all necks that the store does not have yet."""
    total, done = sum(phantoms.necks for phantoms in sets), 0
    with open_executor(workers) as executor:
        for phantoms in sets:
            cut = partial(cut_neck, stores, phantoms)
            for _, future in completed(executor, cut, range(phantoms.necks)):
                future.result()
                done += 1
                if done % 20 == 0 or done == total:
                    _log.info("%d of %d necks are cut", done, total)


def phantom_manifest(stores: Stores, sets: Sequence[PhantomSet]) -> Manifest:
    """List the vertebrae of all necks; those of the validation are the held-out fold.

    A neck is in one fold alone, with all its studies.
    """
    rows = [row for phantoms in sets for row in _rows_of(stores, phantoms)]
    return manifest_of(rows, CROP.to_note(), DataKind.PHANTOM)


def general_settings(epochs: int, steps: int) -> ClassifierConfig:
    """Return the demo's settings, from nothing, with all vertebrae held in memory."""
    settings = settings_of("demo", epochs=epochs, steps_per_epoch=steps, initial=NONE)
    return replace(settings, most_vertebrae=_IN_MEMORY)


def train_general(
    stores: Stores, name: str, manifest: Manifest, epochs: int, steps: int
) -> FoldResult:
    """Train a network for patches from nothing, unless the store has that very one."""
    config = general_settings(epochs, steps)
    fit = plan_classifier(name, GENERAL_FOLD, config, manifest, Split.VALIDATION)
    if is_current(stores, fit):
        return ClassifierStore(stores.root).result(name, GENERAL_FOLD)
    return fit_classifier(stores, fit, partial(_report, name, epochs))


def _rows_of(stores: Stores, phantoms: PhantomSet) -> Iterator[dict[str, object]]:
    for neck, uids in enumerate(phantoms.study_uids()):
        for uid in uids:
            facts = stores.crops.read_facts(uid).to_pandas().drop_duplicates("level")
            labels = dict(zip(facts["level"], facts["label"], strict=True))
            shared = {
                "study_uid": uid,
                "patient": f"phantom {phantoms.seed} {neck}",
                "fold": phantoms.fold,
                "is_test": False,
            }
            level_labels = {name: labels.get(name) for name in LEVEL_NAMES}
            yield from rows_of_study(stores, shared, level_labels, CROP.to_note())


def _report(name: str, epochs: int, row: EpochRow) -> None:
    _log.info(
        "%s, epoch %d of %d: loss %.3f, validation AUC %.3f, %.0f s",
        name,
        row["epoch"],
        epochs,
        row["loss"],
        row["val_auc"],
        row["seconds"],
    )


def bring_along(stores: Stores, name: str, general: ClassifierStore) -> None:
    """Copy a trained network to those that come with csfd, whose names stay."""
    trained = ClassifierStore(stores.root)
    card = trained.require_card(name, GENERAL_FOLD)
    origin = trained.of_fold(name, GENERAL_FOLD)
    target = general.of_fold(name, GENERAL_FOLD)
    for kind in (WEIGHTS, PREDICTIONS):
        target.write(kind, origin.read(card.file_name(kind)))
    target.write(CARD, card.model_copy(update={"files_mark": ""}).to_json())


def main() -> None:
    """Parse the arguments, cut and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="Folder for phantoms and trainings.")
    parser.add_argument("out", type=Path, help="Folder of the general classifiers.")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--necks", type=int, default=600)
    parser.add_argument("--validation", type=int, default=150)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    stores = Stores(Location(arguments.work))
    sets = phantom_sets(arguments.necks, arguments.validation)
    cut_phantoms(stores, sets, default_workers(arguments.necks))
    manifest = phantom_manifest(stores, sets)
    for name in arguments.networks:
        train_general(stores, name, manifest, arguments.epochs, arguments.steps)
        bring_along(stores, name, ClassifierStore(Location(arguments.out), ""))


if __name__ == "__main__":
    main()
