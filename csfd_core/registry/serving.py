"""Which ensemble answers to a name: champion, version, best, classifier, general."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.classification.classifiers import CLASSIFIERS
from csfd_core.classification.config import GENERAL
from csfd_core.classification.ensemble import (
    BEST,
    Ensemble,
    best_beats_prevalences,
    read_best,
)
from csfd_core.classification.fit import open_trained
from csfd_core.classification.general import (
    BEST_GENERAL,
    GENERAL_FOLD,
    GENERAL_FOLDER,
    general_card,
    general_location,
)
from csfd_core.crops.cutting import CROP_PROFILES
from csfd_core.errors import SettingsError, StoreError
from csfd_core.registry.appointment import require_whole
from csfd_core.registry.champion import ChampionRegistry, Version
from csfd_core.registry.history import Alias
from csfd_core.registry.profile import profile_of
from csfd_core.settings import Settings
from csfd_core.store import paths
from csfd_core.store.stamp import stamp
from csfd_core.store.stores import Stores

_VERSION: Final = re.compile("v([1-9][0-9]{0,8})")
GENERAL_PROFILE: Final = "demo"  # whose crops the general classifier takes
_UNTRAINED: Final = "No classifier was trained here yet"
_UNCOMPARED: Final = "No classifier was trained and compared yet"
_UNCONVINCING: Final = (
    "No classifier that was trained on these studies beats the prevalences yet"
)


def open_ensemble(stores: Stores, alias: str, tracking_uri: str = "") -> Ensemble:
    """Open the trained folds of a classifier.

    Args:
        stores: Where the classifiers are.
        alias: ``champion`` or ``challenger``; a version, as ``v3``; ``best``: what the
            comparison found the best; a classifier's name: its newest folds; or
            ``general``: the one that comes with csfd. Where there is no champion yet,
            ``champion`` opens ``stand_in``, and where the store has trained nothing,
            the general one; it says so.
        tracking_uri: Of MLflow, which holds the aliases; empty: MLFLOW_TRACKING_URI.

    Raises:
        SettingsError: If the store has no such classifier, or MLflow cannot be used.
        StoreError: If the files of a version are damaged.
    """
    if alias == GENERAL:
        return open_general()
    number = _VERSION.fullmatch(alias)
    if number is None and alias not in set(Alias):
        return _open_newest(stores, alias)
    uri = tracking_uri or Settings.read().mlflow_tracking_uri
    registry = ChampionRegistry(stores, uri)
    if number is not None:
        return open_version(registry, registry.version(int(number[1])))
    if not registry.is_begun:  # so that MLflow is not needed where it says nothing
        version = None
    elif alias == Alias.CHAMPION:
        version = registry.champion()
    else:
        version = registry.holder(Alias(alias))
    if version is not None:
        return open_version(registry, version)
    if alias != Alias.CHAMPION:
        raise SettingsError(
            f"There is no {alias} yet. Materialize champion_model, or use {BEST}."
        )
    return _open_stand_in(stores)


def stand_in(stores: Stores) -> str | None:
    """Return the classifier of a store that speaks while it has no champion.

    That is the best of the comparison, but one that knows less than the prevalences
    does not speak where the general classifier can.

    Returns:
        ``None``: the general one speaks.
    """
    best = read_best(stores)
    if best is None or best_beats_prevalences(stores) or not _takes_crops_of(stores):
        return best
    return None


def may_judge(stores: Stores) -> bool:
    """Say whether a classifier can judge the crops of a store.

    One that the comparison found the best can; before there is one, the general
    classifier, where crops are cut as it takes them.
    """
    return read_best(stores) is not None or profile_of(stores) == GENERAL_PROFILE


def open_serving(stores: Stores, tracking_uri: str = "") -> Ensemble:
    """Open who serves: the champion, or else ``stand_in``, or the general classifier.

    Raises:
        SettingsError: If MLflow cannot be used.
        StoreError: If the files of a version are damaged.
    """
    if read_best(stores) is not None:
        return open_ensemble(stores, Alias.CHAMPION, tracking_uri)
    return _general_because(_UNCOMPARED)


def serving_version(stores: Stores) -> str:
    """Identify who serves, without opening it: another text, another ensemble."""
    root = stores.root
    changes = [entry.name for entry in root.entries(paths.CHAMPION_HISTORY)]
    best = stand_in(stores)
    trained = [] if best is None else ClassifierStore(root).cards([best])
    return stamp([changes, best, [card.model_id for card in trained]])


def open_general() -> Ensemble:
    """Open the classifier that comes with csfd."""
    stores = Stores(general_location())
    folds = [GENERAL_FOLD]
    ensemble = _open_folds(stores, BEST_GENERAL, GENERAL_FOLDER, folds)
    return replace(ensemble, name=GENERAL)


def _open_stand_in(stores: Stores) -> Ensemble:
    if read_best(stores) is None and not _trained(stores):
        return _general_because(_UNTRAINED)
    if read_best(stores) is not None and stand_in(stores) is None:
        return _general_because(_UNCONVINCING)
    notice = "There is no champion yet, so the best of the comparison speaks."
    return replace(_open_newest(stores, BEST), notice=notice)


def _general_because(reason: str) -> Ensemble:
    notice = f"{reason}, so the general one speaks, which comes with csfd."
    return replace(open_general(), notice=notice)


def _takes_crops_of(stores: Stores) -> bool:
    """Say whether the general classifier takes crops as they are cut in a store."""
    card, profile = general_card(BEST_GENERAL), profile_of(stores)
    if card is None or profile is None:
        return False
    return card.crop == CROP_PROFILES[profile].to_note()


def open_version(registry: ChampionRegistry, version: Version) -> Ensemble:
    """Open a registered ensemble, once its files have been compared with their digests.

    Raises:
        StoreError: If its files are damaged.
    """
    frozen = require_whole(registry, version)
    ensemble = _open_folds(registry.stores, frozen.model, frozen.folder, frozen.folds)
    return replace(ensemble, version=version.number)


def _open_newest(stores: Stores, alias: str) -> Ensemble:
    models = ClassifierStore(stores.root)
    name = read_best(stores) if alias == BEST else alias
    folds = models.folds(name) if name is not None and name in CLASSIFIERS else []
    if name is None or not folds:
        raise SettingsError(
            f"The store {stores.root} has no trained classifier {alias!r}. It has: "
            f"{', '.join(_trained(stores)) or 'none'}. Train some with csfd run, name "
            f"another store in CSFD_STORE, or use {GENERAL}."
        )
    return _open_folds(stores, name, paths.CLASSIFIERS, folds)


def _trained(stores: Stores) -> list[str]:
    models = ClassifierStore(stores.root)
    return [name for name in CLASSIFIERS if models.folds(name)]


def _open_folds(
    stores: Stores, name: str, folder: str, folds: Sequence[int]
) -> Ensemble:
    models = ClassifierStore(stores.root, folder)
    cards = [models.require_card(name, fold) for fold in folds]
    members = [
        open_trained(stores, name, fold, folder, card)
        for fold, card in zip(folds, cards, strict=True)
    ]
    if any(card.crop != cards[0].crop for card in cards):
        raise StoreError(
            f"The folds of {name} were trained on crops of different sizes. Train all "
            "of them again, with csfd run or a backfill."
        )
    return Ensemble(name=name, members=members, cards=cards)
