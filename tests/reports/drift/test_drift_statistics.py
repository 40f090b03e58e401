"""Distances of two groups of studies, against closed forms, scipy and scikit-learn."""

import math
from collections.abc import Callable
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.preprocessing import KBinsDiscretizer

from csfd_core.reports.drift.statistics import (
    LEAST_STUDIES,
    PSI_MARGIN,
    Comparison,
    adjust,
    cohens_h,
    compare_histograms,
    compare_rates,
    compare_values,
    psi_of_counts,
    psi_of_shares,
    quantile_edges,
)

counts = st.lists(st.integers(0, 500), min_size=2, max_size=12)


def edges_of(values: np.ndarray, count: int) -> np.ndarray:
    levels, weights = np.unique(values, return_counts=True)
    return quantile_edges(levels, weights, count)


def test_index_of_two_bins_is_the_closed_form() -> None:
    expected = 0.3 * math.log(0.8 / 0.5) - 0.3 * math.log(0.2 / 0.5)
    assert psi_of_shares([0.5, 0.5], [0.8, 0.2]) == pytest.approx(expected)


def test_index_is_the_symmetric_divergence_of_scipy() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.dirichlet(np.ones(9)), rng.dirichlet(np.ones(9))
    expected = stats.entropy(before, after) + stats.entropy(after, before)
    assert psi_of_shares(before, after) == pytest.approx(expected)


def test_margin_is_a_normal_moved_by_half_its_deviation() -> None:
    """Of fine bins: the divergence of two normals is the square of their distance."""
    edges = np.linspace(-6, 6.5, 400)
    shares = [np.diff(stats.norm.cdf(edges, loc=mean)) for mean in (0, 0.5)]
    assert psi_of_shares(*shares) == pytest.approx(PSI_MARGIN, rel=1e-3)


@given(counts, st.randoms(use_true_random=False))
def test_index_is_symmetric_and_never_negative(
    counts: list[int], random: Random
) -> None:
    other = counts.copy()
    random.shuffle(other)
    found = psi_of_counts(counts, other)
    assert found >= 0
    assert found == pytest.approx(psi_of_counts(other, counts))
    assert psi_of_counts(counts, counts) == 0


def test_edges_are_the_quantiles_of_scikit_learn() -> None:
    values = np.random.default_rng(3).normal(size=1000)
    own = edges_of(values, 10)
    other = KBinsDiscretizer(
        10, strategy="quantile", quantile_method="inverted_cdf", encode="ordinal"
    ).fit(values[:, None])
    np.testing.assert_allclose(own, other.bin_edges_[0][1:-1])


def test_bins_of_the_reference_hold_equal_shares() -> None:
    values = np.random.default_rng(4).gamma(2.0, size=1000)
    places = np.searchsorted(edges_of(values, 10), values)
    assert np.bincount(places).tolist() == [100] * 10


def test_a_frequent_value_has_a_bin_of_its_own() -> None:
    edges = edges_of(np.array([0.5] * 30 + [0.7]), 10)
    bins = np.searchsorted(edges, [0.49999, 0.5, 0.50001])
    assert len(set(bins)) == 3


def test_a_constant_that_moves_down_is_seen() -> None:
    found = compare_values(np.full(40, 0.5), np.full(20, 0.4))
    assert found.psi > 1
    assert found.ks == 1
    assert found.p < 1e-6


def test_distance_and_p_are_those_of_scipy() -> None:
    rng = np.random.default_rng(1)
    before, after = rng.normal(size=60), rng.normal(0.8, 1, size=30)
    found = compare_values([*before, math.nan], [math.nan, *after])
    expected = stats.ks_2samp(before, after)
    assert found.ks == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.reference_n, found.current_n) == (60, 30)
    assert found.reference_mean == pytest.approx(before.mean())
    assert found.current_mean == pytest.approx(after.mean())


def test_large_groups_have_nearly_the_exact_p() -> None:
    rng = np.random.default_rng(2)
    before, after = rng.normal(size=400), rng.normal(0.15, 1, size=100)
    exact = stats.ks_2samp(before, after, method="exact").pvalue
    assert compare_values(before, after).p == pytest.approx(exact, rel=0.1)


def test_rates_have_the_p_of_the_hypergeometric_distribution() -> None:
    before, after = np.repeat([1, 0], [12, 28]), np.repeat([1, 0, math.nan], [14, 6, 3])
    found = compare_rates(before, after)
    table = stats.hypergeom(60, 26, 20)  # fractured studies among the 20 new ones
    likely = table.pmf(np.arange(21))
    expected = likely[likely <= table.pmf(14) * (1 + 1e-7)].sum()
    assert found.p == pytest.approx(expected)
    assert (found.reference_mean, found.current_mean) == (0.3, 0.7)
    assert (found.ks, found.current_n) == (pytest.approx(0.4), 20)


def test_effect_of_rates_is_that_of_cohens_table() -> None:
    """Cohen 1988, table 6.2.2: phi of .50 is 1.571, of .75 is 2.094."""
    assert cohens_h(0.5, 0.75) == pytest.approx(2.094 - 1.571, abs=1e-3)
    assert cohens_h(0.5, 0.6) == pytest.approx(0.2, abs=0.005)
    assert cohens_h(0.04, 0.09) == pytest.approx(0.2, abs=0.01)


def test_adjusted_p_are_those_of_the_step_up_procedure() -> None:
    p = np.array([0.01, 0.04, math.nan, 0.03, 0.005])
    # By hand: 4 p / rank of the sorted ones, then the least from the largest down.
    expected = [0.02, 0.04, math.nan, 0.04, 0.02]
    np.testing.assert_allclose(adjust(p), expected)
    assert np.isnan(adjust([math.nan, math.nan])).all()


@pytest.mark.parametrize("compare", [compare_values, compare_rates])
def test_too_few_studies_are_not_judged(compare: Callable[..., Comparison]) -> None:
    many, few = np.zeros(50), np.ones(LEAST_STUDIES - 1)
    for before, after in ((many, few), (few, many)):
        found = compare(before, after)
        assert math.isnan(found.p)
        assert math.isnan(found.psi)
        assert found.current_mean == after.mean()
    assert math.isfinite(compare(many, np.ones(LEAST_STUDIES)).p)


def histograms(count: int, mean: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    grey = np.arange(256)
    rows = [stats.norm.pdf(grey, mean + rng.normal(0, 4), 10) for _ in range(count)]
    return np.array([row / row.sum() for row in rows])


def test_a_shift_of_grey_levels_is_found_and_none_is_not() -> None:
    reference = histograms(40, 80, seed=0)
    moved = compare_histograms(reference, histograms(20, 120, seed=1))
    assert moved.psi > PSI_MARGIN
    assert moved.p <= 0.001
    assert moved.current_mean - moved.reference_mean == pytest.approx(40, abs=4)
    same = compare_histograms(reference, histograms(20, 80, seed=2))
    assert same.psi < PSI_MARGIN
    assert same.p > 0.05


def test_histograms_alike_within_studies_are_judged_by_studies() -> None:
    """Each study has a million pixels, but its own brightness: twelve numbers."""
    found = compare_histograms(histograms(12, 80, seed=3), histograms(12, 82, seed=4))
    assert found.p > 0.01


@pytest.mark.slow
def test_p_of_histograms_is_uniform_without_a_shift() -> None:
    found = [
        compare_histograms(
            histograms(15, 80, seed=2 * i), histograms(10, 80, seed=2 * i + 1)
        ).p
        for i in range(30)
    ]
    assert stats.kstest(found, "uniform").pvalue > 0.01
