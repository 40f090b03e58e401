"""Gives the general classifiers a reference, without training them again.

Run ``python -m csfd_core.pretraining.reference WORK OUT``: it cuts some of the phantoms
that they have learnt from, and those that were held out, measures them, and writes what
it finds into the cards in OUT. A training of ``csfd_core.pretraining.classifier`` has
done so by itself.
"""

import argparse
import logging
from pathlib import Path
from typing import Final

from csfd_core.classification.classifier_store import CARD, ClassifierStore
from csfd_core.classification.general import GENERAL_FOLD
from csfd_core.classification.reference import Reference
from csfd_core.classification.training_reference import build_reference
from csfd_core.errors import StoreError
from csfd_core.pretraining.classifier import NETWORKS, cut_phantoms, phantom_sets
from csfd_core.runtime.executors import default_workers
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores

_TRAINING: Final = 40  # necks, each broken twice
_HELD_OUT: Final = 60
_log = logging.getLogger(__name__)


def give_reference(stores: Stores, classifiers: ClassifierStore, name: str) -> None:
    """Write the reference of a general classifier into its card.

    Args:
        stores: With crops of some of its phantoms.
        classifiers: Where it lies.
        name: Of the network.

    Raises:
        StoreError: If it is not there, or too few of its phantoms are.
    """
    result = classifiers.result(name, GENERAL_FOLD)
    card = result.card
    cut = {
        uid
        for uid in (*card.training_studies, *card.validation_studies)
        if stores.crops.read_note(uid) is not None
    }
    reference: Reference | None = build_reference(
        stores,
        cut & set(card.training_studies),
        cut & set(card.validation_studies),
        result.predictions,
    )
    if reference is None:
        raise StoreError(
            f"Too few phantoms of {name} are cut: {len(cut)}. Cut more of them."
        )
    changed = card.model_copy(update={"reference": reference})
    classifiers.of_fold(name, GENERAL_FOLD).write(CARD, changed.to_json())


def main() -> None:
    """Parse the arguments, cut and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="Folder for phantoms.")
    parser.add_argument("out", type=Path, help="Folder of the general classifiers.")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--necks", type=int, default=_TRAINING)
    parser.add_argument("--validation", type=int, default=_HELD_OUT)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    stores = Stores(Location(arguments.work))
    sets = phantom_sets(arguments.necks, arguments.validation)
    cut_phantoms(stores, sets, default_workers(arguments.necks))
    for name in arguments.networks:
        give_reference(stores, ClassifierStore(Location(arguments.out), ""), name)
        _log.info("%s has a reference", name)


if __name__ == "__main__":
    main()
