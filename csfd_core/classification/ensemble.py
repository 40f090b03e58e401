"""The trained folds of one classifier, used together: the mean of their probabilities.

With one fold trained it is that model alone.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from csfd_core.classification.card import WHATS, ClassifierCard, What
from csfd_core.classification.classifier import Classifier, Heat
from csfd_core.classification.config import GENERAL
from csfd_core.classification.probabilities import (
    Calibrated,
    ensemble_threshold,
    probabilities_of,
)
from csfd_core.classification.study_facts import (
    SeenStudy,
    logits_of_levels,
    measure_study,
)
from csfd_core.classification.unlike import NOT_MEASURED, Unlike
from csfd_core.classification.validation import Logits
from csfd_core.classification.vertebrae import Vertebra
from csfd_core.crops.cutting import CropConfig
from csfd_core.data_kind import DataKind
from csfd_core.evaluation.conformal import AnswerBounds, joined
from csfd_core.store import paths
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LABEL_COLUMNS, OVERALL

BEST: Final = "best"


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What an ensemble has seen in a study.

    Attributes:
        said: Probabilities of each member, columns as in ``LABEL_COLUMNS``, (M, 8).
        heats: By level the mean of the members' heat, 0..1, shape (K, side, side), as
            the vertebra's crops.
        logits: Of each member, of C1 to C7, NaN where there is none, (7,) each.
    """

    said: npt.NDArray[np.float64]
    heats: Mapping[str, Heat]
    logits: Sequence[Logits]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """Classifiers of one name that were trained on other folds each."""

    name: str
    members: Sequence[Classifier]
    cards: Sequence[ClassifierCard]
    version: int | None = None  # in MLflow's registry; None: the newest training
    notice: str = ""  # what a user must know of how it was chosen

    @property
    def title(self) -> str:
        """Name, and version where it has one."""
        if self.name == GENERAL:
            return "the general classifier"
        return f"{self.name}, version {self.version}" if self.version else self.name

    @property
    def crop(self) -> CropConfig:
        """How the vertebrae must be cut for it."""
        return CropConfig.from_note(self.cards[0].crop)

    @property
    def model_ids(self) -> list[str]:
        """Identity of each member."""
        return [card.model_id for card in self.cards]

    @property
    def data_kind(self) -> DataKind:
        """What it was trained on."""
        return DataKind.joined(card.data_kind for card in self.cards)

    @property
    def thresholds(self) -> dict[str, float]:
        """Operating points: the mean of the members'."""
        return {
            key: ensemble_threshold([c.thresholds[key].threshold for c in self.cards])
            for key in WHATS
        }

    @property
    def bounds(self) -> dict[What, AnswerBounds]:
        """Between which probabilities its answers are not certain.

        Empty where a member is older than such bounds.
        """
        if not all(card.bounds for card in self.cards):
            return {}
        return {what: joined([c.bounds[what] for c in self.cards]) for what in WHATS}

    def unlike(self, seen: SeenStudy, logits: Sequence[Logits]) -> Unlike:
        """Return how far a study lies from what the members have learnt from."""
        references = [card.reference for card in self.cards]
        if not any(references):
            return Unlike(score=None, limit=None, why_not=NOT_MEASURED)
        spacing = seen.spacing_zyx_mm
        return Unlike.of(
            references,
            measure_study(seen),
            logits,
            None if spacing is None else spacing[0],
        )

    def predict(self, vertebrae: Mapping[str, Vertebra]) -> dict[str, float]:
        """Return calibrated probabilities of ``patient_overall`` and C1 to C7.

        A vertebra that is not given has the prevalence of its level, for metrics; what
        is told of it is an ``Assessment``.
        """
        return mean_of_members(self.members_say(vertebrae))

    def members_say(self, vertebrae: Mapping[str, Vertebra]) -> npt.NDArray[np.float64]:
        """Return what each member says alone, columns as in ``LABEL_COLUMNS``, (M, 8).

        A vertebra that is not given has the prevalence of its level.
        """
        shown = list(vertebrae.values())
        return np.stack(
            [
                _calibrated(card, list(vertebrae), member.logits(shown))
                for member, card in zip(self.members, self.cards, strict=True)
            ]
        )

    def look(self, vertebrae: Mapping[str, Vertebra]) -> Looked:
        """Return what each member says alone, and where fractures are suspected."""
        said, heats, seen = [], [], []
        for member, card in zip(self.members, self.cards, strict=True):
            logits, member_heats = member.look(list(vertebrae.values()))
            seen.append(logits_of_levels(list(vertebrae), logits))
            said.append(_calibrated(card, list(vertebrae), logits))
            heats.append(member_heats)
        means = {
            level: np.asarray(np.mean(level_heats, axis=0), dtype=np.float32)
            for level, level_heats in zip(
                vertebrae, zip(*heats, strict=True), strict=True
            )
        }
        return Looked(said=np.stack(said), heats=means, logits=seen)


def _calibrated(
    card: ClassifierCard, levels: Sequence[str], logits: Logits
) -> npt.NDArray[np.float64]:
    """Return the probabilities of a study, columns as in ``LABEL_COLUMNS``, (8,)."""
    row = logits_of_levels(levels, logits)
    return np.asarray(probabilities_of(Calibrated.of(card), row[None])[0])


def mean_of_members(said: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return what an ensemble says, from what each of its members does, (M, 8)."""
    mean = said.mean(axis=0)
    return {name: float(p) for name, p in zip(LABEL_COLUMNS, mean, strict=True)}


def what_is(name: str) -> What:
    """Return whether a name is of a level, or of a whole study."""
    return "overall" if name == OVERALL else "vertebra"


def threshold_of(thresholds: Mapping[str, float], name: str) -> float:
    """Return the operating point of a level, or of ``patient_overall``."""
    return thresholds[what_is(name)]


def write_best(stores: Stores, name: str, *, beats_prevalences: bool) -> None:
    """Note which classifier the comparison found the best."""
    note = {"model": name, "beats_prevalences": beats_prevalences}
    stores.root.write(paths.BEST_CLASSIFIER, json.dumps(note).encode())


def read_best(stores: Stores) -> str | None:
    """Return the classifier that the comparison found the best, if there was one."""
    name = _best_note(stores).get("model")
    return None if name is None else str(name)


def best_beats_prevalences(stores: Stores) -> bool:
    """Say whether the best knows more than how often each level is fractured.

    Notes of an older csfd do not tell; there the best is trusted.
    """
    note = _best_note(stores)
    return bool(note.get("beats_prevalences", note))


def _best_note(stores: Stores) -> dict[str, Any]:
    """Return what the comparison noted; empty where there was none."""
    content = stores.root.read_if_there(paths.BEST_CLASSIFIER) or b"{}"
    return dict(json.loads(content))


def suspicion(
    probabilities: Mapping[str, float | None], thresholds: Mapping[str, float]
) -> list[str]:
    """Return the levels, and ``patient_overall``, above their operating point."""
    return [
        name
        for name, value in probabilities.items()
        if value is not None and value >= threshold_of(thresholds, name)
    ]
