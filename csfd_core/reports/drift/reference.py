"""Which model serves, which studies it has learnt from, and which came since."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from csfd_core.classification.classifier_store import (
    ClassifierStore,
    FoldResult,
)
from csfd_core.classification.classifiers import CLASSIFIERS
from csfd_core.classification.ensemble import Ensemble, read_best
from csfd_core.data_kind import DataKind
from csfd_core.learning.splits import Split
from csfd_core.registry.champion import ChampionRegistry
from csfd_core.registry.frozen import read_frozen, studies_learnt_from
from csfd_core.registry.history import Alias
from csfd_core.registry.serving import open_ensemble
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import OVERALL

_BEST: Final = "There is no champion yet, so the best of the comparison stands for it."
_NEWEST: Final = "Nothing was compared yet, so the newest candidate stands for it."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Serving:
    """The model whose training data are the reference."""

    title: str
    alias: str  # that ``open_ensemble`` knows it by
    results: Sequence[FoldResult]  # its folds, without weights
    notice: str = ""  # where it is no champion: what it is instead

    @property
    def model_ids(self) -> list[str]:
        """Identity of each of its folds."""
        return [result.card.model_id for result in self.results]

    @property
    def data_kind(self) -> DataKind:
        """What it was trained on."""
        return DataKind.joined(result.card.data_kind for result in self.results)

    @property
    def crop(self) -> Mapping[str, Any]:
        """Settings of the crops that it takes."""
        return self.results[0].card.crop

    @property
    def learnt_from(self) -> set[str]:
        """Studies that it was trained, stopped or calibrated on: the reference."""
        return studies_learnt_from(self.results)

    @property
    def tested_on(self) -> set[str]:
        """Studies of the locked test set that it was scored on."""
        carded = {uid for r in self.results for uid in r.card.studies(Split.TEST)}
        scored = {
            str(uid)
            for result in self.results
            for uid in result.predictions["study_uid"][_is_of(result, Split.TEST)]
        }
        return carded | scored

    def open(self, stores: Stores, tracking_uri: str) -> Ensemble:
        """Open its networks, which imports TensorFlow.

        Raises:
            StoreError: If its files are damaged.
        """
        return open_ensemble(stores, self.alias, tracking_uri)


def serving_of(stores: Stores, tracking_uri: str) -> Serving | None:
    """Return the champion; else the best of the comparison; else the newest candidate.

    Which is the newest is decided as for the retraining. ``None``: no classifier was
    trained yet. MLflow is asked only where a version was registered.

    Raises:
        SettingsError: If MLflow cannot be used, or lost the champion.
        StoreError: If the store has lost the champion's files.
    """
    registry = ChampionRegistry(stores, tracking_uri)
    champion = registry.champion() if registry.is_begun else None
    if champion is not None:
        frozen = read_frozen(stores, champion.digest)
        return Serving(
            title=f"champion {champion.title}",
            alias=Alias.CHAMPION,
            results=frozen.results(stores),
        )
    results = ClassifierStore(stores.root).results(list(CLASSIFIERS))
    if not results:
        return None
    best = read_best(stores)
    if best in results:
        return Serving(title=best, alias=best, results=results[best], notice=_BEST)
    name = max(results, key=lambda model: max(r.card.age for r in results[model]))
    return Serving(title=name, alias=name, results=results[name], notice=_NEWEST)


def unseen_probabilities(serving: Serving) -> pd.DataFrame:
    """Return what the model says of studies that it has not learnt its weights from.

    Of a validation study the fold that held it out speaks, of a test study the mean of
    all folds. A validation study has chosen the epoch and calibrates: two numbers, not
    the weights. A level that no fold saw stands on its prevalence alone and is left
    out; so is the overall probability of a study without any level.

    Returns:
        One row per study (index ``study_uid``), a column per level and
        ``patient_overall``; NaN where left out.
    """
    parts = []
    for result in serving.results:
        rows = result.predictions
        rows = rows[rows["group"].isin([Split.VALIDATION, Split.TEST])]
        seen = rows[rows["logit"].notna()]
        of_seen_study = rows["study_uid"].isin(seen["study_uid"])
        is_overall = rows["level"] == OVERALL
        parts.append(rows[rows["logit"].notna() | (is_overall & of_seen_study)])
    every = pd.concat(parts, ignore_index=True)
    return every.pivot_table(
        index="study_uid", columns="level", values="probability", aggfunc="mean"
    )


def _is_of(result: FoldResult, group: str) -> "pd.Series[bool]":
    return result.predictions["group"] == group
