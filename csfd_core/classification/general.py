"""The general classifiers, which come with csfd, and what a training starts from.

They have learnt from phantoms alone (``csfd_core.pretraining``).
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from csfd_core.classification.card import ClassifierCard
from csfd_core.classification.classifier_store import WEIGHTS, ClassifierStore
from csfd_core.classification.config import GENERAL, NONE
from csfd_core.errors import SettingsError, StoreError
from csfd_core.learning.checkpoint import Weights, read_arrays
from csfd_core.store.locations import Location

BEST_GENERAL: Final = "basic_cnn"  # on unseen necks; ``python -m benchmarks general``
GENERAL_FOLDER: Final = "builtin"
GENERAL_FOLD: Final = 0  # of their phantoms; those of this fold have stopped them


@dataclass(frozen=True, slots=True, kw_only=True)
class Initial:
    """Weights that a training starts from.

    Attributes:
        weights: Empty: it starts from nothing.
        told: ``general``, ``none``, or the name of a file.
        digest: Of their file; empty where there is none.
    """

    weights: Weights
    told: str
    digest: str


def general_location() -> Location:
    """Return the root that ``general_store`` is under."""
    return Location(Path(str(files("csfd_core.classification"))))


def general_store() -> ClassifierStore:
    """Return where the general classifiers lie."""
    return ClassifierStore(general_location(), GENERAL_FOLDER)


def general_card(name: str) -> ClassifierCard | None:
    """Return the card of a general classifier, ``None`` where there is none."""
    return general_store().card(name, GENERAL_FOLD)


def with_general(cards: Iterable[ClassifierCard]) -> list[ClassifierCard]:
    """Return cards, and those of general classifiers that their trainings began from.

    What a general classifier has learnt, the model that goes on from it has learnt too:
    its card is given the fold that the model held out.
    """
    all_cards = []
    for card in cards:
        all_cards.append(card)
        general = general_card(card.model) if card.started_from == GENERAL else None
        if general is not None:
            all_cards.append(general.model_copy(update={"fold": card.fold}))
    return all_cards


def read_initial(name: str, initial: str) -> Initial:
    """Read what a training starts from.

    Args:
        name: Of the classifier.
        initial: ``general``, ``none``, or a file of weights as csfd writes them.

    Raises:
        SettingsError: If there is nothing of that kind, or it cannot be read.
    """
    if initial == NONE:
        return Initial(weights=[], told=NONE, digest="")
    content = _read_file(name, initial)
    try:
        weights = read_arrays(content, initial)
    except StoreError as error:
        raise SettingsError(
            f"{initial} holds no weights of a classifier. Name a weights.npz that csfd "
            f"wrote, {GENERAL} or {NONE}."
        ) from error
    told = GENERAL if initial == GENERAL else f"file {Path(initial).name}"
    return Initial(
        weights=weights, told=told, digest=hashlib.sha256(content).hexdigest()
    )


def initial_digest(name: str, initial: str) -> str:
    """Identify what a training starts from, without opening it.

    Raises:
        SettingsError: If there is nothing of that kind.
    """
    if initial == NONE:
        return ""
    return hashlib.sha256(_read_file(name, initial)).hexdigest()


def _read_file(name: str, initial: str) -> bytes:
    if initial == GENERAL:
        location = general_store().of_fold(name, GENERAL_FOLD)
        if not location.exists(WEIGHTS):
            raise SettingsError(
                f"There are no general weights of {name}. Start it from {NONE}."
            )
        return location.read(WEIGHTS)
    path = Path(initial).expanduser()
    if not path.is_file():
        raise SettingsError(
            f"There is no file {initial} to start {name} from. Name a weights.npz that "
            f"csfd wrote, {GENERAL} or {NONE}."
        )
    return path.read_bytes()
