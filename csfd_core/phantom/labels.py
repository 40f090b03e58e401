"""Which levels are fractured: the joint distribution of the seven labels.

Built from published summary numbers of the RSNA 2022 training table (marginals, number
of fractured levels, pairwise correlations): the distribution of highest entropy over
the 128 patterns that has all of them, found by iterative proportional fitting (Deming
and Stephan, 1940).
"""

from collections.abc import Mapping
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from csfd_core.vocabulary import LEVEL_NAMES

STUDIES: Final = 2019
LEVEL_COUNTS: Final = (146, 285, 73, 108, 162, 277, 393)  # fractured studies, C1..C7
FRACTURED_LEVELS: Final = (1058, 623, 239, 64, 26, 7, 2)  # studies with 0..6 levels
# Pearson correlation of the labels, rows C1..C6, each from the next level on.
CORRELATIONS: Final = (
    (0.1944, 0.0279, -0.0154, 0.0302, -0.0280, -0.0358),
    (0.1044, -0.0015, -0.0412, -0.0583, -0.0772),
    (0.2959, 0.1577, 0.0616, -0.0014),
    (0.3430, 0.1035, 0.0110),
    (0.3591, 0.0574),
    (0.2766,),
)
_ROUNDS: Final = 300


def patterns() -> npt.NDArray[np.bool_]:
    """Return all 128 label patterns, shape (128, 7), C1 first."""
    codes = np.arange(2 ** len(LEVEL_NAMES))
    bits = codes[:, None] >> np.arange(len(LEVEL_NAMES)) & 1
    return np.asarray(bits, dtype=np.bool_)


@cache
def pattern_probabilities() -> npt.NDArray[np.float64]:
    """Return the probability of each row of ``patterns``, shape (128,)."""
    table = patterns()
    constraints = _constraints(table)
    counts = table.sum(axis=1)
    by_count = np.array([*FRACTURED_LEVELS, 0]) / STUDIES
    probability = np.full(len(table), 1 / len(table))
    for _ in range(_ROUNDS):
        for member, share in constraints:
            inside = probability[member].sum()
            probability[member] *= share / inside
            probability[~member] *= (1 - share) / (1 - inside)
        sums = np.bincount(counts, weights=probability, minlength=by_count.size)
        probability *= np.divide(
            by_count, sums, out=np.zeros_like(by_count), where=sums > 0
        )[counts]
    probability.flags.writeable = False
    return probability


def _constraints(
    table: npt.NDArray[np.bool_],
) -> list[tuple[npt.NDArray[np.bool_], float]]:
    """Return (patterns, probability) for each level and each pair of levels."""
    p = np.array(LEVEL_COUNTS) / STUDIES
    sd = np.sqrt(p * (1 - p))
    constraints = [(table[:, i], float(p[i])) for i in range(len(p))]
    for i, row in enumerate(CORRELATIONS):
        for j, correlation in enumerate(row, start=i + 1):
            both = correlation * sd[i] * sd[j] + p[i] * p[j]
            constraints.append((table[:, i] & table[:, j], float(both)))
    return constraints


def draw_labels(rng: np.random.Generator) -> dict[str, int]:
    """Draw the labels C1..C7 of one study."""
    cumulative = np.cumsum(pattern_probabilities())
    code = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
    row = patterns()[code]
    return {name: int(row[i]) for i, name in enumerate(LEVEL_NAMES)}


def require_labels(labels: Mapping[str, int]) -> dict[str, int]:
    """Return ``labels`` completed with 0 for the levels it does not name.

    Raises:
        ValueError: If a name is no cervical level or a value is neither 0 nor 1.
    """
    if unknown := sorted(set(labels) - set(LEVEL_NAMES)):
        raise ValueError(f"`labels` may name C1..C7 only. Received: {unknown}.")
    if wrong := {k: v for k, v in labels.items() if v not in (0, 1)}:
        raise ValueError(f"`labels` must be 0 or 1. Received: {wrong}.")
    return {name: int(labels.get(name, 0)) for name in LEVEL_NAMES}
