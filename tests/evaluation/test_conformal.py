"""Answers that are right as often as they claim, on draws whose truth is known."""

import numpy as np
import pytest
from scipy.special import expit

from csfd_core.evaluation.conformal import (
    CLAIMED,
    Answer,
    AnswerBounds,
    answer_bounds,
    joined,
)


def draw(
    rng: np.random.Generator, n: int, share: float, apart: float
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a classifier that tells the two kinds more or less apart."""
    labels = (rng.random(n) < share).astype(int)
    return expit(rng.normal(-2, 1.5, n) + apart * labels), labels


@pytest.mark.parametrize("apart", [0.0, 1.5, 4.0])
def test_the_right_answer_is_open_as_often_as_claimed_of_either_kind(
    apart: float,
) -> None:
    """The mean over many draws: the guarantee is over held-out and new cases."""
    rng = np.random.default_rng(0)
    covered: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(300):
        bounds = answer_bounds(*draw(rng, 200, 0.15, apart))
        probabilities, labels = draw(rng, 400, 0.15, apart)
        said = np.array([bounds.answer(p) for p in probabilities])
        for label, wrong in ((0, Answer.FRACTURED), (1, Answer.WHOLE)):
            covered[label].append(float(np.mean(said[labels == label] != wrong)))
    assert np.mean(covered[0]) >= CLAIMED - 0.005
    assert np.mean(covered[1]) >= CLAIMED - 0.005
    if apart < 4:  # where kinds overlap, no more is left open than needed
        assert np.mean(covered[0]) < CLAIMED + 0.03
        assert np.mean(covered[1]) < CLAIMED + 0.05


def test_a_classifier_that_knows_nothing_decides_little_and_a_good_one_much() -> None:
    rng = np.random.default_rng(1)
    decided = []
    for apart in (0.0, 4.0):
        bounds = answer_bounds(*draw(rng, 2000, 0.2, apart))
        said = [bounds.answer(p) for p in draw(rng, 2000, 0.2, apart)[0]]
        decided.append(np.mean([v is not Answer.UNDECIDED for v in said]))
    assert decided[0] < 0.25
    assert decided[1] > 0.8


def test_the_bounds_are_the_quantiles_of_the_paper() -> None:
    """Of 19 cases and 90 % the 18th counts: ceil(0.9 * 20), from the most typical."""
    broken = np.linspace(0.05, 0.95, 19)
    whole = np.linspace(0.01, 0.19, 19)
    bounds = answer_bounds(
        np.concatenate([broken, whole]), np.repeat([1, 0], 19), claimed=0.9
    )
    assert bounds == AnswerBounds(
        fractured_from=pytest.approx(0.1),
        whole_up_to=pytest.approx(0.18),
        fractured_n=19,
        whole_n=19,
    )
    assert bounds.answer(0.05) is Answer.WHOLE
    assert bounds.answer(0.15) is Answer.UNDECIDED
    assert bounds.answer(0.5) is Answer.FRACTURED


def test_with_eight_cases_of_a_kind_its_answer_is_never_ruled_out() -> None:
    probabilities = np.concatenate([np.full(8, 0.9), np.full(50, 0.01)])
    bounds = answer_bounds(probabilities, np.repeat([1, 0], [8, 50]))
    assert bounds.fractured_from == 0
    assert bounds.answer(0.001) is Answer.UNDECIDED
    assert bounds.answer(0.5) is Answer.FRACTURED


def test_a_probability_that_neither_kind_has_had_is_undecided() -> None:
    probabilities = np.concatenate([np.full(50, 0.9), np.full(50, 0.1)])
    bounds = answer_bounds(probabilities, np.repeat([1, 0], 50))
    assert bounds.answer(0.5) is Answer.UNDECIDED


def test_an_ensemble_has_the_mean_of_its_members() -> None:
    first, second = (
        AnswerBounds(fractured_from=f, whole_up_to=w, fractured_n=9, whole_n=20)
        for f, w in ((0.2, 0.4), (0.4, 0.8))
    )
    assert joined([first, second]) == AnswerBounds(
        fractured_from=pytest.approx(0.3),
        whole_up_to=pytest.approx(0.6),
        fractured_n=18,
        whole_n=40,
    )
    with pytest.raises(ValueError, match="must hold those of a member"):
        joined([])


def test_vectors_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="vectors of one length"):
        answer_bounds([0.1, 0.2], [1])
