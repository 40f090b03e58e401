"""What arrives in which week. Drawn from a seed; no files."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from csfd_core.errors import SettingsError

Damage = Literal["missing_slices", "truncated_file"]

_DAMAGES: Final[tuple[Damage, ...]] = ("missing_slices", "truncated_file")
_LEAST_WEEKS: Final = 6  # so that everything can happen, and be mended
_WEEKLY: Final = (5, 20)
CORRECTED_AFTER: Final = 2  # weeks: the degraded one is read again


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationConfig:
    """How long, how much, and how much of it teaches a training.

    Attributes:
        weeks: After the week of the start.
        start: Studies that are there in the beginning.
        weekly: Fewest and most studies that arrive in a week.
        retrain: Newly labelled studies that are worth a training.
        seed: Of the phantoms and of the plan.
    """

    weeks: int = 13
    start: int = 80
    weekly: tuple[int, int] = _WEEKLY
    retrain: int = 15  # fewer than the degraded week brings outside the test set
    seed: int = 0

    def __post_init__(self) -> None:
        """Require what the events need."""
        low, high = self.weekly
        if self.weeks < _LEAST_WEEKS:
            raise SettingsError(
                f"`weeks` must be at least {_LEAST_WEEKS}: studies arrive broken and "
                f"are mended, labels are corrected. Received: {self.weeks}."
            )
        if self.start < 1 or self.retrain < 1 or not 3 <= low <= high:
            raise SettingsError(
                "`start` and `retrain` must be at least 1, `weekly` a range from at "
                f"least 3. Received: {self.start}, {self.retrain}, {self.weekly}."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Week:
    """Everything that comes into the inbox within a week. Studies are numbers.

    Attributes:
        number: 0 is the start.
        arrivals: New studies.
        damaged: Which of them are broken, and how; repaired a week later.
        half_copied: One of them of which half the slices come; the rest a week later.
        misread: Some of them with a label that a later week corrects.
        repaired: Broken studies of the week before, whole.
        completed: The half-copied study of the week before, whole.
        corrected: Studies whose labels are read again.
        again: Studies that are copied once more, the same bytes.
        withdrawn: A study whose patient takes back consent.
        is_degraded: Every label of the arrivals is wrong.
    """

    number: int
    arrivals: tuple[int, ...]
    damaged: tuple[tuple[int, Damage], ...] = ()
    half_copied: int | None = None
    misread: tuple[int, ...] = ()
    repaired: tuple[int, ...] = ()
    completed: int | None = None
    corrected: tuple[int, ...] = ()
    again: tuple[int, ...] = ()
    withdrawn: int | None = None
    is_degraded: bool = False

    @property
    def good_arrivals(self) -> list[int]:
        """Arrivals that can be converted at once."""
        broken = {study for study, _ in self.damaged} | {self.half_copied}
        return [study for study in self.arrivals if study not in broken]

    @property
    def to_convert(self) -> set[int]:
        """Studies whose slices are new or have changed."""
        mended = {*self.repaired, self.completed} - {None}
        return {*self.good_arrivals, *(study for study in mended if study is not None)}


def plan_weeks(config: SimulationConfig) -> list[Week]:
    """Draw the weeks.

    One week in four brings a broken study, another a half-copied one; the second week
    has two misread studies, corrected in the fourth. Halfway through, a week is
    degraded, with as many studies as may come, and read again two weeks later. A study
    is withdrawn in the week before that.
    """
    rng = np.random.default_rng([config.seed, 7])
    low, high = config.weekly
    degraded = config.weeks // 2 + 1
    weeks = [Week(number=0, arrivals=tuple(range(config.start)))]
    first = config.start
    for number in range(1, config.weeks + 1):
        count = high if number == degraded else int(rng.integers(low, high + 1))
        arrivals = tuple(range(first, first + count))
        first += count
        weeks.append(_week(number, arrivals, weeks, degraded, rng))
    return weeks


def _week(
    number: int,
    arrivals: tuple[int, ...],
    before: Sequence[Week],
    degraded: int,
    rng: np.random.Generator,
) -> Week:
    last = before[-1]
    calm = number != degraded
    damage = _DAMAGES[number // 4 % len(_DAMAGES)]
    corrected = before[2].misread if number == 4 else ()
    if number == degraded + CORRECTED_AFTER:
        corrected += before[degraded].arrivals
    earlier = [*before[0].arrivals]
    return Week(
        number=number,
        arrivals=arrivals,
        damaged=((arrivals[0], damage),) if number % 4 == 1 and calm else (),
        half_copied=arrivals[-1] if number % 4 == 3 and calm else None,
        misread=arrivals[1:3] if number == 2 else (),
        repaired=tuple(study for study, _ in last.damaged),
        completed=last.half_copied,
        corrected=corrected,
        again=(earlier[int(rng.integers(len(earlier)))],) if number == 5 else (),
        withdrawn=(
            earlier[int(rng.integers(len(earlier)))] if number == degraded - 1 else None
        ),
        is_degraded=not calm,
    )
