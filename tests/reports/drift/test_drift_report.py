"""Drift of a store whose classifier was trained before some of its studies came."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control
from support.drawn_crops import CROPS, manifest_of, some_labels, uid_of
from support.drift_store import (
    NAME,
    OLD,
    add_new,
    new_uids,
    old_uids,
    write_trained_store,
)

from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.classification.manifest import write_manifest
from csfd_core.evaluation.folds import fold_of, is_test
from csfd_core.learning.splits import Split
from csfd_core.reports.drift import predictions
from csfd_core.reports.drift.features import FEATURES
from csfd_core.reports.drift.observe import Drift, Finding, observe_drift
from csfd_core.reports.drift.reference import serving_of, unseen_probabilities
from csfd_core.reports.drift.report import (
    is_current,
    read_report,
    report_location,
    studies_since_report,
    summarize,
    to_frame,
    write_report,
)
from csfd_core.reports.drift.statistics import compare_values
from csfd_core.store import paths
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES

NO_MLFLOW = "sqlite:////nowhere/mlflow.db"  # no version was registered: it is not asked
INTENSITIES = {"grey_levels", "grey_mean", "grey_tissue"}


def drifted(stores: Stores) -> set[str]:
    found = observe_drift(stores, NO_MLFLOW)
    return {finding.feature.name for finding in found.drifted}


def test_studies_that_are_alike_have_not_drifted(stores: Stores) -> None:
    add_new(stores, 20)
    found = observe_drift(stores, NO_MLFLOW)
    assert found.verdict == "steady"
    assert len(found.judged) == len(FEATURES)
    assert "None of 23 features has drifted" in summarize(found)


def test_brighter_slices_are_found(stores: Stores) -> None:
    add_new(stores, 20, grey=40)
    found = drifted(stores)
    assert found >= INTENSITIES
    assert not any(name.startswith(("label", "pixel", "slice")) for name in found)
    rows = to_frame(observe_drift(stores, NO_MLFLOW)).set_index("feature")
    gap = rows["current_mean"] - rows["reference_mean"]
    assert gap["grey_tissue"] == pytest.approx(40, abs=3)


def test_doubled_spacing_is_found(stores: Stores) -> None:
    add_new(stores, 20, spacing=2.0)
    assert drifted(stores) == {"pixel_spacing_mm"}


def test_label_rates_that_fell_are_found(stores: Stores) -> None:
    whole = {uid: [0] * 7 for uid in new_uids(20)}
    add_new(stores, 20, labels=whole)
    found = drifted(stores)
    # Two in three of the reference have a fracture; their vertebrae look like it.
    assert {"label_patient_overall", "probability_patient_overall"} <= found
    assert not found & {*INTENSITIES, "pixel_spacing_mm", "slice_count"}


def test_studies_are_grouped_by_what_the_model_knows_of_them(stores: Stores) -> None:
    add_new(stores, 12)
    groups = observe_drift(stores, NO_MLFLOW).groups
    assert set(groups.current) == set(new_uids(12))
    assert set(groups.tested) == {uid for uid in old_uids() if is_test(uid)}
    assert set(groups.reference) == {uid for uid in old_uids() if not is_test(uid)}


def test_quarantined_and_withdrawn_studies_are_in_no_group(stores: Stores) -> None:
    uids = add_new(stores, 12)
    gone = next(uid for uid in old_uids() if not is_test(uid))
    table = stores.metadata.read_studies()
    table.loc[table["study_uid"] == uids[0], "status"] = "quarantined"
    kept = table[table["study_uid"] != gone]
    stores.metadata.write_studies(kept, "without one", "phantom")
    found = observe_drift(stores, NO_MLFLOW)
    assert uids[0] not in found.groups.current
    assert gone not in {*found.groups.reference, *found.reference.frame.index}


def test_reference_probabilities_are_out_of_sample(tmp_path: Path) -> None:
    stores = write_trained_store(tmp_path / "store", folds=(0, 3))
    serving = serving_of(stores, NO_MLFLOW)
    assert serving is not None
    found = unseen_probabilities(serving)
    held_out = {u for u in old_uids() if is_test(u) or fold_of(u) in (0, 3)}
    assert set(found.index) == held_out
    validated = next(u for u in held_out if not is_test(u) and fold_of(u) == 3)
    told = ClassifierStore(stores.root).result(NAME, 3).predictions
    told = told[(told["study_uid"] == validated) & (told["group"] == Split.VALIDATION)]
    expected = told.set_index("level")["probability"]
    for level in LABEL_COLUMNS:
        assert found.loc[validated, level] == expected[level]
    locked = next(u for u in held_out if is_test(u))
    both = [ClassifierStore(stores.root).result(NAME, k).predictions for k in (0, 3)]
    rows = pd.concat(both)
    rows = rows[(rows["study_uid"] == locked) & (rows["level"] == "C4")]
    assert len(rows) == 2
    assert found.loc[locked, "C4"] == pytest.approx(rows["probability"].mean())


def test_levels_that_no_fold_saw_are_left_out(tmp_path: Path) -> None:
    stores = write_trained_store(tmp_path / "store")
    models = ClassifierStore(stores.root)
    result = models.result(NAME, 0)
    uid, other = sorted(result.predictions["study_uid"].unique())[:2]
    own = result.predictions
    is_blind = (own["study_uid"] == other) | (
        (own["study_uid"] == uid) & (own["level"] == "C2")
    )
    own.loc[is_blind, "logit"] = np.nan
    rows = own.astype({"label": object}).where(own.notna(), None)
    weights = models.read_weights(NAME, 0)
    models.write(result.card, weights, rows.to_dict(orient="records"))
    serving = serving_of(stores, NO_MLFLOW)
    assert serving is not None
    found = unseen_probabilities(serving)
    assert other not in found.index
    assert found.loc[uid].isna().to_dict() == {
        level: level == "C2" for level in sorted(LABEL_COLUMNS)
    }


def test_missing_predictions_are_made_once(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    uids = add_new(stores, 12)
    first = observe_drift(stores, NO_MLFLOW)
    assert first.predictions.made == 12
    note = json.loads(stores.root.read(f"predictions/{uids[3]}.json"))
    said = first.current.frame.loc[uids[3]]
    for level in LABEL_COLUMNS:
        assert said[f"probability_{level}"] == note["probabilities"][level]

    def fail(*_: object) -> None:
        raise AssertionError("nothing is missing")

    with monkeypatch.context() as patch:
        patch.setattr(predictions, "_predict", fail)
        again = observe_drift(stores, NO_MLFLOW)
    assert again.predictions.made == 0
    pd.testing.assert_frame_equal(again.current.frame, first.current.frame)
    note["model_ids"] = ["another model"]
    stores.root.write(f"predictions/{uids[3]}.json", json.dumps(note).encode())
    assert observe_drift(stores, NO_MLFLOW).predictions.made == 1


@pytest.mark.slow
@pytest.mark.usefixtures("plain")
def test_studies_without_crops_have_no_prediction_and_are_told(stores: Stores) -> None:
    add_new(stores, 12, crops=False)
    found = observe_drift(stores, NO_MLFLOW)
    assert len(found.predictions.missing) == 12
    written = write_report(report_location(stores), found)
    assert "12 of 12 new studies have no prediction" in written.html
    assert found.verdict == "steady"  # of the features that there are


def test_studies_that_are_cut_otherwise_have_no_prediction_and_are_told(
    stores: Stores,
) -> None:
    uids = add_new(stores, 12)
    write_manifest(stores, {**CROPS.to_note(), "side_px": 64})
    found = observe_drift(stores, NO_MLFLOW).predictions
    assert (list(found.missing), found.frame.empty) == (uids, True)
    assert "cut in another way" in found.why_missing
    stores.root.remove(paths.MANIFEST)
    found = observe_drift(stores, NO_MLFLOW).predictions
    assert "there is no training manifest" in found.why_missing


@pytest.mark.parametrize(
    ("effect", "p_adjusted", "expected"),
    [(0.25, 0.049, True), (0.249, 1e-9, False), (3.0, 0.051, False)],
    ids=["both", "by chance no, but little", "much, but by chance"],
)
def test_drift_is_more_than_chance_and_more_than_the_margin(
    effect: float, p_adjusted: float, expected: bool
) -> None:
    compared = compare_values(np.arange(40), np.arange(40))
    moved = replace(compared, effect=effect, p=p_adjusted / 2)
    found = Finding(feature=FEATURES[1], comparison=moved, p_adjusted=p_adjusted)
    assert found.is_drifted is expected


def test_too_few_new_studies_are_not_judged(stores: Stores) -> None:
    add_new(stores, 9, grey=90, spacing=2.0)
    found = observe_drift(stores, NO_MLFLOW)
    assert found.verdict == "too few"
    assert not found.drifted
    assert "too few to judge: at least 10 are needed" in summarize(found)
    add_new(stores, 10, grey=90, spacing=2.0)
    assert observe_drift(stores, NO_MLFLOW).verdict == "drifted"


def test_nothing_new_is_told(stores: Stores) -> None:
    found = observe_drift(stores, NO_MLFLOW)
    assert found.verdict == "nothing new"
    assert summarize(found).endswith("nothing new to judge.")


@pytest.mark.usefixtures("plain")
def test_without_a_classifier_the_report_says_so(stores: Stores) -> None:
    bare = Stores(Location(str(stores.root) + "-bare"))
    table = stores.metadata.read_studies()
    bare.metadata.write_studies(table, "x", "phantom")
    found = observe_drift(bare, NO_MLFLOW)
    assert found.verdict == "no model"
    written = write_report(report_location(bare), found)
    assert "No classifier was trained yet" in written.html
    assert is_current(bare, NO_MLFLOW)


def test_without_a_comparison_the_newest_candidate_is_the_reference(
    tmp_path: Path,
) -> None:
    stores = write_trained_store(tmp_path / "store")
    found = serving_of(stores, NO_MLFLOW)
    assert found is not None
    assert (found.title, "newest candidate" in found.notice) == (NAME, True)


@pytest.mark.slow
def test_report_is_whole_and_names_what_it_rests_on(stores: Stores) -> None:
    add_new(stores, 20, grey=40)
    written = write_report(report_location(stores), observe_drift(stores, NO_MLFLOW))
    page = written.html
    assert "Synthetic phantom: computed images" in page
    assert "the best of the comparison stands for it" in page
    assert "Mean grey level: mean" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert set(written.figures) == {
        f"figures/{key}.png"
        for key in ("drift", "intensity", "geometry", "labels", "probabilities")
    }
    content = stores.root.read("reports/drift/drift.csv")
    rows = pd.read_csv(io.BytesIO(content))
    assert list(rows.columns) == [
        "feature", "reference_n", "current_n", "reference_mean", "current_mean",
        "psi", "ks", "p", "p_adjusted", "drifted", "why",
    ]  # fmt: skip
    assert list(rows["feature"]) == [feature.name for feature in FEATURES]
    assert set(rows["feature"][rows["drifted"]]) >= INTENSITIES
    expected = false_discovery_control(rows["p"], method="bh")
    np.testing.assert_allclose(rows["p_adjusted"], expected, rtol=1e-4)
    note = read_report(stores)
    assert note is not None
    assert set(note["drifted"]) == set(rows["feature"][rows["drifted"]])
    assert note["current_studies"] == sorted(new_uids(20))


@pytest.mark.slow
def test_same_data_give_the_same_report(stores: Stores) -> None:
    add_new(stores, 12)
    place = report_location(stores)
    first = write_report(place, observe_drift(stores, NO_MLFLOW))
    second = write_report(place, observe_drift(stores, NO_MLFLOW))
    assert (first.html, first.figures) == (second.html, second.figures)


@pytest.mark.slow
@pytest.mark.usefixtures("plain")
def test_report_is_current_until_something_changes(stores: Stores) -> None:
    assert not is_current(stores, NO_MLFLOW)
    write(stores)
    assert is_current(stores, NO_MLFLOW)
    add_new(stores, 3)
    assert not is_current(stores, NO_MLFLOW)
    write(stores)
    assert is_current(stores, NO_MLFLOW)
    table = stores.metadata.read_studies()
    table.loc[0, LEVEL_NAMES[0]] = 1 - table.loc[0, LEVEL_NAMES[0]]
    stores.metadata.write_studies(table, "a label", "phantom")
    assert not is_current(stores, NO_MLFLOW)
    write(stores)
    stores.root.remove("reports/drift/index.html")
    assert not is_current(stores, NO_MLFLOW)


def write(stores: Stores) -> Drift:
    found = observe_drift(stores, NO_MLFLOW)
    write_report(report_location(stores), found)
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("plain")
def test_studies_since_the_report_are_those_that_it_does_not_know(
    stores: Stores,
) -> None:
    before = studies_since_report(stores)
    assert (len(before.new), before.has_report, before.has_model) == (OLD, False, True)
    write(stores)
    assert studies_since_report(stores).new == ()
    uids = add_new(stores, 3)
    assert studies_since_report(stores).new == tuple(sorted(uids))
    assert not studies_since_report(Stores(Location(str(stores.root) + "-x"))).has_model


def test_builder_lets_later_studies_differ_only_as_told(stores: Stores) -> None:
    before = stores.metadata.read_studies()["pixel_spacing_mm"]
    add_new(stores, 4, spacing=2.0)
    after = stores.metadata.read_studies().set_index("study_uid")["pixel_spacing_mm"]
    assert np.array_equal(after[old_uids()], before)
    assert after[new_uids(4)].min() > 0.6
    labels = some_labels(OLD + 4)
    assert {uid_of(OLD + 1), uid_of(OLD + 4)} <= set(labels)
    assert len(manifest_of(stores).table) == 7 * (OLD + 4)
