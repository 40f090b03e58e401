"""Labels against the published numbers of the RSNA 2022 training table."""

import itertools

import numpy as np
import pytest

from csfd_core.phantom.labels import (
    draw_labels,
    pattern_probabilities,
    patterns,
    require_labels,
)
from csfd_core.phantom.streams import open_stream
from csfd_core.vocabulary import LEVEL_NAMES

FRACTIONS = (0.07231, 0.14116, 0.03616, 0.05349, 0.08024, 0.13720, 0.19465)
LEVELS_PER_STUDY = (1058, 623, 239, 64, 26, 7, 2)
# Upper triangle C1..C7 of the study-level correlations, copied from the data facts.
CORRELATIONS = """
1 .1944 .0279 -.0154 .0302 -.0280 -.0358
0 1 .1044 -.0015 -.0412 -.0583 -.0772
0 0 1 .2959 .1577 .0616 -.0014
0 0 0 1 .3430 .1035 .0110
0 0 0 0 1 .3591 .0574
0 0 0 0 0 1 .2766
0 0 0 0 0 0 1
"""
DRAWS = 8_000


@pytest.fixture(scope="module")
def drawn():
    rows = [draw_labels(open_stream(5, i, "labels")) for i in range(DRAWS)]
    return np.array([[row[name] for name in LEVEL_NAMES] for row in rows])


def expected_correlations():
    upper = np.array(
        [line.split() for line in CORRELATIONS.strip().splitlines()], float
    )
    return np.triu(upper, 1)


def test_the_rate_of_each_level_is_that_of_the_real_table(drawn):
    np.testing.assert_allclose(drawn.mean(axis=0), FRACTIONS, atol=0.014)


def test_the_share_of_fractured_studies_is_that_of_the_real_table(drawn):
    assert drawn.any(axis=1).mean() == pytest.approx(0.47598, abs=0.018)


def test_the_number_of_fractured_levels_is_distributed_as_in_the_real_table(drawn):
    shares = np.bincount(drawn.sum(axis=1), minlength=7)[:7] / DRAWS
    np.testing.assert_allclose(shares, np.array(LEVELS_PER_STUDY) / 2019, atol=0.016)


def test_levels_occur_together_as_in_the_real_table(drawn):
    found = np.triu(np.corrcoef(drawn.T), 1)
    np.testing.assert_allclose(found, expected_correlations(), atol=0.05)


def test_the_model_has_the_published_correlations_almost_exactly():
    table, p = patterns().astype(float), pattern_probabilities()
    mean = p @ table
    expected = expected_correlations()
    for i, j in itertools.combinations(range(7), 2):
        covariance = p @ (table[:, i] * table[:, j]) - mean[i] * mean[j]
        sd = np.sqrt(mean[i] * (1 - mean[i]) * mean[j] * (1 - mean[j]))
        assert covariance / sd == pytest.approx(expected[i, j], abs=0.004)
    np.testing.assert_allclose(mean, FRACTIONS, atol=5e-4)
    assert p.sum() == pytest.approx(1)


def test_labels_of_unknown_levels_are_refused():
    with pytest.raises(ValueError, match=r"C1..C7 only.*'T1'"):
        require_labels({"T1": 1})


def test_labels_other_than_0_and_1_are_refused():
    with pytest.raises(ValueError, match=r"must be 0 or 1.*'C2': 2"):
        require_labels({"C2": 2})
