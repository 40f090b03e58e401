"""What the report on the segmentation shows and says."""

import math

import numpy as np
import pytest
from matplotlib.axes import Axes
from support.segmentation_scores import card_of_model, level_row, scores_of, study_rows

from csfd_core.data_kind import DataKind
from csfd_core.learning.splits import Split
from csfd_core.reports.page import Page, Section, build_page
from csfd_core.reports.segmentation.measure import Scores
from csfd_core.reports.segmentation.report import Reported, build_report

ONE_MODEL = {0: card_of_model(0, [0.3, 0.6, 0.5], epochs=3)}


def report(scores: Scores, models: dict | None = None) -> Page:
    reported = Reported(
        scores=scores, models=models or ONE_MODEL, data_kind=DataKind.PHANTOM
    )
    return build_report(reported, [])


def section(page: Page, key: str) -> Section:
    (found,) = (part for part in page.sections if part.key == key)
    return found


def axes_of(part: Section) -> list[Axes]:
    assert part.figure is not None
    build_page(Page(title="", facts=(), sections=(part,)))  # sets the ticks
    return part.figure.axes


def shown_ticks(axes: Axes) -> list[float]:
    low, high = axes.get_xlim()
    return [tick for tick in axes.get_xticks() if low <= tick <= high]


def test_distances_are_drawn_per_level_in_mm_with_intervals() -> None:
    rows = []
    for study, extra in enumerate((0.0, 1.0, 2.0)):
        for number in range(1, 8):
            rows.append(
                level_row(
                    f"1.{study}",
                    f"C{number}",
                    surface_distance_mm=number / 10 + extra,
                    hd95_mm=number + 4 * extra,
                )
            )
    part = section(report(scores_of(rows)), "distances")
    average, hausdorff = axes_of(part)
    for axes, expected in (
        (average, [number / 10 + 1 for number in range(1, 8)]),
        (hausdorff, [number + 4 for number in range(1, 8)]),
    ):
        bars, (lines, _, _) = axes.patches, axes.containers[-1]
        assert lines is None  # intervals only, no second line of means
        assert [bar.get_height() for bar in bars] == pytest.approx(expected)
        assert axes.get_ylabel() == "mm"
        (stems,) = axes.containers[-1][2]
        for stem, value in zip(stems.get_segments(), expected, strict=True):
            assert stem[0][1] < value < stem[1][1]
    (table,) = part.tables
    assert table.frame["surface_distance_mm"].tolist() == pytest.approx(
        [number / 10 + 1 for number in range(1, 8)]
    )
    assert (table.frame["hd95_mm_low"] < table.frame["hd95_mm"]).all()
    assert (table.frame["hd95_mm_high"] > table.frame["hd95_mm"]).all()
    assert part.sentence.startswith("Surfaces lie 1.40 (")
    assert "distance is 8.00 (" in part.sentence
    assert "In one mask only" not in part.sentence


def test_levels_without_a_distance_are_counted_and_not_averaged() -> None:
    missed = {"dice": 0.0, "hd95_mm": math.nan, "surface_distance_mm": math.nan}
    rows = [*study_rows("1.1"), *study_rows("1.2")]
    rows[2] |= missed
    part = section(report(scores_of(rows)), "distances")
    frame = part.tables[0].frame.set_index("level")
    assert frame.loc["C3", ["studies", "in_one_mask_only"]].tolist() == [1, 1]
    assert frame.loc["C3", "hd95_mm"] == 4.0
    assert "without a distance: 1 of 14 vertebrae." in part.sentence


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_studies_are_counted_in_whole_numbers(count: int) -> None:
    rows = [row for n in range(count) for row in study_rows(f"1.{n}", dice=0.1 * n)]
    (axes,) = axes_of(section(report(scores_of(rows)), "studies"))
    ticks = shown_ticks(axes)
    assert ticks
    assert all(float(tick).is_integer() for tick in ticks)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_epochs_are_counted_in_whole_numbers(epochs: int) -> None:
    models = {0: card_of_model(0, [0.5] * epochs, epochs)}
    page = report(scores_of(study_rows("1.1")), models)
    for axes in axes_of(section(page, "curves")):
        assert all(float(tick).is_integer() for tick in shown_ticks(axes))


def test_summary_names_the_worst_level_and_gives_intervals_over_studies() -> None:
    rows = []
    for study, dice in enumerate((0.4, 0.5, 0.6, 0.9)):
        own = study_rows(f"1.{study}", dice=dice)
        own[4]["dice"] = dice - 0.2
        if study == 0:  # the swaps are all in one study
            for row in own[:4]:
                row["is_swapped"] = True
        rows += own
    scores = scores_of(rows)
    sentence = section(report(scores), "levels").sentence
    assert "The worst level, C5, reaches 0.400 (0.2" in sentence
    numbers = scores.summary()
    assert numbers["dice_worst_level"] == pytest.approx(0.4)
    low, high = numbers["dice_worst_level_low"], numbers["dice_worst_level_high"]
    assert 0.2 <= low < 0.4 < high <= 0.7
    rate = numbers["level_swap_rate"]
    assert rate == pytest.approx(4 / 28)
    assert "14.3 % (0.0 to 42.9 %) of the vertebrae" in sentence
    # Vertebra by vertebra, as if they were independent, it would be .25 at most.
    assert numbers["level_swap_rate_high"] > 0.4


def test_no_swap_among_few_studies_does_not_mean_that_there_are_none() -> None:
    few = scores_of([row for n in range(4) for row in study_rows(f"1.{n}")])
    many = scores_of([row for n in range(80) for row in study_rows(f"1.{n}")])
    high = few.summary()["level_swap_rate_high"]
    assert (1 - high) ** 4 == pytest.approx(0.025)
    assert many.summary()["level_swap_rate_high"] < 0.05
    sentence = section(report(few), "levels").sentence
    assert f"0.0 % (0.0 to {100 * high:.1f} %)" in sentence


def test_one_study_has_no_interval() -> None:
    page = report(scores_of(study_rows("1.1")))
    assert "0.800 (no interval from one study)" in section(page, "levels").sentence
    assert build_page(page).html


@pytest.mark.slow
def test_rows_are_sorted() -> None:
    order = ("1.3", "1.1", "1.4", "1.2")
    dice = {"1.3": 0.7, "1.1": 0.5, "1.4": 0.5, "1.2": 0.6}
    rows = [row for uid in order for row in study_rows(uid, dice=dice[uid])]
    frame = section(report(scores_of(rows)), "studies").tables[0].frame
    assert frame["study_uid"].tolist() == ["1.1", "1.4", "1.2", "1.3"]


def test_one_fold_says_that_it_is_one_fold() -> None:
    rows = [*study_rows("1.1"), *study_rows("1.2", group=Split.TEST)]
    page = report(scores_of(rows))
    assert ("folds trained", "1 of 5: 0") in page.facts
    sentence = section(page, "levels").sentence
    assert "One fold was trained, fold 0" in sentence
    assert "1 held-out and 1 locked test" in sentence
    axes = axes_of(section(page, "curves"))[1]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["C1", "C2", "C3", "C4", "C5", "C6", "C7", "mean, kept"]


def test_several_folds_are_one_report_with_a_curve_each() -> None:
    models = {
        0: card_of_model(0, [0.3, 0.6, 0.5], epochs=3),
        2: card_of_model(2, [0.4, 0.7], epochs=3),
    }
    rows = [
        *study_rows("1.1", dice=0.6),
        *study_rows("1.2", dice=0.8, fold=2),
        *study_rows("1.3", dice=0.7, group=Split.TEST),
    ]
    page = report(scores_of(rows), models)
    assert ("folds trained", "2 of 5: 0, 2") in page.facts
    levels = section(page, "levels")
    assert "Mean Dice 0.700" in levels.sentence
    assert "2 folds were trained: each of 2 held-out studies" in levels.sentence
    folds = levels.tables[1].frame
    assert folds[["fold", "group", "dice"]].to_numpy().tolist() == [
        [0, "validation", pytest.approx(0.6)],
        [2, "validation", pytest.approx(0.8)],
        [0, "test", pytest.approx(0.7)],
    ]
    assert folds["kept_epoch"].tolist() == [2, 2, 2]
    curves = section(page, "curves")
    assert "Fold 0: 3 epochs in 6 s; the weights of epoch 2" in curves.sentence
    assert "Fold 2: 2 of 3 epochs in 4 s, stopped early" in curves.sentence
    loss, dice = axes_of(curves)
    assert len(loss.lines) == 2
    drawn = {line.get_label(): line.get_ydata() for line in dice.lines}
    np.testing.assert_allclose(drawn["fold 0"], [0.3, 0.6, 0.5])
    np.testing.assert_allclose(drawn["fold 2"], [0.4, 0.7])
    kept = [
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for line in dice.lines
        if line.get_linestyle() == "None"
    ]
    assert kept == [(2, 0.6), (2, 0.7)]


def test_nothing_scored_makes_a_page_too() -> None:
    page = report(scores_of([]), {0: card_of_model(0, [], epochs=3)})
    assert "Nothing could be scored." in build_page(page).html
