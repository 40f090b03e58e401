"""Folds and the locked test set: frozen, by patient, evenly spread."""

import pandas as pd

from csfd_core.evaluation.folds import (
    FOLD_COUNT,
    TEST_PERCENT,
    assign_folds,
    fold_of,
    is_test,
)

# Written down once. A change here would move patients between training and test.
FROZEN_FOLDS = [3, 1, 3, 4, 0, 1, 4, 1, 2, 1, 1, 4]
FROZEN_TEST = [
    False,
    True,
    False,
    True,
    False,
    False,
    False,
    False,
    True,
    False,
    False,
    False,
]


def test_folds_of_known_patients_never_change() -> None:
    names = [f"patient {index}" for index in range(12)]
    assert [fold_of(name) for name in names] == FROZEN_FOLDS
    assert [is_test(name) for name in names] == FROZEN_TEST


def test_folds_and_test_set_are_evenly_spread() -> None:
    names = [f"1.2.3.{index}" for index in range(20_000)]
    counts = pd.Series([fold_of(name) for name in names]).value_counts(normalize=True)
    assert set(counts.index) == set(range(FOLD_COUNT))
    assert (counts - 1 / FOLD_COUNT).abs().max() < 0.01
    share = sum(is_test(name) for name in names) / len(names)
    assert abs(share - TEST_PERCENT / 100) < 0.01


def test_test_set_is_drawn_apart_from_the_folds() -> None:
    names = [f"1.2.3.{index}" for index in range(20_000)]
    locked = [fold_of(name) for name in names if is_test(name)]
    counts = pd.Series(locked).value_counts(normalize=True)
    assert (counts - 1 / FOLD_COUNT).abs().max() < 0.03


def test_studies_of_a_patient_share_a_fold_and_strangers_are_known_by_study() -> None:
    studies = pd.DataFrame(
        {
            "study_uid": ["1.1", "1.2", "1.3", "1.4"],
            "patient_key": ["anna", "anna", None, float("nan")],
        }
    )
    folds = assign_folds(studies)
    assert folds["patient"].tolist() == ["anna", "anna", "1.3", "1.4"]
    assert folds["fold"][0] == folds["fold"][1] == fold_of("anna")
    assert folds["fold"][2] == fold_of("1.3")


def test_adding_studies_moves_no_study() -> None:
    studies = pd.DataFrame(
        {"study_uid": [f"1.{i}" for i in range(50)], "patient_key": [None] * 50}
    )
    before = assign_folds(studies[:20])
    after = assign_folds(studies)[:20]
    pd.testing.assert_frame_equal(before, after)
