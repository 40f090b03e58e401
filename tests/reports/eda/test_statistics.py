"""Numbers of the analysis against the real label table and independent oracles."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.material import require_material

from csfd_core.evaluation.intervals import wilson_interval
from csfd_core.reports.eda.inputs import studies_from_labels
from csfd_core.reports.eda.sentences import (
    say_correlation,
    say_fracture_share,
    say_fractures_per_level,
    say_geometry,
    say_levels_per_study,
)
from csfd_core.reports.eda.statistics import (
    bin_edges,
    chance_correlation,
    describe_geometry,
    fracture_share,
    fractures_per_level,
    geometry_bins,
    label_correlation,
    levels_per_study,
)
from csfd_core.store.labels import LabelTable, read_labels
from csfd_core.store.locations import Location
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES

# Facts of the real data set, as printed where it is described.
FRACTURED = [961, 146, 285, 73, 108, 162, 277, 393]
SHARES = ".47598 .07231 .14116 .03616 .05349 .08024 .13720 .19465"
UPPER_TRIANGLE = """
1.0000 .2929 .4254 .2032 .2494 .3099 .4184 .5158
1.0000 .1944 .0279 -.0154 .0302 -.0280 -.0358
1.0000 .1044 -.0015 -.0412 -.0583 -.0772
1.0000 .2959 .1577 .0616 -.0014
1.0000 .3430 .1035 .0110
1.0000 .3591 .0574
1.0000 .2766
1.0000
"""


@pytest.fixture(scope="module")
def real() -> pd.DataFrame:
    """The real studies, with their numbers of slices."""
    folder = require_material("rsna2022")
    studies = studies_from_labels(read_labels(Location(folder)))
    counts = pd.read_csv(folder / "slice_counts.csv", index_col="StudyInstanceUID")
    return studies.assign(slice_count=studies["study_uid"].map(counts["slices"]))


def make_studies(rows: list[list[int | None]]) -> pd.DataFrame:
    """A table of studies with the labels C1 to C7 given; the overall one follows."""
    labels = [
        [None if None in row else max(v for v in row if v is not None), *row]
        for row in rows
    ]
    table = pd.DataFrame(labels, columns=list(LABEL_COLUMNS), dtype="Int8")
    table.index = pd.Index([f"1.2.{rank}" for rank in range(len(rows))])
    return studies_from_labels(LabelTable(table, ()))


def test_real_fractions_are_those_of_the_data_set(real: pd.DataFrame) -> None:
    share = fracture_share(real)
    assert share["level"].tolist() == list(LABEL_COLUMNS)
    assert share["fractured"].tolist() == FRACTURED
    assert set(share["studies"]) == {2019}
    assert [f"{value:.5f}"[1:] for value in share["share"]] == SHARES.split()
    assert "961 of 2019 studies (47.6 %" in say_fracture_share(share)


def test_real_levels_per_study_are_those_of_the_data_set(real: pd.DataFrame) -> None:
    counts = levels_per_study(real)
    assert counts["studies"].tolist() == [1058, 623, 239, 64, 26, 7, 2, 0]
    assert "the most in one study is 6" in say_levels_per_study(counts)


def test_real_levels_come_from_lowest_to_highest(real: pd.DataFrame) -> None:
    counts = fractures_per_level(real)
    assert counts["level"].tolist() == ["C3", "C4", "C1", "C5", "C6", "C2", "C7"]
    assert counts["fractures"].tolist() == sorted(FRACTURED[1:])
    assert "from 73 (C3) to 393 (C7" in say_fractures_per_level(counts)


def test_real_correlations_agree_to_four_digits(real: pd.DataFrame) -> None:
    correlation = label_correlation(real).to_numpy()
    for row, line in enumerate(UPPER_TRIANGLE.split("\n")[1:-1]):
        for column, printed in enumerate(line.split(), start=row):
            value = correlation[row, column]
            assert f"{value:.4f}".replace("0.", ".") == printed.replace("0.", ".")
            assert value == correlation[column, row]


def test_real_slices_per_study_agree(real: pd.DataFrame) -> None:
    row = describe_geometry(real).iloc[0]
    assert (row["n"], row["median"], row["min"], row["max"]) == (2019, 314, 69, 1082)
    assert (row["q25"], row["q75"], round(row["p95"])) == (257, 429, 626)
    assert f"{row['mean']:.2f}" == "352.45"
    assert f"{row['sd']:.2f}" == "132.01"
    text = say_geometry(describe_geometry(real))
    assert "314 slices in the median and 352.45 in the mean (69 to 1082)" in text


@pytest.mark.parametrize("trials", [1, 2, 12, 2019])
def test_wilson_interval_agrees_with_scipy(trials: int) -> None:
    successes = np.unique(np.linspace(0, trials, 7).astype(int))
    low, high = wilson_interval(successes, np.full(len(successes), trials))
    for count, lower, upper in zip(successes, low, high, strict=True):
        test = stats.binomtest(int(count), trials)
        expected = test.proportion_ci(confidence_level=0.95, method="wilson")
        assert lower == pytest.approx(expected.low, abs=1e-12)
        assert upper == pytest.approx(expected.high, abs=1e-12)


def test_share_of_no_studies_is_not_a_number() -> None:
    low, high = wilson_interval([0], [0])
    assert math.isnan(low[0])
    assert math.isnan(high[0])
    share = fracture_share(make_studies([]))
    assert share["share"].isna().all()


def test_missing_labels_count_for_the_levels_they_have() -> None:
    studies = make_studies([[1, 0, 0, 0, 0, 0, 0], [None, 1, 0, 0, 0, 0, 0]])
    share = fracture_share(studies).set_index("level")
    assert share.loc["C1", ["studies", "fractured"]].tolist() == [1, 1]
    assert share.loc["C2", ["studies", "fractured"]].tolist() == [2, 1]
    assert levels_per_study(studies)["studies"].sum() == 1


def test_correlation_agrees_with_numpy_and_leaves_out_constants() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, (40, 7))
    values[:, 3] = 0
    correlation = label_correlation(make_studies(values.tolist()))
    assert correlation["C4"].isna().all()
    rest = [name for name in LEVEL_NAMES if name != "C4"]
    expected = np.corrcoef(np.delete(values, 3, axis=1), rowvar=False)
    found = correlation.loc[rest, rest].to_numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_every_pair_of_equal_strength_is_named() -> None:
    rows = [[1, 1, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]]
    text = say_correlation(label_correlation(make_studies(rows)), 3)
    assert "most: C1 with C2 and C3 with C4 (r = 1.00)" in text


@pytest.mark.parametrize("count", [5, 12, 2019])
def test_chance_correlation_is_the_five_percent_point(count: int) -> None:
    r = chance_correlation(count)
    # Pearson's r between unrelated normal samples, as scipy has it.
    distribution = stats.beta(count / 2 - 1, count / 2 - 1, loc=-1, scale=2)
    assert 2 * distribution.sf(r) == pytest.approx(0.05)


def test_chance_is_not_told_of_two_studies() -> None:
    assert math.isnan(chance_correlation(2))
    assert "chance" not in say_correlation(
        label_correlation(make_studies([[1] * 7, [0] * 7])), 2
    )


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0, 5.0], [0.0], [1.0, 2.0, 9.0]])
def test_bins_hold_every_value(values: list[float]) -> None:
    edges = bin_edges(np.array(values))
    counts, _ = np.histogram(values, bins=edges)
    assert counts.sum() == len(values)
    assert (np.diff(edges) > 0).all()


def test_bins_of_the_table_count_every_study(real: pd.DataFrame) -> None:
    bins = geometry_bins(real)
    assert set(bins["measure"]) == {"Slices per study"}
    assert bins["studies"].sum() == 2019


def test_sentences_tell_of_nothing_to_count() -> None:
    nothing = make_studies([])
    assert "nothing to count" in say_fracture_share(fracture_share(nothing))
    assert "nothing to count" in say_levels_per_study(levels_per_study(nothing))
    assert "No level" in say_fractures_per_level(fractures_per_level(nothing))
    assert "cannot" not in say_geometry(describe_geometry(nothing))
    assert "not known" in say_geometry(describe_geometry(nothing))
    assert "correlated" in say_correlation(label_correlation(nothing), 0)
