"""The ensemble of folds, and which studies models are compared on."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
from support.comparison_results import MODELS, make_results

from csfd_core.classification import ensemble_predictions as predictions
from csfd_core.classification.classifier_store import FoldResult
from csfd_core.learning.splits import Split
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES, OVERALL


def change(fold: FoldResult, uid: str, **values: object) -> FoldResult:
    """Change columns of the rows of one study."""
    frame = fold.predictions.copy()
    for name, value in values.items():
        frame.loc[frame["study_uid"] == uid, name] = value
    return replace(fold, predictions=frame)


def test_ensemble_is_the_mean_of_the_folds_on_test_studies_only() -> None:
    results = make_results(MODELS[:2], folds=3, patients=5)
    frame = predictions.predictions_on_test_set(results)
    assert len(frame) == 2 * 5 * 8
    for (model, uid, level), part in frame.groupby(["model", "study_uid", "level"]):
        said = []
        for fold in results[model]:
            rows = fold.predictions
            chosen = (rows["study_uid"] == uid) & (rows["level"] == level)
            assert (rows.loc[chosen, "group"] == Split.TEST).all()
            said.append(float(rows.loc[chosen, "probability"].iloc[0]))
        np.testing.assert_allclose(part["probability"], np.mean(said), rtol=1e-12)


def test_order_of_rows_does_not_matter() -> None:
    results = make_results(MODELS[:1], folds=2, patients=5)
    shuffled = {
        model: [
            replace(fold, predictions=fold.predictions.sample(frac=1, random_state=3))
            for fold in folds
        ]
        for model, folds in results.items()
    }
    pd.testing.assert_frame_equal(
        predictions.predictions_on_test_set(results),
        predictions.predictions_on_test_set(shuffled),
    )


def test_studies_that_models_know_differently_are_left_out() -> None:
    results = make_results(MODELS[:2], patients=6)
    first, second = results[MODELS[0]], results[MODELS[1]]
    frame = second[0].predictions
    lacking = replace(second[0], predictions=frame[frame["study_uid"] != "1.2.0"])
    relabelled = change(first[0], "1.2.1", label=1)
    changed = {MODELS[0]: [relabelled], MODELS[1]: [lacking]}
    assert predictions.left_out_studies(results) == []
    assert predictions.left_out_studies(changed) == ["1.2.0", "1.2.1"]
    kept = set(predictions.predictions_on_test_set(changed)["study_uid"])
    assert kept == {"1.2.2", "1.2.3", "1.2.4", "1.2.5"}


def test_unlabelled_studies_are_predicted_but_not_scored() -> None:
    results = make_results(MODELS[:1], patients=4)
    results = {MODELS[0]: [change(results[MODELS[0]][0], "1.2.2", label=pd.NA)]}
    table = predictions.predictions_table(results)
    unlabelled = table[table["study_uid"] == "1.2.2"]
    assert unlabelled["label"].isna().all()
    assert unlabelled["probability"].notna().all()
    rows = predictions.rows_of(
        predictions.predictions_on_test_set(results), MODELS[0], "vertebra"
    )
    assert rows.labels.size == 3 * 7
    assert "p2" not in rows.patients


def test_levels_that_no_fold_saw_are_marked_and_have_no_number_for_readers() -> None:
    results = make_results(MODELS[:1], patients=3)
    fold = results[MODELS[0]][0]
    frame = fold.predictions.copy()
    frame.loc[(frame["study_uid"] == "1.2.1") & (frame["level"] == "C7"), "logit"] = (
        np.nan
    )
    hidden = {MODELS[0]: [replace(fold, predictions=frame)]}
    seen = predictions.predictions_on_test_set(hidden)
    levels = seen[~seen["is_assessed"].astype(bool)]
    assert levels[["study_uid", "level"]].to_numpy().tolist() == [["1.2.1", "C7"]]
    table = predictions.predictions_table(hidden)
    kept = table[table["assessed"] == 0]
    assert kept[["study_uid", "level"]].to_numpy().tolist() == [["1.2.1", "C7"]]
    assert kept["probability"].notna().all()  # the metric needs it
    told = predictions.predicted_table(seen, ["1.2.0", "1.2.1"]).set_index("study_uid")
    assert math.isnan(told.at["1.2.1", "C7"])
    assert told.drop(columns=["C7", "model"]).notna().all(axis=None)
    assert told.at["1.2.0", "C7"] > 0


def test_a_study_of_which_no_fold_saw_a_level_is_not_assessed() -> None:
    results = make_results(MODELS[:1], patients=3)
    hidden = {MODELS[0]: [change(results[MODELS[0]][0], "1.2.1", logit=np.nan)]}
    found = predictions.predictions_on_test_set(hidden)
    without = found[~found["is_assessed"].astype(bool)]
    assert without["study_uid"].tolist() == ["1.2.1"] * 8


def test_predictions_table_has_the_columns_of_the_contract() -> None:
    table = predictions.predictions_table(make_results(MODELS, folds=2, patients=3))
    assert list(table)[:5] == ["study_uid", "model", "level", "label", "probability"]
    assert list(table)[5:] == ["assessed"]
    assert len(table) == 4 * 3 * 8
    assert set(table["level"]) == set(LABEL_COLUMNS)
    assert not table.duplicated(["study_uid", "model", "level"]).any()


def test_shown_studies_depend_on_their_uids_only() -> None:
    uids = [f"1.2.{i}" for i in range(60)]
    chosen = predictions.unseen_studies(uids)
    assert len(set(chosen)) == 5
    assert chosen == predictions.unseen_studies(reversed(uids + uids))
    assert chosen != uids[:5]
    assert predictions.unseen_studies(uids[:2], count=5) != []
    later = predictions.unseen_studies([*uids, "1.2.999"], count=61)
    assert [uid for uid in later if uid != "1.2.999"][:5] == chosen


def test_shown_tables_agree_with_the_predictions() -> None:
    frame = predictions.predictions_on_test_set(make_results(MODELS[:2], patients=8))
    chosen = predictions.unseen_studies(frame["study_uid"])
    true = predictions.true_table(frame, chosen)
    said = predictions.predicted_table(frame, chosen)
    assert true["study_uid"].tolist() == chosen
    assert list(said)[:2] == ["model", "study_uid"]
    assert len(said) == 2 * 5
    for _, row in said.iterrows():
        mine = frame[
            (frame["model"] == row["model"]) & (frame["study_uid"] == row["study_uid"])
        ].set_index("level")
        labels = true[true["study_uid"] == row["study_uid"]].iloc[0]
        for name in (OVERALL, *LEVEL_NAMES):
            assert row[name] == mine.loc[name, "probability"]
            assert labels[name] == mine.loc[name, "label"]


def test_test_studies_in_training_are_found() -> None:
    results = make_results(MODELS[:1], patients=4)
    fold = results[MODELS[0]][0]
    assert predictions.leaked_studies(results) == []
    used = {"1.2.3": "hash", "1.9": "hash"}
    card = fold.card.model_copy(update={"training_studies": used})
    leaky = {MODELS[0]: [replace(fold, card=card)]}
    assert predictions.leaked_studies(leaky) == ["1.2.3"]
