"""Decisions on challengers of known quality."""

import json
import math

import numpy as np
import pytest
from support.contenders import (
    PREVALENCE,
    make_contender,
    make_labels,
    make_probabilities,
    make_table,
    uid_of,
)

from csfd_core.errors import SettingsError
from csfd_core.evaluation.metrics import competition_log_loss
from csfd_core.registry.decision import Decision, PromotionConfig
from csfd_core.registry.promotion import decide

LABELS = make_labels(80)
CHAMPION = make_contender("version 1", 1.5, LABELS, seed=1)


def unmet(decision: Decision) -> set[str]:
    return {c.name for c in decision.conditions if not c.is_met}


def test_better_challenger_takes_over() -> None:
    decision = decide(CHAMPION, make_contender("version 2", 3.0, LABELS, seed=2))
    assert decision.promoted, decision.reasons
    assert decision.verdict == "Version 2 takes over from version 1."
    assert (decision.studies, decision.subjects) == (80, 80)
    assert len(decision.reasons) == len(decision.conditions) == 7


def test_worse_challenger_is_refused_with_its_numbers() -> None:
    worse = make_contender("version 2", 0.5, LABELS, seed=2)
    decision = decide(CHAMPION, worse)
    assert not decision.promoted
    assert decision.verdict == "Version 1 stays champion."
    assert "loss" in unmet(decision)
    truth = np.column_stack([LABELS.max(axis=1), LABELS])
    by_level = worse.predictions.pivot(
        index="study_uid", columns="level", values="probability"
    ).loc[[uid_of(i) for i in range(80)], [*PREVALENCE]]
    columns = ["patient_overall", *[f"C{i}" for i in range(1, 8)]]
    loss = competition_log_loss(truth, by_level[columns].to_numpy())
    assert any(f"log loss is {loss:.3f}, the" in reason for reason in decision.reasons)


def test_equal_challenger_is_refused() -> None:
    decision = decide(CHAMPION, make_contender("version 2", 1.5, LABELS, seed=1))
    assert unmet(decision) == {"loss"}


@pytest.mark.slow
def test_small_gain_that_chance_explains_is_refused() -> None:
    labels = make_labels(30)
    champion = make_contender("version 1", 1.5, labels, seed=1)
    losses = {}
    for seed in range(40):
        other = make_contender("version 2", 1.6, labels, seed=seed)
        decision = decide(champion, other, PromotionConfig(repeats=200))
        scores = decision.scores
        losses[seed] = (
            scores["version 2"]["competition_log_loss"]
            - scores["version 1"]["competition_log_loss"],
            decision.promoted,
        )
    lower = [promoted for difference, promoted in losses.values() if difference < 0]
    assert len(lower) > 5
    assert sum(lower) < len(lower)


def test_degraded_labels_are_refused() -> None:
    """A model of shuffled labels says the opposite of what it should, now and then."""
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(LABELS)
    probabilities = make_probabilities(shuffled, 3.0, seed=2)
    other = make_contender("version 2", 3.0, LABELS, seed=2)
    degraded = make_contender(
        "version 2", 3.0, LABELS, predictions=make_table(LABELS, probabilities)
    )
    assert decide(CHAMPION, other).promoted
    assert {"loss", "sensitivity_vertebra"} <= unmet(decide(CHAMPION, degraded))


def test_planted_test_study_is_refused() -> None:
    other = make_contender(
        "version 2", 3.0, LABELS, seed=2, learnt_from=frozenset({uid_of(3), "9.9.1"})
    )
    decision = decide(CHAMPION, other)
    assert unmet(decision) == {"unseen_test_set"}
    assert "on 1 study of the locked test set" in decision.reasons[0]


def test_lost_sensitivity_is_refused() -> None:
    other = make_contender(
        "version 2", 3.0, LABELS, seed=2, thresholds={"vertebra": 0.999, "overall": 0.5}
    )
    assert unmet(decide(CHAMPION, other)) == {"sensitivity_vertebra"}


def test_probabilities_that_mislead_are_refused() -> None:
    skilled = make_probabilities(LABELS, 5.0, seed=2)
    timid = 0.25 + skilled / 2  # in the right order, but never below a quarter
    weak = make_contender("version 1", 0.2, LABELS, seed=1)
    other = make_contender(
        "version 2", 5.0, LABELS, predictions=make_table(LABELS, timid)
    )
    loose = PromotionConfig(loss_margin=1.0)
    assert unmet(decide(weak, other, loose)) == {"calibration"}


@pytest.mark.parametrize(
    ("champion_ms", "challenger_ms", "is_fast"),
    [
        (100.0, 1999.0, True),  # nobody waits for it
        (100.0, 2001.0, False),
        (900.0, 2700.0, True),
        (900.0, 2701.0, False),
        (100.0, math.nan, False),
        (math.nan, 1999.0, True),
    ],
)
def test_slow_challenger_is_refused(
    champion_ms: float, challenger_ms: float, is_fast: bool
) -> None:
    champion = make_contender("1", 1.5, LABELS, seed=1, ms_per_study=champion_ms)
    other = make_contender("2", 3.0, LABELS, seed=2, ms_per_study=challenger_ms)
    assert ("latency" not in unmet(decide(champion, other))) is is_fast


def test_few_subjects_decide_nothing() -> None:
    labels = make_labels(9)
    decision = decide(
        make_contender("version 1", 0.5, labels, seed=1),
        make_contender("version 2", 5.0, labels, seed=2),
    )
    assert unmet(decision) == {"test_set"}
    assert "9 studies of 9 subjects" in decision.reasons[0]
    assert "10 subjects are needed" in decision.reasons[0]


def test_sensitivity_that_nothing_defines_is_refused() -> None:
    labels = np.zeros((20, 7), dtype=int)
    decision = decide(
        make_contender("version 1", 0.5, labels, seed=1),
        make_contender("version 2", 5.0, labels, seed=2),
    )
    assert {"sensitivity_vertebra", "sensitivity_overall"} <= unmet(decision)
    assert "0 fractured vertebrae" in " ".join(decision.reasons)


def test_first_model_must_beat_the_prevalences() -> None:
    good = decide(None, make_contender("version 1", 2.0, LABELS, seed=1))
    assert good.promoted
    assert good.verdict == "Version 1 becomes the first champion."
    assert any("compared with the prevalences" in reason for reason in good.reasons)
    rng = np.random.default_rng(3)
    noise = make_table(LABELS, rng.random(LABELS.shape))
    bad = decide(None, make_contender("version 1", 0, LABELS, predictions=noise))
    assert unmet(bad) == {"loss"}


def test_loss_of_the_prevalences_is_that_of_the_metric() -> None:
    decision = decide(None, make_contender("version 1", 2.0, LABELS, seed=1))
    truth = np.column_stack([LABELS.max(axis=1), LABELS])
    columns = ["patient_overall", *[f"C{i}" for i in range(1, 8)]]
    shares = np.tile([PREVALENCE[name] for name in columns], (80, 1))
    assert f"theirs {competition_log_loss(truth, shares):.3f}" in decision.reasons[2]


def test_both_are_scored_on_the_studies_that_both_have() -> None:
    other = make_contender("version 2", 3.0, LABELS, seed=2)
    frame = other.predictions
    lacks = frame[~frame["study_uid"].isin([uid_of(i) for i in range(20)])]
    is_other = (lacks["study_uid"] == uid_of(20)) & (lacks["level"] == "C3")
    relabelled = lacks.assign(label=lacks["label"].mask(is_other, 1 - lacks["label"]))
    decision = decide(
        CHAMPION, make_contender("version 2", 3.0, LABELS, predictions=relabelled)
    )
    assert decision.studies == 59


def test_decision_can_be_written_and_read() -> None:
    labels = np.zeros((20, 7), dtype=int)
    one = make_contender("version 1", 1.0, labels)
    note = json.loads(
        json.dumps(
            decide(one, make_contender("v2", 1.0, labels)).to_note().to_json(),
            allow_nan=False,
        )
    )
    assert note["scores"]["v2"]["sensitivity_vertebra"] is None
    assert note["promoted"] is False


def test_order_of_rows_changes_nothing() -> None:
    other = make_contender("version 2", 2.2, LABELS, seed=2)
    mixed = other.predictions.sample(frac=1, random_state=1)
    again = make_contender("version 2", 2.2, LABELS, predictions=mixed)
    assert decide(CHAMPION, other).to_note() == decide(CHAMPION, again).to_note()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"least_subjects": 1}, "`least_subjects` must be at least 2"),
        ({"sensitivity_margin": -0.1}, "`sensitivity_margin` must not be negative"),
        ({"latency_factor": 0.5}, "`latency_factor` must be at least 1"),
    ],
)
def test_settings_that_cannot_be_meant_are_told(
    setting: dict[str, float], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        PromotionConfig(**setting)  # type: ignore[arg-type]
