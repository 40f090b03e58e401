"""Which slices each protocol takes, and how the overlap is measured."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.leakage_store import slices_of

from csfd_core.reports.leakage.protocols import (
    ProtocolSplit,
    Sizes,
    build_splits,
    first_attempt_split,
    patient_split,
    patients_seen_in_training,
    random_slice_split,
    slices_seen_in_training,
)

# Names repeat, so that a patient may have several studies.
patient_lists = st.lists(
    st.integers(0, 30).map("patient {}".format), min_size=1, max_size=40
)
seeds = st.integers(0, 2**32 - 1)


def stream_of(count: int = 60) -> pd.DataFrame:
    return slices_of([f"patient {number}" for number in range(count)])


@settings(deadline=None, max_examples=60)
@given(patient_lists, seeds)
def test_test_slices_of_the_first_attempt_are_all_in_training(
    patients: list[str], seed: int
) -> None:
    slices = slices_of(patients)
    first, _, _ = build_splits(slices, seed)
    assert first.training.size
    assert first.test.size
    assert set(first.test) <= set(first.training)
    assert set(first.validation) <= set(first.training)
    assert slices_seen_in_training(first) == 1
    assert patients_seen_in_training(first, slices) == 1


@settings(deadline=None, max_examples=60)
@given(patient_lists, seeds)
def test_slices_at_random_share_no_slice(patients: list[str], seed: int) -> None:
    slices = slices_of(patients)
    _, dealt, _ = build_splits(slices, seed)
    rows = np.concatenate(list(dealt.parts().values()))
    assert rows.size == np.unique(rows).size
    assert slices_seen_in_training(dealt) == 0


@settings(deadline=None, max_examples=60)
@given(patient_lists)
def test_split_by_patient_shares_neither_slice_nor_patient(patients: list[str]) -> None:
    slices = slices_of(patients)
    split = patient_split(slices)
    rows = np.concatenate(list(split.parts().values()))
    assert sorted(rows) == list(range(len(slices)))
    owners = [set(slices["patient"].iloc[rows]) for rows in split.parts().values()]
    assert not owners[0] & owners[1]
    assert not owners[0] & owners[2]
    assert not owners[1] & owners[2]
    for share in (
        slices_seen_in_training(split),
        patients_seen_in_training(split, slices),
    ):
        assert share == 0 or (math.isnan(share) and not split.test.size)


def test_slices_at_random_share_patients() -> None:
    slices = stream_of()
    _, dealt, _ = build_splits(slices, seed=0)
    assert patients_seen_in_training(dealt, slices) > 0.9


def test_first_attempt_takes_each_set_from_the_start() -> None:
    split = first_attempt_split(
        stream_of(), Sizes(training=100, validation=20, test=30)
    )
    assert split.training.tolist() == list(range(100))
    assert split.validation.tolist() == list(range(20))
    assert split.test.tolist() == list(range(30))


def test_all_protocols_take_as_many_slices() -> None:
    splits = build_splits(stream_of(), seed=0)
    sizes = [[rows.size for rows in split.parts().values()] for split in splits]
    assert sizes[0] == sizes[1] == sizes[2]
    assert min(sizes[0]) > 0


def test_sizes_without_locked_patients_are_shares_of_all() -> None:
    slices = slices_of(["patient"] * 5)
    slices["is_test"] = False
    sizes = Sizes.of(patient_split(slices))
    assert sizes == Sizes(training=14, validation=3, test=3)


def test_the_seed_deals_the_slices() -> None:
    slices = stream_of()
    sizes = Sizes(training=100, validation=40, test=40)
    first, again, other = (random_slice_split(slices, sizes, s) for s in (1, 1, 2))
    assert first.test.tolist() == again.test.tolist()
    assert first.test.tolist() != other.test.tolist()


def planted(split: ProtocolSplit, row: int) -> ProtocolSplit:
    return replace(split, training=np.append(split.training, row))


def test_a_planted_slice_is_measured() -> None:
    slices = stream_of()
    split = patient_split(slices)
    leaked = planted(split, int(split.test[0]))
    assert slices_seen_in_training(leaked) == pytest.approx(1 / split.test.size)
    patients = slices["patient"].iloc[split.test].nunique()
    assert patients_seen_in_training(leaked, slices) == pytest.approx(1 / patients)


def test_another_slice_of_a_test_patient_is_measured() -> None:
    slices = stream_of()
    split = patient_split(slices)
    without = replace(split, test=split.test[1:])
    leaked = planted(without, int(split.test[0]))
    assert slices_seen_in_training(leaked) == 0
    assert patients_seen_in_training(leaked, slices) > 0
