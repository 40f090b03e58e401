"""What is decided on a challenger: the settings, the conditions and the outcome.

Who decides is ``registry.promotion``.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import pandas as pd

from csfd_core.errors import SettingsError
from csfd_core.evaluation.bootstrap import REPEATS
from csfd_core.settings import PromotionSettings
from csfd_core.store.notes import Note
from csfd_core.text import Prose

say: Final = Prose("csfd_core.registry", "decision")
_DEFAULT: Final = PromotionSettings.model_construct()  # without the environment


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionConfig:
    """What a challenger must reach. Recorded with every decision."""

    least_subjects: int = _DEFAULT.least_subjects  # of the test set
    # Of the upper end of the 95 % interval of the difference in competition log loss,
    # challenger minus champion, in nats. 0: better by more than chance.
    loss_margin: float = _DEFAULT.loss_margin
    # That may be lost at the operating point.
    sensitivity_margin: float = _DEFAULT.sensitivity_margin
    # By which the calibration error may grow.
    calibration_margin: float = _DEFAULT.calibration_margin
    # Times the champion's milliseconds per study.
    latency_factor: float = _DEFAULT.latency_factor
    # Per study; no challenger below this is too slow.
    unhurried_ms: float = _DEFAULT.unhurried_ms
    repeats: int = REPEATS  # draws of the bootstrap
    seed: int = 0  # of the draws

    def __post_init__(self) -> None:
        """Require margins that can be meant."""
        if self.least_subjects < 2:
            raise SettingsError(
                "`least_subjects` must be at least 2, as a bootstrap of one says "
                f"nothing. Received: {self.least_subjects}."
            )
        for name in ("sensitivity_margin", "calibration_margin", "unhurried_ms"):
            if not getattr(self, name) >= 0:
                raise SettingsError(
                    f"`{name}` must not be negative. Received: {getattr(self, name)}."
                )
        if not self.latency_factor >= 1:
            raise SettingsError(
                f"`latency_factor` must be at least 1. Received: {self.latency_factor}."
            )

    def to_note(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """An ensemble, and what it says of the locked test set.

    Attributes:
        name: As sentences call it.
        predictions: Columns ``study_uid``, ``patient``, ``level``, ``label`` (NaN:
            unlabelled), ``probability``; every row of a test study.
        thresholds: Operating points within 0..1, ``vertebra`` and ``overall``.
        ms_per_study: Of all its folds together; NaN where nobody measured it.
        prevalence: Of each label among its training studies.
        learnt_from: Studies that it was trained, stopped or calibrated on.
    """

    name: str
    predictions: pd.DataFrame
    thresholds: Mapping[str, float]
    ms_per_study: float
    prevalence: Mapping[str, float]
    learnt_from: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One thing that must hold, whether it does, and the numbers."""

    name: str
    is_met: bool
    sentence: str


class DecisionNote(Note):
    """What is kept of a decision."""

    promoted: bool
    verdict: str
    challenger: str
    champion: str | None
    studies: int
    subjects: int
    conditions: tuple[Condition, ...]
    scores: dict[str, dict[str, float | None]]
    config: dict[str, Any]

    @property
    def unmet(self) -> list[str]:
        """Sentences on what was not met."""
        return [c.sentence for c in self.conditions if not c.is_met]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether the challenger takes over, and why.

    Attributes:
        promoted: It does.
        challenger: Its name.
        champion: Name of who held the title; ``None``: nobody did.
        studies: Test studies that both were scored on.
        subjects: Patients, or phantoms, of these.
        conditions: All of them, met or not.
        scores: By name of the contender; NaN where undefined.
        config: What was asked for.
    """

    promoted: bool
    challenger: str
    champion: str | None
    studies: int
    subjects: int
    conditions: tuple[Condition, ...]
    scores: Mapping[str, Mapping[str, float]]
    config: PromotionConfig

    @property
    def reasons(self) -> list[str]:
        """Sentences on what was not met; on everything where all was."""
        return [c.sentence for c in self.conditions if self.promoted or not c.is_met]

    @property
    def verdict(self) -> str:
        """Say in one sentence what was decided."""
        return say(
            "verdict",
            promoted=self.promoted,
            champion=self.champion,
            challenger=self.challenger,
        )

    def scores_table(self) -> pd.DataFrame:
        """Return one row per contender."""
        rows = [{"model": name, **of_model} for name, of_model in self.scores.items()]
        return pd.DataFrame(rows)

    def to_note(self) -> DecisionNote:
        """Return what is kept of it; ``None`` where a score is undefined."""
        scores = {
            name: {key: None if math.isnan(v) else v for key, v in of_model.items()}
            for name, of_model in self.scores.items()
        }
        return DecisionNote(
            promoted=self.promoted,
            verdict=self.verdict,
            challenger=self.challenger,
            champion=self.champion,
            studies=self.studies,
            subjects=self.subjects,
            conditions=self.conditions,
            scores=scores,
            config=self.config.to_note(),
        )


def refuse(
    champion: str | None,
    challenger: str,
    condition: Condition,
    config: PromotionConfig,
) -> Decision:
    """Return the decision where there is nothing to compare."""
    return Decision(
        promoted=False,
        challenger=challenger,
        champion=champion,
        studies=0,
        subjects=0,
        conditions=(condition,),
        scores={},
        config=config,
    )
