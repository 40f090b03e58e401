"""What is told of a study that lies far from what its classifier has learnt from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np

from csfd_core.classification.reference import Deviation, Distance, Reference
from csfd_core.classification.study_facts import MeasuredStudy
from csfd_core.classification.validation import Logits
from csfd_core.text import join, number

NOT_MEASURED: Final = (
    "How far the study lies from the training was not measured: the classifier's card "
    "has no reference. Train it again."
)
NOTHING_TO_MEASURE: Final = (
    "How far the study lies from the training was not measured: no vertebra was found."
)
_THICKER: Final = 1.02  # than the training's slices, and not by rounding


class Verdict(StrEnum):
    """What a study's prediction comes to, in two words."""

    NEEDS_EYES = "needs eyes"  # it is unlike what was learnt: the numbers hold nothing
    SUSPICIOUS = "suspicious"
    NOT_SUSPICIOUS = "not suspicious"
    NOT_ASSESSED = "not assessed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlike:
    """How far one study lies from the training of an ensemble.

    Attributes:
        score: ``None``: not measured.
        limit: Of ordinary studies one in a hundred lies above it.
        farthest: The facts that deviate the most, the farthest first.
        thick: A sentence, where slices are thicker than any of the training.
        why_not: Why it was not measured.
    """

    score: float | None
    limit: float | None
    farthest: tuple[Deviation, ...] = ()
    thick: str = ""
    why_not: str = ""

    @classmethod
    def of(
        cls,
        references: Iterable[Reference | None],
        study: MeasuredStudy,
        logits: Sequence[Logits],
        gap_mm: float | None,
    ) -> "Unlike":
        """Measure a study against each member of an ensemble that has a reference.

        Args:
            references: Of the members, of one at least.
            study: As it was measured.
            logits: Of each member, of C1 to C7, NaN where there is none.
            gap_mm: From slice to slice; ``None``: not known.
        """
        pairs = [
            (member_logits, reference)
            for member_logits, reference in zip(logits, references, strict=True)
            if reference is not None
        ]
        coarsest = max(reference.coarsest_mm for _, reference in pairs)
        thick = _told_thick(gap_mm, coarsest)
        all_distances = [
            reference.distance(study, member_logits)
            for member_logits, reference in pairs
        ]
        distances = [distance for distance in all_distances if distance is not None]
        if not distances:
            return cls(score=None, limit=None, thick=thick, why_not=NOTHING_TO_MEASURE)
        return cls(
            score=round(float(np.mean([one.score for one in distances])), 3),
            limit=round(float(np.mean([one.limit for one in distances])), 3),
            farthest=max(distances, key=_share_of_limit).farthest,
            thick=thick,
        )

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "Unlike":
        """Read the object ``unlike`` of a prediction's JSON.

        That slices are thick is told among the reasons for eyes, not here.
        """
        return cls(
            score=told["score"],
            limit=told["limit"],
            farthest=tuple(
                Deviation(fact=one["fact"], spreads=one["spreads"])
                for one in told["farthest"]
            ),
            why_not="" if told["score"] is not None else told["told"],
        )

    @property
    def is_above(self) -> bool:
        """Whether the study is unlike what was learnt."""
        return (
            self.score is not None
            and self.limit is not None
            and self.score > self.limit
        )

    @property
    def told(self) -> str:
        """A sentence that says it."""
        if self.score is None:
            return self.why_not
        apart = f"{number(self.score, '.2f')}, limit {number(self.limit or 0.0, '.2f')}"
        if not self.is_above:
            return f"The study is like those of the training (distance {apart})."
        return (
            f"This study is unlike what the classifier has learnt from (distance "
            f"{apart}), so its probabilities say little: a person must look at it. "
            f"Farthest from the training, in standard deviations: {self.reasons}."
        )

    @property
    def reasons(self) -> str:
        """The facts that deviate the most, in words."""
        return join(deviation.told for deviation in self.farthest)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know first, a sentence each."""
        return tuple(
            text for text in (self.told if self.is_above else "", self.thick) if text
        )

    def to_json(self) -> dict[str, Any]:
        """Return the object ``unlike`` of a prediction's JSON."""
        return {
            "score": self.score,
            "limit": self.limit,
            "above": None if self.score is None else self.is_above,
            "farthest": [
                {"fact": one.fact, "spreads": one.spreads, "told": one.told}
                for one in self.farthest
            ],
            "told": self.told,
        }


def verdict_of(
    unlike: Unlike, probabilities: Mapping[str, float | None], suspicious: Sequence[str]
) -> Verdict:
    """Return what a prediction comes to.

    Numbers count only where the study is like those of the training.

    Args:
        unlike: How far the study lies from the training.
        probabilities: Of what was assessed; ``None`` of the rest.
        suspicious: What is above its operating point.
    """
    if all(value is None for value in probabilities.values()):
        return Verdict.NOT_ASSESSED
    if unlike.is_above:
        return Verdict.NEEDS_EYES
    return Verdict.SUSPICIOUS if suspicious else Verdict.NOT_SUSPICIOUS


def _share_of_limit(distance: Distance) -> float:
    return distance.score / distance.limit


def _told_thick(gap_mm: float | None, coarsest_mm: float) -> str:
    if gap_mm is None or not coarsest_mm or gap_mm <= coarsest_mm * _THICKER:
        return ""
    return (
        f"Slices lie {number(gap_mm, '.1f')} mm apart, below what was trained: the "
        f"classifier has learnt from slices of at most "
        f"{number(coarsest_mm, '.1f')} mm."
    )
