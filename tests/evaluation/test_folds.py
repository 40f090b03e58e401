"""Folds and the locked test set: frozen, by patient, evenly spread."""

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

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


def arriving(rng: np.random.Generator, count: int) -> pd.DataFrame:
    """Studies in the order in which they come: some of one patient, some of nobody."""
    patients = rng.integers(0, max(1, count // 3), count)
    is_known = rng.random(count) < 0.7
    return pd.DataFrame(
        {
            "study_uid": [f"1.2.{n}" for n in rng.permutation(count)],
            "patient_key": [
                f"patient {p}" if known else None
                for p, known in zip(patients, is_known, strict=True)
            ],
        }
    )


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    batches=st.lists(st.integers(1, 900), min_size=3, max_size=8),
)
def test_thousands_of_arrivals_move_no_study_and_split_no_patient(
    seed: int, batches: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    studies = arriving(rng, sum(batches))
    first: dict[str, tuple[int, bool]] = {}
    for there in np.cumsum(batches):
        table = studies[:there].sample(frac=1, random_state=int(rng.integers(2**31)))
        places = assign_folds(table)
        now = dict(
            zip(
                places["study_uid"],
                zip(places["fold"], places["is_test"], strict=True),
                strict=True,
            )
        )
        assert {uid: now[uid] for uid in first} == first
        first = now
        by_patient = places.groupby("patient")[["fold", "is_test"]].nunique()
        assert (by_patient == 1).all(axis=None)
        left = table[rng.random(len(table)) < 0.5]  # others are withdrawn
        own = assign_folds(left).set_index("study_uid")
        assert all(
            (own.at[uid, "fold"], own.at[uid, "is_test"]) == now[uid]
            for uid in own.index
        )
