"""What is said of one study: numbers of the levels that were assessed, and of no other.

A vertebra that was not found, or that the scan hardly shows, has no number of its own.
It may be broken all the same, so the study's probability counts it by the prevalence of
its level, and says which levels it rests on.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from csfd_core.ingest.outcomes import Outcome
from csfd_core.segmentation.columns import TWO_NECKS
from csfd_core.text import agree, join
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES, OVERALL

NOT_ASSESSED: Final = Outcome.NOT_ASSESSED.value  # in place of a number, for readers
NOTHING_FOUND: Final = (
    "No cervical vertebra was found in the scan, so there are no probabilities."
)
_DIGITS: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """Probabilities of one study, as they are told.

    Attributes:
        probabilities: Of ``patient_overall`` and C1 to C7; ``None`` of a level that was
            not assessed, and of a study of which none was.
    """

    probabilities: Mapping[str, float | None]

    @classmethod
    def of(
        cls, numbers: Mapping[str, float], assessed: Collection[str]
    ) -> "Assessment":
        """Keep the numbers of what was assessed.

        Args:
            numbers: Of ``patient_overall`` and C1 to C7, also of levels that were not
                assessed, as the metrics need them.
            assessed: Levels.
        """
        told = {OVERALL, *assessed} if assessed else set()
        return cls(
            probabilities={
                name: float(numbers[name]) if name in told else None
                for name in LABEL_COLUMNS
            }
        )

    @property
    def assessed(self) -> tuple[str, ...]:
        """Levels with a number: what the study's probability rests on."""
        return tuple(n for n in LEVEL_NAMES if self.probabilities[n] is not None)

    @property
    def not_assessed(self) -> tuple[str, ...]:
        """Levels without a number."""
        return tuple(n for n in LEVEL_NAMES if self.probabilities[n] is None)

    @property
    def outcome(self) -> Outcome:
        """What it comes to: also without any number it is a result."""
        return Outcome.PREDICTED if self.assessed else Outcome.NOT_ASSESSED

    def needs_eyes(
        self, flags: Iterable[str], first: Iterable[str] = ()
    ) -> tuple[str, ...]:
        """Return why a person must look at the study, a sentence each.

        Args:
            flags: What in its mask contradicts anatomy.
            first: What must be known before anything else.
        """
        if not self.assessed:
            return (TWO_NECKS if TWO_NECKS in flags else NOTHING_FOUND,)
        if not self.not_assessed:
            return (*first, *flags)
        were = agree(len(self.not_assessed), "was", "were")
        missing = (
            f"{join(self.not_assessed)} {were} not assessed: not found, or hardly in "
            f"the scan. The study's probability rests on {rests_on(self.assessed)}, "
            "and for the others on how often they are broken."
        )
        return (*first, missing, *flags)

    def to_note(
        self, flags: Iterable[str], first: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Return what a prediction's JSON says of it; arguments as ``needs_eyes``."""
        return {
            "outcome": self.outcome.value,
            "probabilities": {
                name: None if value is None else round(value, _DIGITS)
                for name, value in self.probabilities.items()
            },
            "not_assessed": list(self.not_assessed),
            "overall_rests_on": list(self.assessed),
            "needs_eyes": list(self.needs_eyes(flags, first)),
        }


def rests_on(levels: Collection[str]) -> str:
    """Say in short what a study's probability rests on: ``C2 to C4 and C6``."""
    if len(levels) == len(LEVEL_NAMES):
        return "all levels"
    told: list[str] = []
    for is_assessed, run in groupby(LEVEL_NAMES, levels.__contains__):
        names = list(run)
        if is_assessed:
            told += names if len(names) < 3 else [f"{names[0]} to {names[-1]}"]
    return join(told) or "no level"
