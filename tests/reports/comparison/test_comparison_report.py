"""The page of a comparison: what it says, and that it says no more than that."""

import io
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.cards import point_of
from support.comparison_results import MODELS, make_labels, make_result, make_results

from csfd_core.classification import score_tables as tables
from csfd_core.classification.classifier_store import FoldResult
from csfd_core.classification.ensemble_predictions import unseen_studies
from csfd_core.errors import StoreError
from csfd_core.learning.splits import Split
from csfd_core.reports.comparison.examples import Example
from csfd_core.reports.comparison.report import build_report, write_report
from csfd_core.reports.comparison.sections import LITERATURE
from csfd_core.reports.page import Page, Written, build_page
from csfd_core.store.locations import Location
from csfd_core.text import percent

PHANTOM = {"data_kind": "phantom"}
build = partial(build_report, repeats=50)  # no interval is looked at here
PROBE = """
import sys, csfd_core.reports.comparison.report
heavy = {"tensorflow", "keras", "matplotlib", "mlflow"} & set(sys.modules)
sys.exit(f"imported: {sorted(heavy)}" if heavy else 0)
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Written]:
    """The report on four models of one fold, to be read only."""
    folder = tmp_path_factory.mktemp("comparison")
    place = Location(folder)
    page = write_report(place, make_results(), PHANTOM, [make_example()], repeats=50)
    return folder, page


def make_example(**options: object) -> Example:
    fields = {
        "title": "C5 of 1.2.3", "kind": "miss", "model": "resnet50",
        "grey": np.full((20, 24), 90, dtype=np.uint8),
        "heat": np.linspace(0, 1, 480).reshape(20, 24), "caption": "Said 0.1.",
    }  # fmt: skip
    return Example(**{**fields, **options})


def sentences(page: Page) -> dict[str, str]:
    return {section.key: section.sentence for section in page.sections}


def say(results: dict[str, list[FoldResult]], kind: str = "phantom") -> dict[str, str]:
    cards = {
        model: [
            replace(f, card=f.card.model_copy(update={"data_kind": kind}))
            for f in folds
        ]
        for model, folds in results.items()
    }
    return sentences(build(cards, {"data_kind": kind}))


@pytest.mark.slow
def test_files_of_the_contract_lie_at_the_top(written: tuple[Path, Written]) -> None:
    folder, _ = written
    models = pd.read_csv(folder / "models.csv")
    said = pd.read_csv(folder / "predictions.csv")
    assert models["model"].tolist() == list(MODELS)
    contract = ["study_uid", "model", "level", "label", "probability"]
    assert list(said) == [*contract, "assessed"]
    assert len(said) == 4 * 40 * 8
    for name in ("folds", "differences", "references", "true_labels", "calibration"):
        assert (folder / "tables" / f"{name}.csv").stat().st_size
    figures = {path.stem for path in (folder / "figures").iterdir()}
    assert figures == {
        "models", "curves", "roc", "precision", "calibration", "levels", "confusion",
        "folds", "examples", "unseen",
    }  # fmt: skip


@pytest.mark.slow
def test_page_stands_alone(written: tuple[Path, Written]) -> None:
    html = written[1].html
    assert not re.search(r"(src|href)=\"(https?:)?//", html)
    assert "<script" not in html
    assert "@import" not in html
    assert html.count("<svg") == 9
    assert html.count("data:image/jpeg") == 1
    assert len(html) < 3_000_000


@pytest.mark.slow
def test_best_is_marked_by_a_word_not_by_colour_alone(
    written: tuple[Path, Written],
) -> None:
    shown = pd.read_csv(io.BytesIO(written[1].tables["tables/ranking.csv"]))
    assert shown["rank"].fillna("").tolist() == ["★\N{NO-BREAK SPACE}best", "", "", ""]
    assert shown["model"][0] == MODELS[3]
    assert "<details open>\n<summary>Models, ★ marks the best" in written[1].html


@pytest.mark.slow
def test_same_results_give_the_same_bytes(written: tuple[Path, Written]) -> None:
    one = written[1]
    other = build_page(build(make_results(), PHANTOM, [make_example()]))
    assert one.html == other.html
    assert one.figures == other.figures
    assert one.tables == other.tables


@pytest.mark.usefixtures("plain")
def test_names_are_escaped() -> None:
    name, labels = "<b>&", make_labels(6, seed=2)
    example = make_example(title="<i>", caption="<u>")
    results = {name: [make_result(name, 0, labels)]}
    facts = {**PHANTOM, "<em>": "<s>"}
    html = build_page(build(results, facts, [example])).html
    for tag in ("<b>", "<i>", "<u>", "<em>", "<s>"):
        assert tag not in html
    assert "&lt;b&gt;&amp;" in html


def test_report_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("plain")
def test_one_fold_has_no_spread_and_five_have() -> None:
    one = say(make_results(MODELS[:2], patients=12))["folds"]
    assert "one fold (fold 0)" in one
    assert "±" not in one
    five = say(make_results(MODELS[:2], folds=5, patients=12))["folds"]
    assert five.count("±") >= 4
    assert "(5 folds)" in five
    assert "one fold" not in five
    labels = make_labels(12, seed=7)
    mixed = {
        "a": [make_result("a", fold, labels) for fold in (0, 1)],
        "b": [make_result("b", 0, labels)],
    }
    text = say(mixed)["folds"]
    assert "without a spread: b." in text
    assert "(2 folds)" in text


@pytest.mark.usefixtures("plain")
def test_small_test_sets_are_called_uncertain_and_large_ones_are_not() -> None:
    assert "small test set" in say(make_results(MODELS[:1], patients=12))["models"]
    large = say(make_results(MODELS[:1], patients=120))["models"]
    assert "small test set" not in large


@pytest.mark.usefixtures("plain")
def test_single_class_is_said_and_draws_nothing_wrong() -> None:
    labels = np.zeros((8, 7), dtype=int)
    results = {name: [make_result(name, 0, labels)] for name in MODELS[:2]}
    page = build(results, PHANTOM)
    texts = sentences(page)
    assert "All vertebrae of the test set are labelled intact" in texts["models"]
    assert "All whole studies of the test set are labelled intact" in texts["models"]
    assert "is not defined" in texts["roc"]
    figures = {s.key for s in page.sections if s.figure is not None}
    assert "roc" not in figures
    assert "confusion" in figures
    assert build_page(page).html


@pytest.mark.usefixtures("plain")
def test_page_without_test_studies_says_so() -> None:
    fold = make_results(MODELS[:1])[MODELS[0]][0]
    rows = fold.predictions[fold.predictions["group"] != Split.TEST]
    page = build({MODELS[0]: [replace(fold, predictions=rows)]}, PHANTOM)
    assert "There is no test study" in sentences(page)["models"]
    assert "There is no test study to show" in sentences(page)["unseen"]
    assert build_page(page).html


def test_no_model_is_an_error() -> None:
    with pytest.raises(StoreError, match="no trained classifier to compare"):
        build({"resnet50": []}, PHANTOM)


@pytest.mark.usefixtures("plain")
def test_weights_are_explained() -> None:
    text = say(make_results(patients=8))["start"]
    assert "basic_cnn started from nothing" in text
    assert "resnet50 started from no weights" in text
    assert "random and frozen" in text
    assert "no test of transfer learning" in text
    assert "inception_v3 started from weights trained on ImageNet" in text
    assert "efficientnet_b5 started from weights in a file" in text


@pytest.mark.usefixtures("plain")
def test_models_worse_than_the_prevalences_are_named() -> None:
    labels = make_labels(40, seed=7)
    results = {
        "good": [make_result("good", 0, labels, skill=4.0)],
        "bad": [make_result("bad", 0, labels, skill=-4.0)],
    }
    text = say(results)["references"]
    assert "bad does not beat the prevalences; good does." in text
    assert "no better than saying" not in say(results)["models"]
    assert "no better than saying" in say({"bad": results["bad"]})["models"]


@pytest.mark.usefixtures("plain")
def test_literature_is_unmistakably_from_elsewhere() -> None:
    page = build(make_results(MODELS[:1], patients=6), PHANTOM)
    section = page.sections[-1]
    assert section.title == LITERATURE
    assert "measured elsewhere" in section.title
    assert section.sentence.startswith("None of these numbers was measured here")
    assert "this page is of phantoms" in section.sentence
    table = section.tables[0].frame
    assert set(table["measured_here"]) == {"no"}
    assert set(table["competition_log_loss"].dropna()) == {0.6931, 0.5638}


@pytest.mark.usefixtures("plain")
def test_phantoms_are_not_called_patients() -> None:
    for key, text in say(make_results(MODELS[:2], patients=9)).items():
        if key != "literature":
            assert "patient" not in text
            assert "clinical" not in text
    assert "9 patients" in say(make_results(MODELS[:1], patients=9), "real")["models"]


@pytest.mark.usefixtures("plain")
def test_banner_follows_reports_and_models() -> None:
    results = make_results(MODELS[:1], patients=6)
    phantom = build(results, PHANTOM)
    assert phantom.banner is not None
    assert phantom.banner.startswith("Synthetic phantom")
    mixed = build(results, {"data_kind": "real"})  # the models are of phantoms
    assert mixed.banner is not None
    assert mixed.banner.startswith("Part of these data")


@pytest.mark.usefixtures("plain")
def test_leaked_and_left_out_studies_are_told() -> None:
    results = make_results(MODELS[:2], patients=6)
    fold = results[MODELS[0]][0]
    card = fold.card.model_copy(update={"validation_studies": {"1.2.3": "hash"}})
    frame = fold.predictions[fold.predictions["study_uid"] != "1.2.5"]
    results[MODELS[0]] = [replace(fold, card=card, predictions=frame)]
    texts = say(results)
    assert "These scores are too good: 1 test study was used" in texts["models"]
    assert "1 test study is left out" in texts["models"]
    assert "no model was trained" not in texts["unseen"]


@pytest.mark.usefixtures("plain")
def test_default_thresholds_are_told() -> None:
    results = make_results(MODELS[:1], patients=6)
    fold = results[MODELS[0]][0]
    point = point_of(0.5, is_default=True)
    thresholds = {**fold.card.thresholds, "overall": point}
    card = fold.card.model_copy(update={"thresholds": thresholds})
    text = say({MODELS[0]: [replace(fold, card=card)]})["confusion"]
    assert "it is 0.5, for folds of basic_cnn (studies)." in text


@pytest.mark.usefixtures("plain")
def test_answers_are_told_of_the_best_model_or_not_at_all() -> None:
    results = make_results(MODELS[:2])
    text = say(results)["answers"]
    row = tables.answers_table(results).set_index(["model", "of"])
    best = row.loc[(MODELS[1], "vertebra")]
    assert f"fractured test vertebrae {MODELS[1]} leaves it open in" in text
    assert f"decides nothing of {percent(best['undecided'])}." in text
    old = {
        model: [replace(fold, card=fold.card.model_copy(update={"bounds": {}}))]
        for model, (fold,) in results.items()
    }
    assert "they come with the next training" in say(old)["answers"]


@pytest.mark.usefixtures("plain")
def test_levels_that_were_not_assessed_have_words_for_numbers() -> None:
    results = make_results(MODELS[:1])
    fold = results[MODELS[0]][0]
    shown = unseen_studies(f"1.2.{place}" for place in range(40))[:2]
    rows = fold.predictions
    is_hidden = rows["study_uid"].isin(shown) & rows["level"].isin(["C1", "C7"])
    hidden = rows.assign(logit=rows["logit"].mask(is_hidden))
    page = build({MODELS[0]: [replace(fold, predictions=hidden)]}, PHANTOM)
    section = next(s for s in page.sections if s.key == "unseen")
    frame = next(t.frame for t in section.tables if t.name == "predicted_probabilities")
    told = frame.set_index("study_uid")
    for uid in told.index:
        is_whole = uid not in shown
        assert told.at[uid, "rests_on"] == ("all levels" if is_whole else "C2 to C6")
        for level in ("C1", "C7"):
            assert (told.at[uid, level] == "not assessed") is not is_whole
    assert set(rows.loc[is_hidden, "probability"]).isdisjoint(
        pd.to_numeric(told["C1"], errors="coerce").dropna()
    )
    assert "4 vertebrae were not assessed and have no number" in section.sentence
    levels = sentences(page)["levels"]
    assert "4 of 280 vertebrae were not assessed" in levels
    assert "take the prevalence of the level for them" in levels


@pytest.mark.usefixtures("plain")
def test_models_without_epochs_are_told() -> None:
    results = make_results(MODELS[:1], patients=6)
    fold = results[MODELS[0]][0]
    card = fold.card.model_copy(update={"history": ()})
    page = build({MODELS[0]: [replace(fold, card=card)]}, PHANTOM)
    assert sentences(page)["curves"] == "No model recorded its epochs."
    assert build_page(page).html


def test_examples_of_any_size_are_drawn_on_black() -> None:
    examples = [
        make_example(),
        make_example(kind="false alarm", heat=np.full((5, 6), np.nan)),
        make_example(kind="hit", grey=np.zeros((0, 0), np.uint8)),
        make_example(kind="miss"),
    ]
    page = build(make_results(MODELS[:1], patients=6), PHANTOM, examples)
    section = next(s for s in page.sections if s.key == "examples")
    assert section.is_picture
    assert "2 misses, 1 false alarm and 1 hit." in section.sentence
    built = build_page(page)
    assert built.html.count("data:image/jpeg") == 1  # pictures; charts are SVG
    assert built.figures["figures/examples.png"].startswith(b"\x89PNG")
