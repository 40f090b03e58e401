"""Tables of a comparison against scikit-learn and counts by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as sk
from support.comparison_results import (
    MODELS,
    PREVALENCE,
    make_labels,
    make_result,
    make_results,
)

from csfd_core.classification import ensemble_predictions as predictions
from csfd_core.classification import score_tables as tables
from csfd_core.classification.classifier_store import (
    ClassifierStore,
    FoldResult,
)
from csfd_core.data_kind import DataKind
from csfd_core.learning.splits import Split
from csfd_core.reports.comparison.differences import differences_table, holm
from csfd_core.reports.comparison.summary import compare
from csfd_core.store.locations import Location
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES, OVERALL

FEW = 40  # draws of a bootstrap: enough where no interval is looked at


def relabel(results: dict[str, list[FoldResult]], value: int) -> dict:
    """Give every row the same label."""
    return {
        model: [
            replace(
                fold,
                predictions=fold.predictions.assign(
                    label=pd.array([value] * len(fold.predictions), dtype="Int8")
                ),
            )
            for fold in folds
        ]
        for model, folds in results.items()
    }


def test_columns_of_the_contract_come_in_its_order() -> None:
    table = tables.models_table(make_results(MODELS[:2], patients=10), FEW)
    assert list(table)[:9] == [
        "model", "folds", "weights", "competition_log_loss", "auc_vertebra",
        "auc_overall", "f1", "sensitivity", "specificity",
    ]  # fmt: skip
    places = [list(table).index(name) for name in (
        "parameters", "disk_mb", "train_s", "ms_per_study",
    )]  # fmt: skip
    assert places == list(range(places[0], places[0] + 4))
    assert table["model"].tolist() == list(MODELS[:2])


def test_scores_agree_with_scikit_learn() -> None:
    results = make_results(MODELS, folds=3)
    table = tables.models_table(results, FEW).set_index("model")
    frame = predictions.predictions_on_test_set(results)
    for model, folds in results.items():
        mine, row = frame[frame["model"] == model], table.loc[model]
        for what, tail in (("vertebra", ""), ("overall", "_overall")):
            rows = mine[(mine["level"] == OVERALL) == (what == "overall")]
            labels, said = rows["label"].astype(int), rows["probability"]
            threshold = np.mean([fold.thresholds[what] for fold in folds])
            decided = (said >= threshold).astype(int)
            expected = {
                f"auc_{what}": sk.roc_auc_score(labels, said),
                f"f1{tail}": sk.f1_score(labels, decided),
                f"sensitivity{tail}": sk.recall_score(labels, decided),
                f"specificity{tail}": sk.recall_score(labels, decided, pos_label=0),
            }
            if what == "vertebra":
                expected["pr_auc"] = sk.average_precision_score(labels, said)
                expected["brier"] = sk.brier_score_loss(labels, said)
                expected["accuracy"] = sk.accuracy_score(labels, decided)
            for name, value in expected.items():
                assert row[name] == pytest.approx(value, abs=1e-12), name
        assert row["test_fractures"] == int(
            mine.loc[mine["level"] != OVERALL, "label"].sum()
        )


def test_competition_loss_agrees_with_weighted_log_losses_of_scikit_learn() -> None:
    results = make_results(MODELS[:1], folds=2, patients=12)
    frame = predictions.predictions_on_test_set(results)
    losses = []
    for _, study in frame.groupby("study_uid"):
        ordered = study.set_index("level").loc[list(LABEL_COLUMNS)]
        labels = ordered["label"].astype(int)
        weights = np.array([7.0] + [1.0] * 7) * (1 + labels)
        losses.append(
            sk.log_loss(
                labels, ordered["probability"], sample_weight=weights, labels=[0, 1]
            )
        )
    table = tables.models_table(results, FEW)
    assert table["competition_log_loss"][0] == pytest.approx(np.mean(losses))


def test_intervals_hold_the_estimates_and_shrink_with_patients() -> None:
    widths = []
    for patients in (20, 160):
        row = tables.models_table(make_results(MODELS[1:2], patients=patients)).iloc[0]
        for name in ("competition_log_loss", "auc_vertebra", "auc_overall"):
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
        widths.append(row["auc_vertebra_high"] - row["auc_vertebra_low"])
    assert widths[1] < widths[0]


def test_flipped_labels_turn_every_metric_around() -> None:
    results = make_results(MODELS[3:], patients=30)
    fold = results[MODELS[3]][0]
    frame = fold.predictions.copy()
    is_test = frame["group"] == Split.TEST
    frame.loc[is_test, "label"] = 1 - frame.loc[is_test, "label"]
    flipped = {MODELS[3]: [replace(fold, predictions=frame)]}
    before = tables.models_table(results, FEW).iloc[0]
    after = tables.models_table(flipped, FEW).iloc[0]
    assert after["auc_vertebra"] == pytest.approx(1 - before["auc_vertebra"])
    assert after["sensitivity"] == pytest.approx(1 - before["specificity"])
    assert after["competition_log_loss"] > before["competition_log_loss"]
    assert after["brier"] > before["brier"]
    facts = {"data_kind": DataKind.PHANTOM}
    assert compare(results, facts, FEW).beats_prevalences
    assert not compare(flipped, facts, FEW).beats_prevalences


def test_best_has_the_lowest_loss_then_the_largest_auc_then_the_first_name() -> None:
    columns = ["model", "competition_log_loss", "auc_vertebra"]

    def best(*rows: tuple[str, float, float]) -> str | None:
        return tables.best_model(pd.DataFrame(rows, columns=columns))

    assert best(("a", 0.5, 0.99), ("b", 0.4, 0.6)) == "b"
    assert best(("a", 0.4, 0.6), ("b", 0.4, 0.7)) == "b"
    assert best(("b", 0.4, 0.7), ("a", 0.4, 0.7)) == "a"
    assert best(("a", float("nan"), 0.9), ("b", 0.9, float("nan"))) == "b"
    assert best(("a", float("nan"), 0.9)) is None
    table = tables.models_table(make_results(), FEW)
    assert tables.best_model(table) == MODELS[3]


@pytest.mark.parametrize("value", [0, 1])
def test_one_class_only_leaves_areas_undefined(value: int) -> None:
    results = relabel(make_results(MODELS[:2], patients=5), value)
    row = tables.models_table(results, FEW).iloc[0]
    assert np.isnan(row[["auc_vertebra", "auc_overall", "pr_auc"]].astype(float)).all()
    assert np.isnan(row["auc_vertebra_low"])
    assert np.isnan(row["sensitivity" if value == 0 else "specificity"])
    assert np.isfinite(row["competition_log_loss"])
    assert tables.best_model(tables.models_table(results, FEW)) is not None


def test_no_test_study_leaves_everything_undefined() -> None:
    fold = make_results(MODELS[:1])[MODELS[0]][0]
    rows = fold.predictions[fold.predictions["group"] != Split.TEST]
    results = {MODELS[0]: [replace(fold, predictions=rows)]}
    table = tables.models_table(results, FEW)
    assert table["test_studies"][0] == 0
    assert np.isnan(table["competition_log_loss"][0])
    assert tables.best_model(table) is None
    assert differences_table(results, FEW).empty
    assert tables.folds_table(results)["validation_studies"][0] == 30


def test_results_from_a_store_score_as_those_in_memory(tmp_path: Path) -> None:
    results = make_results(MODELS[:1], folds=2, patients=9)
    store = ClassifierStore(Location(tmp_path))
    for fold in results[MODELS[0]]:
        rows = fold.predictions.astype(object)
        rows = rows.where(rows.notna(), None).to_dict("records")
        store.write(fold.card, [np.zeros(3)], rows)
    read = store.results(MODELS)
    assert list(read) == [MODELS[0]]
    sizes = ["disk_mb"]
    pd.testing.assert_frame_equal(
        tables.models_table(read, FEW).drop(columns=sizes),
        tables.models_table(results, FEW).drop(columns=sizes),
    )


def test_costs_are_of_one_network() -> None:
    row = tables.models_table(make_results(MODELS[:1], folds=3), FEW).iloc[0]
    assert (row["folds"], row["weights"]) == (3, "none")
    assert row["parameters"] == 1_500_000
    assert row["disk_mb"] == pytest.approx(3.0)
    assert row["train_s"] == pytest.approx(61.0)  # of 60, 61 and 62


def test_references_come_from_the_prevalences_of_the_cards() -> None:
    results = make_results(MODELS[:2], patients=15)
    table = tables.reference_table(results).set_index("reference")
    frame = predictions.predictions_on_test_set(results)
    studies = predictions.studies_of(frame, MODELS[0])
    losses = []
    for labels in studies.labels:
        said = [PREVALENCE[name] for name in LABEL_COLUMNS]
        weights = np.array([7.0] + [1.0] * 7) * (1 + labels)
        losses.append(sk.log_loss(labels, said, sample_weight=weights, labels=[0, 1]))
    loss = table["competition_log_loss"]
    assert loss[tables.PREVALENCE] == pytest.approx(np.mean(losses))
    assert loss[tables.EVEN] == pytest.approx(np.log(2))
    fold = results[MODELS[0]][0]
    levels = {name: PREVALENCE[name] for name in LEVEL_NAMES}
    card = fold.card.model_copy(update={"prevalence": levels})
    derived = tables.reference_table({MODELS[0]: [replace(fold, card=card)]})
    assert derived[OVERALL][0] == pytest.approx(1 - (1 - 0.12) ** 7)


def test_levels_are_scored_one_by_one() -> None:
    results = make_results(MODELS[2:3])
    table = tables.levels_table(results).set_index("level")
    frame = predictions.predictions_on_test_set(results)
    assert table.index.tolist() == list(LEVEL_NAMES)
    for level, row in table.iterrows():
        mine = frame[frame["level"] == level]
        labels = mine["label"].astype(int)
        assert (row["n"], row["positives"]) == (40, labels.sum())
        assert row["auc"] == pytest.approx(
            sk.roc_auc_score(labels, mine["probability"])
        )


def test_confusion_agrees_with_scikit_learn() -> None:
    results = make_results(MODELS, folds=2)
    frame = predictions.predictions_on_test_set(results)
    for _, row in tables.confusion_table(results).iterrows():
        rows = predictions.rows_of(frame, row["model"], row["of"])
        decided = rows.probabilities >= row["threshold"]
        (tn, fp), (fn, tp) = sk.confusion_matrix(rows.labels, decided)
        counts = row[["true_negatives", "false_positives", "false_negatives",
                      "true_positives"]]  # fmt: skip
        assert counts.tolist() == [tn, fp, fn, tp]


def test_answers_are_counted_one_by_one() -> None:
    """By hand, from the bounds of the cards and the mean probability of the folds."""
    results = make_results(MODELS[:2], folds=2)
    frame = predictions.predictions_on_test_set(results)
    table = tables.answers_table(results)
    assert table[["model", "of"]].values.tolist() == [
        [model, what] for model in MODELS[:2] for what in ("vertebra", "overall")
    ]
    for _, row in table.iterrows():
        bounds = [fold.card.bounds[row["of"]] for fold in results[row["model"]]]
        low = sum(own.fractured_from for own in bounds) / 2
        high = sum(own.whole_up_to for own in bounds) / 2
        mine = frame[
            (frame["model"] == row["model"])
            & ((frame["level"] == OVERALL) == (row["of"] == "overall"))
        ]
        fractured, whole = (mine[mine["label"] == label] for label in (1, 0))
        assert (row["fractured"], row["whole"]) == (len(fractured), len(whole))
        open_to = {
            "fractured": (fractured["probability"] >= low)
            | (fractured["probability"] > high),
            "whole": (whole["probability"] <= high) | (whole["probability"] < low),
        }
        for kind, is_open in open_to.items():
            assert row[f"{kind}_right"] == pytest.approx(is_open.mean())
        may_break = mine["probability"] >= low
        may_be_whole = mine["probability"] <= high
        assert row["undecided"] == pytest.approx((may_break == may_be_whole).mean())


def test_a_model_from_before_there_were_answers_has_none() -> None:
    results = make_results(MODELS[:2])
    (fold,) = results[MODELS[0]]
    old = replace(fold, card=fold.card.model_copy(update={"bounds": {}}))
    table = tables.answers_table({**results, MODELS[0]: [old]})
    assert set(table["model"]) == {MODELS[1]}
    assert tables.answers_table({MODELS[0]: [old]}).empty


def test_folds_have_a_spread_only_where_there_are_several() -> None:
    labels = make_labels(20, seed=1)
    results = {
        "a": [make_result("a", fold, labels) for fold in range(5)],
        "b": [make_result("b", 2, labels)],
    }
    folds = tables.folds_table(results)
    assert list(zip(folds["model"], folds["fold"], strict=True)) == [
        ("a", 0), ("a", 1), ("a", 2), ("a", 3), ("a", 4), ("b", 2),
    ]  # fmt: skip
    summary = tables.folds_summary(folds).set_index("model")
    losses = folds[folds["model"] == "a"]["test_log_loss"]
    assert summary.loc["a", "test_log_loss_mean"] == pytest.approx(losses.mean())
    assert summary.loc["a", "test_log_loss_sd"] == pytest.approx(np.std(losses, ddof=1))
    assert np.isnan(summary.loc["b", "test_log_loss_sd"])
    assert summary.loc["b", "test_auc_vertebra_mean"] == pytest.approx(
        folds["test_auc_vertebra"].iloc[5]
    )


def test_differences_are_against_the_best_of_each_metric() -> None:
    results = make_results()
    models = tables.models_table(results, FEW).set_index("model")
    table = differences_table(results)
    assert len(table) == 6
    for _, row in table.iterrows():
        values = models[row["metric"]]
        expected = values[row["model"]] - values[row["best"]]
        assert row["difference"] == pytest.approx(expected)
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["p"] <= row["p_holm"] <= 1
    worst = table[table["model"] == MODELS[0]]
    assert (worst["p_holm"] < 0.05).all()


def test_equal_models_do_not_differ() -> None:
    fold = make_results(MODELS[:1], patients=10)[MODELS[0]][0]
    table = differences_table({"a": [fold], "b": [replace(fold, model="b")]}, FEW)
    assert table["best"].tolist() == ["a", "a"]
    assert (table["difference"] == 0).all()
    assert (table["p"] == 1).all()


def test_holm_corrects_step_by_step() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    corrected = holm([0.01, float("nan")])
    assert corrected[0] == pytest.approx(0.02)
    assert np.isnan(corrected[1])
    assert holm([]) == []
