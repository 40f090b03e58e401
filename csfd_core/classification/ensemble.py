"""The trained folds of one classifier, used together: the mean of their probabilities.

With one fold trained it is that model alone.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from csfd_core.classification.classifier import Classifier
from csfd_core.classification.crops import Vertebra
from csfd_core.classification.fit import open_trained
from csfd_core.classification.models import FOLDER, ClassifierStore
from csfd_core.classification.probabilities import Calibrated, probabilities_of
from csfd_core.classification.registry import CLASSIFIERS
from csfd_core.crops.cutting import CropConfig
from csfd_core.errors import SettingsError, StoreError
from csfd_core.registry.champion import ChampionRegistry, Version
from csfd_core.registry.history import ALIASES, CHAMPION
from csfd_core.registry.titles import require_whole
from csfd_core.settings import Settings
from csfd_core.store.convert import Stores
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES, OVERALL

BEST: Final = "best"
_BEST_PATH: Final = f"{FOLDER}/best.json"
_VERSION: Final = re.compile("v([1-9][0-9]{0,8})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """Classifiers of one name that were trained on other folds each."""

    name: str
    members: Sequence[Classifier]
    cards: Sequence[Mapping[str, Any]]
    version: int | None = None  # in MLflow's registry; None: the newest training
    notice: str = ""  # what a user must know of how it was chosen

    @property
    def title(self) -> str:
        """Name, and version where it has one."""
        return f"{self.name}, version {self.version}" if self.version else self.name

    @property
    def crop(self) -> CropConfig:
        """How the vertebrae must be cut for it."""
        return CropConfig.from_note(self.cards[0]["crop"])

    @property
    def model_ids(self) -> list[str]:
        """Identity of each member."""
        return [str(card["model_id"]) for card in self.cards]

    @property
    def data_kind(self) -> str:
        """What it was trained on: phantom, mixed or real."""
        return str(self.cards[0]["data_kind"])

    @property
    def thresholds(self) -> dict[str, float]:
        """Operating points: the mean of the members'."""
        return {
            key: float(np.mean([c["thresholds"][key]["threshold"] for c in self.cards]))
            for key in ("vertebra", "overall")
        }

    def predict(self, vertebrae: Mapping[str, Vertebra]) -> dict[str, float]:
        """Return calibrated probabilities of ``patient_overall`` and C1 to C7.

        A vertebra that is not given has the prevalence of its level.
        """
        found: list[npt.NDArray[np.float64]] = []
        levels = [name for name in LEVEL_NAMES if name in vertebrae]
        for member, card in zip(self.members, self.cards, strict=True):
            logits = np.full((1, len(LEVEL_NAMES)), np.nan)
            if levels:
                places = [LEVEL_NAMES.index(name) for name in levels]
                logits[0, places] = member.logits([vertebrae[name] for name in levels])
            found.append(probabilities_of(Calibrated.of(card), logits)[0])
        mean = np.mean(found, axis=0)
        return {name: float(p) for name, p in zip(LABEL_COLUMNS, mean, strict=True)}


def open_ensemble(stores: Stores, alias: str, tracking_uri: str = "") -> Ensemble:
    """Open the trained folds of a classifier.

    Args:
        stores: Where the classifiers are.
        alias: ``champion`` or ``challenger``; a version, as ``v3``; ``best``: what the
            comparison found the best; or a classifier's name: its newest folds. Where
            there is no champion yet, ``champion`` opens the best and says so.
        tracking_uri: Of MLflow, which holds the aliases; empty: MLFLOW_TRACKING_URI.

    Raises:
        SettingsError: If the store has no such classifier, or MLflow cannot be used.
        StoreError: If the files of a version are damaged.
    """
    number = _VERSION.fullmatch(alias)
    if number is None and alias not in ALIASES:
        return _open_newest(stores, alias)
    uri = tracking_uri or Settings.from_environment().mlflow_tracking_uri
    registry = ChampionRegistry(stores, uri)
    if number is not None:
        return open_version(registry, registry.version(int(number[1])))
    if not registry.is_begun:  # so that MLflow is not needed where it says nothing
        version = None
    elif alias == CHAMPION:
        version = registry.champion()
    else:
        version = registry.holder(alias)
    if version is not None:
        return open_version(registry, version)
    if alias != CHAMPION:
        raise SettingsError(
            f"There is no {alias} yet. Materialize champion_model, or use {BEST}."
        )
    notice = "There is no champion yet, so the best of the comparison speaks."
    return replace(_open_newest(stores, BEST), notice=notice)


def open_version(registry: ChampionRegistry, version: Version) -> Ensemble:
    """Open a registered ensemble, once its files have been compared with their digests.

    Raises:
        StoreError: If its files are damaged.
    """
    frozen = require_whole(registry, version)
    found = _open_folds(registry.stores, frozen.model, frozen.folder, frozen.folds)
    return replace(found, version=version.number)


def _open_newest(stores: Stores, alias: str) -> Ensemble:
    models = ClassifierStore(stores.root)
    name = read_best(stores) if alias == BEST else alias
    folds = models.folds(name) if name is not None and name in CLASSIFIERS else []
    if name is None or not folds:
        there = [known for known in CLASSIFIERS if models.folds(known)]
        raise SettingsError(
            f"The store {stores.root} has no trained classifier {alias!r}. It has: "
            f"{', '.join(there) or 'none'}. Train some with csfd run, or name another "
            "store in CSFD_STORE."
        )
    return _open_folds(stores, name, FOLDER, folds)


def _open_folds(
    stores: Stores, name: str, folder: str, folds: Sequence[int]
) -> Ensemble:
    models = ClassifierStore(stores.root, folder)
    members = [open_trained(stores, name, fold, folder) for fold in folds]
    cards = [models.card(name, fold) or {} for fold in folds]
    if any(card["crop"] != cards[0]["crop"] for card in cards):
        raise StoreError(
            f"The folds of {name} were trained on crops of different sizes. Train all "
            "of them again, with csfd run or a backfill."
        )
    return Ensemble(name=name, members=members, cards=cards)


def write_best(stores: Stores, name: str) -> None:
    """Note which classifier the comparison found the best."""
    stores.root.write(_BEST_PATH, json.dumps({"model": name}).encode())


def read_best(stores: Stores) -> str | None:
    """Return the classifier that the comparison found the best, if there was one."""
    if not stores.root.exists(_BEST_PATH):
        return None
    return str(json.loads(stores.root.read(_BEST_PATH))["model"])


def suspicion(
    probabilities: Mapping[str, float], thresholds: Mapping[str, float]
) -> list[str]:
    """Return the levels, and ``patient_overall``, above their operating point."""
    return [
        name
        for name, value in probabilities.items()
        if value >= thresholds["overall" if name == OVERALL else "vertebra"]
    ]
