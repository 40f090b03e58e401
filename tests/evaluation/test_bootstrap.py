"""The bootstrap draws patients whole, and its intervals and p-values are honest."""

import math
import time
from collections import Counter
from collections.abc import Callable
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csfd_core.evaluation.bootstrap import (
    Rows,
    draw_rows,
    paired_difference,
    patient_bootstrap,
)
from csfd_core.evaluation.metrics import rank_auc

Vector = npt.NDArray[np.float64]
names = st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=30)


def mean_of(values: Vector) -> Callable[[Rows], float]:
    return lambda rows: float(values[rows].mean())


def auc_of(labels: Vector, scores: Vector) -> Callable[[Rows], float]:
    return lambda rows: rank_auc(labels[rows], scores[rows])


def distinct(n: int) -> list[str]:
    return [f"patient {index:04}" for index in range(n)]


@settings(deadline=None, max_examples=60)
@given(names, st.integers(0, 100))
def test_rows_of_a_patient_are_drawn_together(patients: list[str], seed: int) -> None:
    everyone = set(patients)
    for rows in draw_rows(patients, repeats=5, seed=seed):
        times = Counter(rows.tolist())
        drawn = 0
        for patient in everyone:
            own = {times[i] for i, name in enumerate(patients) if name == patient}
            assert len(own) == 1  # each of its rows equally often
            drawn += own.pop()
        assert drawn == len(everyone)  # as many patients as there are


@settings(deadline=None, max_examples=30)
@given(names, st.randoms(use_true_random=False))
def test_draws_do_not_depend_on_the_order_of_the_rows(
    patients: list[str], random: Random
) -> None:
    moved = list(patients)
    random.shuffle(moved)
    first = draw_rows(patients, repeats=3, seed=1)
    second = draw_rows(moved, repeats=3, seed=1)
    for a, b in zip(first, second, strict=True):
        assert Counter(patients[i] for i in a) == Counter(moved[i] for i in b)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = np.random.default_rng(0).normal(size=40)
    first = patient_bootstrap(distinct(40), mean_of(values), repeats=50, seed=3)
    assert first == patient_bootstrap(distinct(40), mean_of(values), 50, seed=3)
    other = patient_bootstrap(distinct(40), mean_of(values), 50, seed=4)
    assert (first.low, first.high) != (other.low, other.high)


def test_interval_of_a_mean_agrees_with_its_normal_form() -> None:
    values = np.random.default_rng(0).normal(size=400)
    interval = patient_bootstrap(distinct(400), mean_of(values), repeats=4000)
    half = 1.96 * values.std() / math.sqrt(values.size)
    assert interval.estimate == values.mean()
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert (interval.draws, interval.undefined) == (4000, 0)


def test_copies_of_rows_do_not_narrow_an_interval() -> None:
    values = np.random.default_rng(0).normal(size=60)
    once = patient_bootstrap(distinct(60), mean_of(values), repeats=300)
    copies = np.repeat(values, 7)
    patients = np.repeat(distinct(60), 7)
    sevenfold = patient_bootstrap(patients, mean_of(copies), repeats=300)
    assert sevenfold.low == pytest.approx(once.low)
    assert sevenfold.high == pytest.approx(once.high)
    # The mistake this module is there to avoid: rows taken for patients.
    wrong = patient_bootstrap(distinct(420), mean_of(copies), repeats=300)
    assert wrong.high - wrong.low < 0.5 * (once.high - once.low)


def test_interval_usually_holds_the_truth() -> None:
    held = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        of_patient = rng.normal(size=40)
        values = np.repeat(of_patient, 4) + rng.normal(scale=0.5, size=160)
        patients = np.repeat(distinct(40), 4)
        interval = patient_bootstrap(patients, mean_of(values), 200, seed=seed + 1000)
        assert interval.low <= interval.estimate <= interval.high
        held += interval.low <= 0 <= interval.high
    assert 264 <= held <= 295  # 93 % of 300, give or take three standard errors


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.floats(0.1, 2.0))
def test_interval_holds_the_estimate_of_an_auc(seed: int, strength: float) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 90).astype(np.float64)
    scores = labels * strength + rng.normal(size=90)
    patients = np.repeat(distinct(30), 3)
    interval = patient_bootstrap(patients, auc_of(labels, scores), repeats=100)
    assert interval.low <= interval.estimate <= interval.high


def test_undefined_draws_are_left_out_and_counted() -> None:
    labels = np.array([1.0, 0.0, 0.0, 0.0])
    scores = np.array([0.9, 0.1, 0.2, 0.3])
    interval = patient_bootstrap(distinct(4), auc_of(labels, scores), repeats=2000)
    share = 0.75**4 + 0.25**4  # no positive drawn, or nothing else
    assert interval.undefined / 2000 == pytest.approx(share, abs=0.03)
    assert interval.draws + interval.undefined == 2000
    assert (interval.estimate, interval.low, interval.high) == (1, 1, 1)


def test_a_statistic_that_is_never_defined_has_no_interval() -> None:
    interval = patient_bootstrap(distinct(5), lambda _: math.nan, repeats=20)
    assert (interval.draws, interval.undefined) == (0, 20)
    assert all(math.isnan(x) for x in (interval.estimate, interval.low, interval.high))
    difference = paired_difference(
        distinct(5), lambda _: math.nan, lambda _: 1.0, repeats=20
    )
    assert math.isnan(difference.p_value)
    assert difference.undefined == 20


def test_one_patient_has_an_estimate_but_no_interval() -> None:
    interval = patient_bootstrap(["a"] * 7, mean_of(np.arange(7.0)))
    assert (interval.estimate, interval.draws) == (3, 0)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


# Paired differences


def test_a_model_does_not_differ_from_itself() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 100).astype(np.float64)
    auc = auc_of(labels, rng.normal(size=100))
    difference = paired_difference(distinct(100), auc, auc, repeats=200)
    assert (difference.estimate, difference.low, difference.high) == (0, 0, 0)
    assert difference.p_value == 1


def test_swapping_the_models_swaps_the_sign_and_keeps_the_p_value() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 120).astype(np.float64)
    first = auc_of(labels, labels + rng.normal(size=120))
    second = auc_of(labels, 0.5 * labels + rng.normal(size=120))
    there = paired_difference(distinct(120), first, second, repeats=200)
    back = paired_difference(distinct(120), second, first, repeats=200)
    assert back.estimate == -there.estimate
    assert back.low == pytest.approx(-there.high)
    assert back.p_value == there.p_value


def test_pairing_finds_a_small_difference_that_separate_intervals_hide() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=80)
    second = first - 0.1 + rng.normal(scale=0.1, size=80)
    a = patient_bootstrap(distinct(80), mean_of(first), repeats=500)
    b = patient_bootstrap(distinct(80), mean_of(second), repeats=500)
    assert a.low < b.high  # they overlap
    paired = paired_difference(
        distinct(80), mean_of(first), mean_of(second), repeats=500
    )
    assert paired.low > 0
    assert paired.p_value == pytest.approx(2 / 501)  # never 0: the smallest there is


def test_without_a_difference_small_p_values_are_rare() -> None:
    small = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        first, second = rng.normal(size=(2, 40))
        difference = paired_difference(
            distinct(40), mean_of(first), mean_of(second), repeats=200, seed=seed
        )
        small += difference.p_value <= 0.05
    assert 1 <= small <= 18  # 7.5 expected


def test_p_value_is_small_exactly_where_the_interval_leaves_zero_out() -> None:
    for seed in range(40):
        values = np.random.default_rng(seed).normal(0.25, 1, size=50)
        difference = paired_difference(
            distinct(50), mean_of(values), lambda _: 0.0, repeats=400, seed=seed
        )
        if difference.p_value < 0.04:
            assert not difference.low <= 0 <= difference.high
        if difference.p_value > 0.06:
            assert difference.low <= 0 <= difference.high


# Refused input, speed


def test_unusable_patients_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one for each row.*Received shape: \(0,\)"):
        draw_rows([])
    with pytest.raises(ValueError, match=r"Received shape: \(1, 2\)"):
        patient_bootstrap([["a", "b"]], lambda _: 0.0)
    missing = np.array(["a", None, "b"], dtype=object)
    with pytest.raises(ValueError, match="Received 1 missing of 3, first at row 1"):
        patient_bootstrap(missing, lambda _: 0.0)
    with pytest.raises(ValueError, match="Received: repeats=0"):
        draw_rows(["a", "b"], repeats=0)


def test_a_thousand_draws_of_an_auc_of_2100_rows_take_seconds() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(2100) < 0.1).astype(np.float64)
    scores = labels + rng.normal(size=2100)
    start = time.process_time()
    interval = patient_bootstrap(np.repeat(distinct(300), 7), auc_of(labels, scores))
    assert time.process_time() - start < 10  # about 0.5 s on an idle core
    assert interval.draws == 1000
    assert 0.02 < interval.high - interval.low < 0.2
