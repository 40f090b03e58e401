"""How far the members of an ensemble agree."""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from support.drawn_crops import CROPS
from support.spots import spot_ensemble

from csfd_core.classification.card import What
from csfd_core.classification.study_facts import SeenStudy
from csfd_core.classification.unlike import Unlike
from csfd_core.evaluation.conformal import Answer, AnswerBounds
from csfd_core.inference.judgement import judge_vertebrae
from csfd_core.inference.uncertainty import (
    Spread,
    answers_of,
    spreads_of,
    spreads_to_json,
)
from csfd_core.vocabulary import LABEL_COLUMNS, OVERALL

THRESHOLDS = {"vertebra": 0.3, "overall": 0.6}
SEEN = ("C1", "C2", "C3", "C4")


def said(**columns: tuple[float, ...]) -> Any:
    members = len(next(iter(columns.values())))
    known = {name: columns.get(name, (0.0,) * members) for name in LABEL_COLUMNS}
    return np.array([known[name] for name in LABEL_COLUMNS]).T


def test_the_spread_reaches_from_the_lowest_to_the_highest_member() -> None:
    found = spreads_of(said(C1=(0.5, 0.1, 0.2)), THRESHOLDS, SEEN)["C1"]
    assert found is not None
    assert (found.lowest, found.highest) == (0.1, 0.5)


@pytest.mark.parametrize(
    ("probabilities", "is_within"),
    [
        ((0.1, 0.29), False),  # all below
        ((0.31, 0.9), False),  # all above
        ((0.1, 0.9), True),
        ((0.3, 0.9), False),  # at the point counts as above, as it does for suspicion
        ((0.2, 0.3), True),
    ],
)
def test_levels_at_the_operating_point_are_those_the_members_disagree_on(
    probabilities: tuple[float, float], is_within: bool
) -> None:
    found = spreads_of(said(C2=probabilities), THRESHOLDS, SEEN)["C2"]
    assert found is not None
    assert found.at_operating_point == is_within


def test_the_study_is_compared_with_its_own_operating_point() -> None:
    both = (0.4, 0.5)
    found = spreads_of(said(patient_overall=both, C1=both), THRESHOLDS, SEEN)
    assert found[OVERALL] == Spread(lowest=0.4, highest=0.5, at_operating_point=False)
    over = spreads_of(said(patient_overall=(0.5, 0.7)), THRESHOLDS, SEEN)[OVERALL]
    assert over is not None
    assert over.at_operating_point


def test_one_member_and_levels_that_nobody_saw_have_no_spread() -> None:
    alone = spreads_of(said(C1=(0.4,)), THRESHOLDS, SEEN)
    assert spreads_to_json(alone) == dict.fromkeys(LABEL_COLUMNS)
    nothing = spreads_of(said(patient_overall=(0.1, 0.9)), THRESHOLDS, ())
    assert spreads_to_json(nothing) == dict.fromkeys(LABEL_COLUMNS)
    found = spreads_to_json(spreads_of(said(C7=(0.1, 0.9)), THRESHOLDS, SEEN))
    assert list(found) == list(LABEL_COLUMNS)
    assert found["C7"] is None
    assert found["C1"] == {"lowest": 0.0, "highest": 0.0, "at_operating_point": False}


def dark_c3() -> SeenStudy:
    """A study of which nothing but C3 is seen, and nothing bright in it."""
    vertebra = cast(Any, type("Dark", (), {"images": np.zeros((2, 3, 4, 4), np.uint8)}))
    return SeenStudy(
        vertebrae={"C3": vertebra},
        confidences={},
        shares={},
        spacing_zyx_mm=None,
        crop=CROPS,
    )


def test_an_ensemble_says_the_mean_of_what_its_members_say() -> None:
    ensemble = spot_ensemble(-1.0, 0.5, 2.0)
    seen = dark_c3()
    judgement = judge_vertebrae(ensemble, seen, {})
    logits = -2 + np.array([-1.0, 0.5, 2.0])
    expected = 1 / (1 + np.exp(-logits))
    column = LABEL_COLUMNS.index("C3")
    assert judgement.said[:, column] == pytest.approx(expected)
    assert judgement.assessment.probabilities["C3"] == pytest.approx(expected.mean())
    predicted = ensemble.predict(seen.vertebrae)
    told = judgement.assessment.probabilities
    assert {name: told[name] for name in ("C3", OVERALL)} == {
        name: predicted[name] for name in ("C3", OVERALL)
    }
    assert told["C4"] is None
    spread = judgement.spreads["C3"]
    assert spread is not None
    assert spread.lowest == pytest.approx(expected.min(), abs=1e-6)
    assert judgement.heats == ()  # nobody knows where it lies


BOUNDS: dict[What, AnswerBounds] = {
    "vertebra": AnswerBounds(
        fractured_from=0.1, whole_up_to=0.4, fractured_n=30, whole_n=200
    ),
    "overall": AnswerBounds(
        fractured_from=0.5, whole_up_to=0.8, fractured_n=20, whole_n=40
    ),
}


def test_a_answer_is_told_of_what_was_assessed_by_bounds_of_its_own() -> None:
    told = {OVERALL: 0.45, "C1": 0.05, "C2": 0.45, "C3": 0.2, "C4": None}
    assert answers_of(told, BOUNDS) == {
        OVERALL: Answer.WHOLE,
        "C1": Answer.WHOLE,
        "C2": Answer.FRACTURED,
        "C3": Answer.UNDECIDED,
        "C4": None,
    }


def test_of_a_study_unlike_the_training_nothing_is_certain() -> None:
    ensemble = spot_ensemble(-3.0)
    cards = [card.model_copy(update={"bounds": BOUNDS}) for card in ensemble.cards]
    judged = judge_vertebrae(replace(ensemble, cards=cards), dark_c3(), {})
    assert (judged.answers["C3"], judged.answers["C4"]) == (Answer.WHOLE, None)
    foreign = replace(judged, unlike=Unlike(score=2.0, limit=1.0))
    assert (foreign.answers["C3"], foreign.answers["C4"]) == (Answer.UNDECIDED, None)


def test_models_from_before_there_were_bounds_tell_no_answer() -> None:
    assert answers_of({OVERALL: 0.9, "C1": 0.9}, {}) == {OVERALL: None, "C1": None}


def test_an_ensemble_has_bounds_where_all_of_its_members_do() -> None:
    ensemble = spot_ensemble(0.0, 1.0)
    old, new = (
        card.model_copy(update={"bounds": bounds})
        for card, bounds in zip(ensemble.cards, ({}, BOUNDS), strict=True)
    )
    assert replace(ensemble, cards=[old, new]).bounds == {}
    assert replace(ensemble, cards=[new, new]).bounds["overall"].whole_up_to == 0.8
