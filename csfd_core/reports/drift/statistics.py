"""How far two groups of studies are apart, and whether by more than chance.

Pure functions of arrays. A study is the unit throughout: pixels and vertebrae of one
study are not independent of each other.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import stats

Vector = npt.NDArray[np.float64]

# Fewer new studies are not judged: with ten, only a shift of most of them can be told
# from chance; with fewer, a warning would say more of chance than of the data.
LEAST_STUDIES: Final = 10
# Of the share of false alarms among all, after Benjamini and Hochberg: where nothing
# has drifted, about one look in twenty warns.
SIGNIFICANCE: Final = 0.05
# Of the population stability index. From 0.25 on a shift is called major by custom (N.
# Siddiqi, Credit Risk Scorecards, Wiley 2006): a normal distribution moved by half its
# standard deviation has that.
PSI_MARGIN: Final = 0.25
# Of Cohen's h between two rates; below 0.2 is less than what he calls small. It is
# reached from 50 to 60 %, or from 4 to 9 %: a fixed difference suits no rare level.
RATE_MARGIN: Final = 0.2

_BINS: Final = 10
_LEAST_BINS: Final = 3  # low, middle and high: sees a shift and a change of spread
_STUDIES_PER_BIN: Final = 5  # new ones expected, so that bins are not empty by chance
_PSEUDO_COUNT: Final = 0.5  # studies added to each bin: an empty one has no logarithm
_LARGEST_EXACT: Final = 10_000  # pairs of studies; beyond, the asymptotic p is as good
_PERMUTATIONS: Final = 1999  # the least p, 0.0005, stays small after correction


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A feature of new studies beside that of the reference; NaN where undefined.

    ``effect`` is what ``margin`` holds for: the index for values and histograms,
    Cohen's h for rates.
    """

    reference_n: int
    current_n: int
    reference_mean: float
    current_mean: float
    psi: float
    ks: float  # largest distance of the two distributions, 0 to 1
    p: float
    effect: float
    margin: float


def psi_of_shares(reference: npt.ArrayLike, current: npt.ArrayLike) -> float:
    """Return the population stability index of two distributions over the same bins.

    It is the sum of ``(current - reference) * ln(current / reference)``, a symmetric
    Kullback-Leibler divergence (Jeffreys) in nats; 0 where both are equal.

    Args:
        reference: Share of each bin, shape (B,), all above 0, sum 1.
        current: The same of the other group.

    Source: B. Yurdakul and J. Naranjo, Statistical properties of the population
    stability index. J. Risk Model Validation 14 (2020), 89-100.
    """
    before = np.asarray(reference, dtype=np.float64)
    after = np.asarray(current, dtype=np.float64)
    return float(np.sum((after - before) * np.log(after / before)))


def psi_of_counts(reference: npt.ArrayLike, current: npt.ArrayLike) -> float:
    """Return the index of two counts over the same bins, half a study added to each."""
    before, after = _shares(reference), _shares(current)
    return psi_of_shares(before, after)


def compare_values(reference: npt.ArrayLike, current: npt.ArrayLike) -> Comparison:
    """Compare the distributions of a number of each study.

    The index takes bins between quantiles of the reference, as many as there are five
    new studies for, at most ten. The p value is that of the two-sample test of
    Kolmogorov and Smirnov.

    Args:
        reference: One number per study; NaN where it is not known.
        current: The same of the new studies.
    """
    before, after = _finite(reference), _finite(current)
    if _is_few(before, after):
        return _undecided(before, after, PSI_MARGIN)
    levels, weights = np.unique(before, return_counts=True)
    edges = quantile_edges(levels, weights, _bin_count(after.size))
    size = edges.size + 1
    psi = psi_of_counts(
        np.bincount(_bins_of(edges, before), minlength=size),
        np.bincount(_bins_of(edges, after), minlength=size),
    )
    is_small = before.size * after.size <= _LARGEST_EXACT
    result = stats.ks_2samp(before, after, method="exact" if is_small else "asymp")
    return _by_index(before, after, psi, result)


def compare_rates(reference: npt.ArrayLike, current: npt.ArrayLike) -> Comparison:
    """Compare the share of ones among labels of 0 and 1, by Fisher's exact test.

    Source of the effect, Cohen's h: J. Cohen, Statistical Power Analysis for the
    Behavioral Sciences, 2nd edition, Erlbaum 1988, chapter 6.

    Args:
        reference: One label per study; NaN where unlabelled.
        current: The same of the new studies.
    """
    before, after = _finite(reference), _finite(current)
    if _is_few(before, after):
        return _undecided(before, after, RATE_MARGIN)
    counts = np.array([[group.sum(), (1 - group).sum()] for group in (before, after)])
    low, high = float(before.mean()), float(after.mean())
    return Comparison(
        reference_n=before.size,
        current_n=after.size,
        reference_mean=low,
        current_mean=high,
        psi=psi_of_counts(counts[0], counts[1]),
        ks=abs(high - low),
        p=float(stats.fisher_exact(counts.astype(np.int64)).pvalue),
        effect=abs(cohens_h(low, high)),
        margin=RATE_MARGIN,
    )


def compare_histograms(reference: Vector, current: Vector) -> Comparison:
    """Compare histograms of grey levels: the mean of one group with that of the other.

    ``ks`` is the largest distance of the two cumulated means. Its p value comes from
    permutations of the studies: pixels of one study are not independent.

    Args:
        reference: Share of each grey level, shape (N, 256), rows sum to 1.
        current: The same of the new studies, shape (M, 256).
    """
    grey = np.arange(reference.shape[1], dtype=np.float64)
    before, after = reference @ grey, current @ grey
    if _is_few(before, after):
        return _undecided(before, after, PSI_MARGIN)
    mean, other = reference.mean(axis=0), current.mean(axis=0)
    edges = quantile_edges(grey, mean, _BINS)  # each study fills all of them
    bins, size = _bins_of(edges, grey), edges.size + 1
    psi = psi_of_counts(
        np.bincount(bins, weights=mean * before.size, minlength=size),
        np.bincount(bins, weights=other * after.size, minlength=size),
    )
    cumulated = np.cumsum(np.concatenate([reference, current]), axis=1)

    def distance(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> float:
        gap = cumulated[first].mean(axis=0) - cumulated[second].mean(axis=0)
        return float(np.abs(gap).max())

    rows = np.arange(before.size + after.size)
    result = stats.permutation_test(
        (rows[: before.size], rows[before.size :]),
        distance,
        vectorized=False,
        n_resamples=_PERMUTATIONS,
        alternative="greater",
        rng=np.random.default_rng(0),  # the same data give the same report
    )
    return _by_index(before, after, psi, result)


def cohens_h(before: float, after: float) -> float:
    """Return the distance of two rates on the arcsine scale, positive for a rise."""
    return float(2 * np.arcsin(np.sqrt(after)) - 2 * np.arcsin(np.sqrt(before)))


def adjust(p_values: npt.ArrayLike) -> Vector:
    """Correct p values for their number, after Benjamini and Hochberg; NaN stays NaN.

    Source: Y. Benjamini and Y. Hochberg, Controlling the false discovery rate. J. R.
    Stat. Soc. B 57 (1995), 289-300.
    """
    values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(values.shape, np.nan)
    is_known = np.isfinite(values)
    if is_known.any():
        adjusted[is_known] = stats.false_discovery_control(
            values[is_known], method="bh"
        )
    return adjusted


def quantile_edges(
    levels: npt.NDArray[np.floating], weights: npt.NDArray[np.generic], count: int
) -> Vector:
    """Return the inner edges of bins that hold about equal weight.

    A value that is as frequent as a whole bin gets a bin of its own, so that what lies
    beside it is told from it. A bin reaches from above its lower edge to its upper one.

    Args:
        levels: Distinct values, ascending.
        weights: How often each is there.
        count: Bins that are wanted.
    """
    share = np.cumsum(weights, dtype=np.float64)
    wanted = np.arange(1, count) / count * share[-1]
    indices = np.searchsorted(share, wanted * (1 - 1e-9))
    edges, repeats = np.unique(levels[indices].astype(np.float64), return_counts=True)
    frequent = edges[repeats > 1]
    return np.unique(np.concatenate([edges, np.nextafter(frequent, -np.inf)]))


def _bins_of(edges: Vector, values: Vector) -> npt.NDArray[np.int64]:
    return np.asarray(np.searchsorted(edges, values, side="left"), dtype=np.int64)


def _bin_count(current_n: int) -> int:
    return int(np.clip(current_n // _STUDIES_PER_BIN, _LEAST_BINS, _BINS))


def _shares(counts: npt.ArrayLike) -> Vector:
    filled = np.asarray(counts, dtype=np.float64) + _PSEUDO_COUNT
    return np.asarray(filled / filled.sum(), dtype=np.float64)


def _finite(values: npt.ArrayLike) -> Vector:
    numbers = np.asarray(values, dtype=np.float64)
    return np.asarray(numbers[np.isfinite(numbers)], dtype=np.float64)


def _is_few(before: Vector, after: Vector) -> bool:
    return min(before.size, after.size) < LEAST_STUDIES


def _by_index(
    before: Vector,
    after: Vector,
    psi: float,
    result: Any,  # noqa: ANN401 - results of SciPy share no type
) -> Comparison:
    """Return a comparison whose effect is the index; ``result`` has distance and p."""
    return Comparison(
        reference_n=before.size,
        current_n=after.size,
        reference_mean=float(before.mean()),
        current_mean=float(after.mean()),
        psi=psi,
        ks=float(result.statistic),
        p=float(result.pvalue),
        effect=psi,
        margin=PSI_MARGIN,
    )


def _undecided(before: Vector, after: Vector, margin: float) -> Comparison:
    return Comparison(
        reference_n=before.size,
        current_n=after.size,
        reference_mean=float(before.mean()) if before.size else np.nan,
        current_mean=float(after.mean()) if after.size else np.nan,
        psi=np.nan,
        ks=np.nan,
        p=np.nan,
        effect=np.nan,
        margin=margin,
    )
