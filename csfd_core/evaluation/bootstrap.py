"""Intervals and paired comparisons by a bootstrap over patients.

The rows of one patient (seven vertebrae, several studies) are alike. Drawing rows one
by one would take them for independent and make every interval too narrow; here whole
patients are drawn, and all their rows come along.

Source: Rutter, Academic Radiology 2000;7:413 (bootstrap of patient-clustered accuracy);
Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentiles).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

Rows = npt.NDArray[np.intp]
Statistic = Callable[[Rows], float]

REPEATS: Final = 1000
_PERCENTILES: Final = (2.5, 97.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A statistic of all rows with its 95 % interval.

    ``low`` and ``high`` are NaN for one patient, or where no draw defined the
    statistic.
    """

    estimate: float
    low: float
    high: float
    draws: int  # that the interval rests on
    undefined: int  # left out, as the statistic was NaN: one class drawn, for example


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """First statistic minus second, with its 95 % interval, on the same draws."""

    estimate: float
    low: float
    high: float
    p_value: float  # two-sided
    draws: int
    undefined: int  # left out, as one of the statistics was NaN


def draw_rows(
    patients: npt.ArrayLike, repeats: int = REPEATS, seed: int = 0
) -> Iterator[Rows]:
    """Draw as many patients as there are, with repetition, again and again.

    The draws depend on the patients and the seed, not on the order of the rows, up to
    the order of rows within a draw.

    Args:
        patients: Shape (N,), what stands for the patient of each row.
        repeats: How many draws.
        seed: Of the random numbers; the same seed gives the same draws.

    Yields:
        Row numbers of one draw; each patient's rows are there together, as often as the
        patient was drawn. Their number differs from draw to draw.

    Raises:
        ValueError: If there is no row, a patient is missing, or ``repeats`` is below 1.
    """
    codes = _codes_of(patients)
    if repeats < 1:
        raise ValueError(f"`repeats` must be at least 1. Received: repeats={repeats}.")
    return _draws(codes, repeats, np.random.default_rng(seed))


def patient_bootstrap(
    patients: npt.ArrayLike,
    statistic: Statistic,
    repeats: int = REPEATS,
    seed: int = 0,
) -> Interval:
    """Return a statistic with its 95 % interval, by the percentile bootstrap.

    With few patients it is somewhat too narrow: of a mean over 40 patients, 93 % of
    simulated intervals held the truth.

    Args:
        patients: Shape (N,), what stands for the patient of each row.
        statistic: Given row numbers, with repetition, returns a number or NaN.
        repeats: How many draws.
        seed: Of the random numbers.

    Raises:
        ValueError: As ``draw_rows``.
    """
    estimate, values = _values(patients, statistic, repeats, seed)
    defined = values[~np.isnan(values)]
    low, high = _interval(defined)
    return Interval(
        estimate=estimate,
        low=low,
        high=high,
        draws=defined.size,
        undefined=values.size - defined.size,
    )


def paired_difference(
    patients: npt.ArrayLike,
    statistic_a: Statistic,
    statistic_b: Statistic,
    repeats: int = REPEATS,
    seed: int = 0,
) -> Difference:
    """Compare two statistics of the same rows, for example the AUC of two models.

    Each draw gives one difference a - b. The p-value is two-sided: twice the smaller
    share of draws at or beyond 0, with one added to both counts, so that it is never 0
    and no smaller than the draws can tell. It asks whether the interval of that level
    still holds 0.

    Args:
        patients: Shape (N,), what stands for the patient of each row.
        statistic_a: Given row numbers, with repetition, returns a number or NaN.
        statistic_b: The same, of the second model.
        repeats: How many draws.
        seed: Of the random numbers.

    Raises:
        ValueError: As ``draw_rows``.

    Source: Davison and Hinkley, Bootstrap Methods and their Application, 1997, chapter
    4 (the added one); Phipson and Smyth, Stat Appl Genet Mol Biol 2010;9:39.
    """

    def difference(rows: Rows) -> float:
        return statistic_a(rows) - statistic_b(rows)

    estimate, values = _values(patients, difference, repeats, seed)
    defined = values[~np.isnan(values)]
    low, high = _interval(defined)
    return Difference(
        estimate=estimate,
        low=low,
        high=high,
        p_value=_p_value(defined),
        draws=defined.size,
        undefined=values.size - defined.size,
    )


def _values(
    patients: npt.ArrayLike, statistic: Statistic, repeats: int, seed: int
) -> tuple[float, npt.NDArray[np.float64]]:
    """Return the statistic of all rows and of each draw; no draws of one patient."""
    draws = draw_rows(patients, repeats, seed)
    codes = _codes_of(patients)
    estimate = float(statistic(np.arange(codes.size)))
    if not codes.any():  # one patient: each draw would be the same
        return estimate, np.empty(0)
    return estimate, np.array([statistic(rows) for rows in draws], dtype=np.float64)


def _interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    if not values.size:
        return math.nan, math.nan
    low, high = np.percentile(values, _PERCENTILES)
    return float(low), float(high)


def _p_value(differences: npt.NDArray[np.float64]) -> float:
    if not differences.size:
        return math.nan
    below = int((differences <= 0).sum())
    above = int((differences >= 0).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (differences.size + 1))


def _codes_of(patients: npt.ArrayLike) -> Rows:
    """Return the number of each row's patient, by their sorted names."""
    names = np.asarray(patients)
    if names.ndim != 1 or not names.size:
        raise ValueError(
            f"`patients` must be a vector, one for each row. Received shape: "
            f"{names.shape}."
        )
    codes, _ = pd.factorize(names, sort=True)
    if missing := int((codes < 0).sum()):
        raise ValueError(
            f"`patients` must be known for every row. Received {missing} missing of "
            f"{codes.size}, first at row {int(np.argmax(codes < 0))}."
        )
    return codes


def _draws(codes: Rows, repeats: int, rng: np.random.Generator) -> Iterator[Rows]:
    """Draw patients and lay out their rows one after another, without a loop."""
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes)
    starts = np.cumsum(counts) - counts  # of each patient's rows within `order`
    for _ in range(repeats):
        drawn = rng.integers(counts.size, size=counts.size)
        lengths = counts[drawn]
        shifts = starts[drawn] - (np.cumsum(lengths) - lengths)
        yield order[np.repeat(shifts, lengths) + np.arange(int(lengths.sum()))]
