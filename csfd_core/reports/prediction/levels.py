"""What a page says of each level: typed facts, from what an ensemble has said."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from csfd_core.classification.ensemble import threshold_of
from csfd_core.evaluation.conformal import Answer
from csfd_core.inference.evidence import Evidence, evidence_of
from csfd_core.inference.judgement import JudgedScan
from csfd_core.inference.uncertainty import Spread
from csfd_core.reports.palette import ink_on, level_colour
from csfd_core.store.notes import LevelNote
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES

_LEAST_SHOWN: Final = 2  # where no level is above its operating point


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelFacts:
    """One level, or the whole study, as a page shows it.

    Attributes:
        name: C1 to C7, or ``patient_overall``.
        probability: ``None`` where the level was not assessed.
        threshold: Its operating point.
        spread: Of the members; ``None`` where there is none.
        answer: What its probability leaves open; ``None`` where that is not known.
        evidence: The strongest place, where one is known.
        vertebra: What the segmentation has found of it.
    """

    name: str
    probability: float | None
    threshold: float
    spread: Spread | None
    answer: Answer | None = None
    evidence: Evidence | None = None
    vertebra: LevelNote | None = None

    @property
    def is_assessed(self) -> bool:
        """Whether the ensemble has seen it."""
        return self.probability is not None

    @property
    def is_above(self) -> bool:
        """Whether it is suspected to be fractured."""
        return self.probability is not None and self.probability >= self.threshold

    @property
    def is_close(self) -> bool:
        """Whether the members disagree on that."""
        return self.spread is not None and self.spread.at_operating_point

    @property
    def is_undecided(self) -> bool:
        """Whether its probability leaves both answers open."""
        return self.answer is Answer.UNDECIDED

    @property
    def colour(self) -> str:
        """Its colour in every figure."""
        return level_colour(self.name)

    @property
    def ink(self) -> str:
        """The colour of text on it."""
        return ink_on(self.colour)


def facts_of(judged: JudgedScan) -> dict[str, LevelFacts]:
    """Return the facts of ``patient_overall`` and C1 to C7, by name."""
    judgement, geometry = judged.judgement, judged.study.geometry
    heats = {heat.level: heat for heat in judgement.heats}
    spreads, answers = judgement.spreads, judgement.answers
    probabilities = judgement.assessment.probabilities
    facts = {}
    for name in LABEL_COLUMNS:
        facts[name] = LevelFacts(
            name=name,
            probability=probabilities[name],
            threshold=threshold_of(judgement.thresholds, name),
            spread=spreads.get(name),
            answer=answers[name],
            evidence=evidence_of(heats[name], geometry) if name in heats else None,
            vertebra=judged.study.levels.get(name),
        )
    return facts


def shown_levels(facts: dict[str, LevelFacts]) -> Sequence[LevelFacts]:
    """Return the levels to look at: all above their operating point, else the top two.

    The most suspicious first.
    """
    assessed = [facts[name] for name in LEVEL_NAMES if facts[name].is_assessed]
    ranked = sorted(assessed, key=lambda level: -(level.probability or 0.0))
    above = [level for level in ranked if level.is_above]
    return above or ranked[:_LEAST_SHOWN]
