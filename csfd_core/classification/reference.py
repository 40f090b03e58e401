"""How far a study lies from what a classifier has learnt from.

The distance is Mahalanobis', of facts that can be said in words (``study_facts``), with
a covariance that is shrunk after Ledoit and Wolf. Means and covariance are those of
training studies; the limit is set on studies that were held out (ADR 18).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from csfd_core.classification.study_facts import (
    GAP,
    LEVEL_FACTS,
    PIXEL,
    UNEVEN,
    MeasuredStudy,
)

Floats = npt.NDArray[np.float64]

LEAST_TRAINING: Final = 12  # studies; of fewer there is no covariance worth its name
LEAST_HELD_OUT: Final = 4
MOST_STUDIES: Final = 100  # measured of each; more change little
ORDINARY: Final = 0.99  # share of ordinary studies that lie within the limit
QUIET: Final = "quiet"
_LEAST_SURE: Final = "least_sure"
_SURENESS: Final = "confidence"
_QUIET_SHARE: Final = 0.25  # of a study's logits; most studies have a few fractures
FACTS: Final = (*LEVEL_FACTS, *UNEVEN, _LEAST_SURE, PIXEL, GAP)
_LEAST_SPREAD: Final = 0.02  # nothing is known more exactly than to so much
_SOFT: Final = 2.0  # spreads; what deviates less counts as it is
_FARTHEST: Final = 3  # facts that are named

# What a fact says of a study where it is lower, and where it is higher.
_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "volume": ("vertebrae are smaller", "vertebrae are larger"),
    "spacing": ("vertebrae lie closer together", "vertebrae lie farther apart"),
    "confidence": ("levels are less certain", "levels are more certain"),
    "bone_dark": (
        "the dark parts of the bone are darker",
        "the dark parts of the bone are brighter",
    ),
    "bone_middle": ("bone is darker", "bone is brighter"),
    "bone_bright": (
        "the bright parts of the bone are darker",
        "the bright parts of the bone are brighter",
    ),
    "around": (
        "what surrounds the bone is darker",
        "what surrounds the bone is brighter",
    ),
    "edges": ("bone is smoother", "bone has stronger edges"),
    "along": ("bone changes less along the neck", "bone changes more along the neck"),
    "grain": ("soft tissue is smoother", "soft tissue is noisier"),
    "volume_uneven": ("sizes of levels fit better", "sizes of levels fit worse"),
    "spacing_uneven": ("levels are spaced more evenly", "levels are spaced unevenly"),
    _LEAST_SURE: ("the least certain level is less so", "every level is more certain"),
    PIXEL: ("pixels are smaller", "pixels are larger"),
    GAP: ("slices lie closer together", "slices lie farther apart"),
    QUIET: (
        "the least suspicious vertebrae are less so",
        "also the least suspicious vertebrae are suspicious",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """One fact of a study against the training.

    Attributes:
        fact: Its name.
        spreads: Standard deviations of training studies from their mean.
    """

    fact: str
    spreads: float

    @property
    def told(self) -> str:
        """What it says of the study."""
        low, high = _WORDS[self.fact]
        return f"{high if self.spreads > 0 else low} ({self.spreads:+.1f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """How far a study lies from the training.

    Attributes:
        score: About 1 for a study like those of the training.
        limit: Of ordinary studies one in a hundred lies above it.
        farthest: The facts that deviate the most, the farthest first.
    """

    score: float
    limit: float
    farthest: tuple[Deviation, ...]

    @property
    def is_above(self) -> bool:
        """Whether the study is unlike what was learnt."""
        return self.score > self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What the studies of a training look like. Kept in the classifier's card.

    Attributes:
        levels: Of each fact of a level, mean and spread of C1 to C7.
        facts: Names of the facts of a study.
        means: Of the facts, over training studies.
        spreads: Their standard deviations.
        covariance: Of the facts, each divided by its spread and softened; shrunk.
        quiet: Mean and spread of the logits of a study's least suspicious vertebrae, of
            held-out studies: a network is surer of those that it has learnt.
        limit: Of the distance.
        coarsest_mm: The farthest that slices of the training lie apart; 0: not known.
        training: Studies that it rests on.
        held_out: Studies that the limit rests on.
    """

    levels: dict[str, tuple[tuple[float, float], ...]]
    facts: tuple[str, ...]
    means: tuple[float, ...]
    spreads: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    quiet: tuple[float, float]
    limit: float
    coarsest_mm: float
    training: int
    held_out: int

    def distance(self, study: MeasuredStudy, logits: npt.ArrayLike) -> Distance | None:
        """Return how far a study lies from the training; ``None`` of nothing.

        Args:
            study: As it was measured.
            logits: Of its vertebrae, NaN where there is none.
        """
        values = _summary(study, self.levels)
        if not np.isfinite(values[: len(LEVEL_FACTS)]).any():
            return None  # no vertebra
        z = (values - np.array(self.means)) / np.array(self.spreads)
        is_finite = np.isfinite(z)
        part = np.array(self.covariance)[np.ix_(is_finite, is_finite)]
        soft = _softened(z[is_finite])
        square = float(soft @ np.linalg.solve(part, soft))
        of_quiet = (quiet_logit(logits) - self.quiet[0]) / self.quiet[1]
        named = dict(zip(self.facts, z.tolist(), strict=True)) | {QUIET: of_quiet}
        if math.isfinite(of_quiet):
            square += float(_softened(of_quiet)) ** 2
        measured = [
            Deviation(fact=fact, spreads=round(value, 2))
            for fact, value in named.items()
            if math.isfinite(value)
        ]
        return Distance(
            score=round(math.sqrt(square / len(measured)), 4),
            limit=self.limit,
            farthest=tuple(
                sorted(measured, key=lambda one: -abs(one.spreads))[:_FARTHEST]
            ),
        )


def learn_reference(
    training: Sequence[MeasuredStudy],
    held_out: Sequence[MeasuredStudy],
    logits: npt.NDArray[np.floating],
) -> Reference | None:
    """Learn what studies of a training look like; ``None`` where there are too few.

    Args:
        training: Studies that the classifier has learnt from.
        held_out: Studies that it has not.
        logits: Of the vertebrae of the held-out, NaN where there is none, (N, 7).
    """
    if len(training) < LEAST_TRAINING or len(held_out) < LEAST_HELD_OUT:
        return None
    from sklearn.covariance import LedoitWolf

    levels = {name: _of_levels(training, name) for name in LEVEL_FACTS}
    table = np.stack([_summary(study, levels) for study in training])
    usual = [_usual(column) for column in table.T]
    means, spreads = np.array(usual).T
    z = np.nan_to_num((table - means) / spreads)
    covariance = LedoitWolf(assume_centered=True).fit(_softened(z)).covariance_
    quiet = np.array([quiet_logit(study_logits) for study_logits in logits])
    gaps = [math.exp(one.gap) for one in training if math.isfinite(one.gap)]
    learnt = Reference(
        levels=levels,
        facts=FACTS,
        means=_rounded(means),
        spreads=_rounded(spreads),
        covariance=tuple(_rounded(row) for row in covariance),
        quiet=_usual(quiet),
        limit=math.inf,
        coarsest_mm=round(max(gaps, default=0.0), 4),
        training=len(training),
        held_out=len(held_out),
    )
    scores = [
        # Without the study itself, or it would lie too near.
        replace(learnt, quiet=_usual(np.delete(quiet, index))).distance(
            study, study_logits
        )
        for index, (study, study_logits) in enumerate(
            zip(held_out, logits, strict=True)
        )
    ]
    return replace(learnt, limit=_limit([one.score for one in scores if one]))


def quiet_logit(logits: npt.ArrayLike) -> float:
    """Return what the least suspicious quarter of a study's vertebrae does not exceed.

    A fracture, or four, leaves it where it is; a network that takes what it does not
    know for fractures moves it.
    """
    finite = np.asarray(logits, dtype=float)
    finite = finite[np.isfinite(finite)]
    return float(np.quantile(finite, _QUIET_SHARE)) if finite.size else math.nan


def _limit(scores: Sequence[float]) -> float:
    """Return what an ordinary study exceeds once in a hundred times.

    The upper prediction limit of a log-normal distribution: it counts in how little a
    few held-out studies say. Nor is it below what all but a hundredth of them reach.
    """
    logs = np.log(np.maximum(scores, 1e-3))
    count = len(logs)
    spread = max(float(logs.std(ddof=1)), _LEAST_SPREAD)
    reach = float(stdtrit(count - 1, ORDINARY)) * math.sqrt(1 + 1 / count)
    seen = float(np.quantile(scores, ORDINARY))
    return round(max(math.exp(float(logs.mean()) + reach * spread), seen), 4)


def _softened(z: npt.ArrayLike) -> Floats:
    """Return deviations of which large ones count by their logarithm.

    Facts have long tails: of an ordinary study whose levels are hard to tell, one fact
    lies seven spreads off. A study of another kind lies off in several.
    """
    return np.asarray(_SOFT * np.arcsinh(np.asarray(z, dtype=float) / _SOFT))


def _summary(
    study: MeasuredStudy, levels: Mapping[str, Sequence[tuple[float, float]]]
) -> Floats:
    """Return the facts of a study, as in ``FACTS``: medians of its levels."""
    z = {
        name: (study.levels[name] - np.array(usual)[:, 0]) / np.array(usual)[:, 1]
        for name, usual in levels.items()
    }
    sure = z[_SURENESS][np.isfinite(z[_SURENESS])]
    return np.array(
        [
            *(_median(z[name]) for name in LEVEL_FACTS),
            *(_unevenness(z[name]) for name in UNEVEN.values()),
            float(sure.min()) if sure.size else math.nan,
            study.pixel,
            study.gap,
        ]
    )


def _of_levels(
    studies: Sequence[MeasuredStudy], name: str
) -> tuple[tuple[float, float], ...]:
    """Return mean and spread of a fact of each level; of all where one has too few."""
    table = np.stack([study.levels[name] for study in studies])
    every = _usual(table.ravel())
    columns = [column[np.isfinite(column)] for column in table.T]
    return tuple(_usual(c) if c.size >= LEAST_TRAINING // 2 else every for c in columns)


def _usual(values: Floats) -> tuple[float, float]:
    """Return mean and spread of what is known; 0 and 1 where nothing is."""
    finite = values[np.isfinite(values)]
    if finite.size < 2:
        return 0.0, 1.0
    spread = max(float(finite.std(ddof=1)), _LEAST_SPREAD)
    return round(float(finite.mean()), 5), round(spread, 5)


def _median(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else math.nan


def _unevenness(values: Floats) -> float:
    """Return the logarithm of how far levels differ; a tenth is added to be defined."""
    finite = values[np.isfinite(values)]
    return math.log(float(finite.std()) + 0.1) if finite.size > 2 else math.nan


def _rounded(values: Floats) -> tuple[float, ...]:
    return tuple(np.round(values, 5).tolist())
