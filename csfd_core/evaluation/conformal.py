"""Answers that are right as often as they claim: split conformal prediction.

A probability leaves one answer open, both or neither. The bounds are quantiles of the
probabilities of held-out fractured and held-out whole cases, each kind apart, so that
of either kind at least the claimed share of new cases has the right answer left open,
whatever the classifier is (Vovk 2012, conditional validity of inductive conformal
predictors; Angelopoulos and Bates 2021, section 4.2). Where both answers are open, or
neither, nothing is decided.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

CLAIMED: Final = 0.9  # share of right answers, of the fractured and of the whole
_ROUNDING: Final = 1e-9


class Answer(StrEnum):
    """What a probability leaves open."""

    WHOLE = "whole"
    FRACTURED = "fractured"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerBounds:
    """Which probabilities leave which answers open.

    Attributes:
        fractured_from: From here upwards a fracture is possible; 0: always.
        whole_up_to: Up to here a whole vertebra is possible; 1: always.
        fractured_n: Held-out fractured cases that the first was found on.
        whole_n: Held-out whole cases that the second was found on.
    """

    fractured_from: float
    whole_up_to: float
    fractured_n: int
    whole_n: int

    def answer(self, probability: float) -> Answer:
        """Return what a probability leaves open."""
        may_break = probability >= self.fractured_from
        may_be_whole = probability <= self.whole_up_to
        if may_break == may_be_whole:
            return Answer.UNDECIDED
        return Answer.FRACTURED if may_break else Answer.WHOLE


def answer_bounds(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, claimed: float = CLAIMED
) -> AnswerBounds:
    """Find the bounds on held-out cases.

    With too few cases of a kind (9 for 90 %) its answer stays open everywhere.

    Args:
        probabilities: Shape (N,), within 0..1.
        labels: Shape (N,), 0 or 1.
        claimed: Least share of right answers, of each kind.

    Raises:
        ValueError: If shapes differ, or the share is not between 0 and 1.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    y = np.asarray(labels)
    if p.ndim != 1 or p.shape != y.shape or not 0 < claimed < 1:
        raise ValueError(
            "`probabilities` and `labels` must be vectors of one length, `claimed` "
            f"between 0 and 1. Received shapes {p.shape} and {y.shape}, {claimed}."
        )
    broken, whole = np.sort(p[y == 1]), np.sort(p[y == 0])
    # How many of the least typical cases lie outside; below 0, none may.
    outside = [
        kind.size - math.ceil(claimed * (kind.size + 1) - _ROUNDING)
        for kind in (broken, whole)
    ]
    return AnswerBounds(
        fractured_from=float(broken[outside[0]]) if outside[0] >= 0 else 0.0,
        whole_up_to=float(whole[-1 - outside[1]]) if outside[1] >= 0 else 1.0,
        fractured_n=int(broken.size),
        whole_n=int(whole.size),
    )


def joined(bounds: list[AnswerBounds]) -> AnswerBounds:
    """Return the bounds of an ensemble: the means of its members'.

    Raises:
        ValueError: If there are none.
    """
    if not bounds:
        raise ValueError("`bounds` must hold those of a member. Received: [].")
    return AnswerBounds(
        fractured_from=float(np.mean([member.fractured_from for member in bounds])),
        whole_up_to=float(np.mean([member.whole_up_to for member in bounds])),
        fractured_n=sum(member.fractured_n for member in bounds),
        whole_n=sum(member.whole_n for member in bounds),
    )
