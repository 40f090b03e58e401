"""What a study is for: by the patient alone, and in one place for every model."""

from collections.abc import Callable
from enum import StrEnum

import pandas as pd
import pytest
from support.cards import classifier_card, segmentation_card

from csfd_core.evaluation.folds import assign_folds, fold_of, is_test
from csfd_core.learning.card import ModelCard
from csfd_core.learning.outcomes import StopReason, TrainingOutcome
from csfd_core.learning.splits import (
    Split,
    is_in_split,
    leaks_of,
    learnt_among,
    locked_studies,
)

# Two studies of each patient; every third patient is known by the study alone.
KEYS = {f"1.2.{i}": None if i // 2 % 3 == 0 else f"p{i // 2}" for i in range(200)}
STUDIES = pd.DataFrame({"study_uid": list(KEYS), "patient_key": list(KEYS.values())})
PATIENT = {uid: key or uid for uid, key in KEYS.items()}


def studies_for(split: Split, fold: int) -> set[str]:
    chosen = is_in_split(assign_folds(STUDIES), split, fold)
    return set(STUDIES["study_uid"][chosen])


@pytest.mark.parametrize("fold", range(5))
def test_the_patient_decides_what_a_study_is_for(fold: int) -> None:
    expected: dict[Split, set[str]] = {split: set() for split in Split}
    for uid, patient in PATIENT.items():
        if is_test(patient):
            expected[Split.TEST].add(uid)
        elif fold_of(patient) == fold:
            expected[Split.VALIDATION].add(uid)
        else:
            expected[Split.TRAINING].add(uid)
    assert all(expected.values())
    assert {split: studies_for(split, fold) for split in Split} == expected


def test_no_patient_is_in_two_splits() -> None:
    for fold in range(5):
        patients = [{PATIENT[uid] for uid in studies_for(s, fold)} for s in Split]
        assert len(set.union(*patients)) == sum(len(part) for part in patients)


def test_the_locked_studies_are_the_test_set_of_every_fold() -> None:
    locked = locked_studies(STUDIES)
    assert all(studies_for(Split.TEST, fold) == locked for fold in range(5))
    assert locked == {uid for uid, patient in PATIENT.items() if is_test(patient)}


@pytest.mark.parametrize("words", [Split, StopReason, TrainingOutcome])
def test_recorded_words_are_read_back_as_what_they_were(words: type[StrEnum]) -> None:
    for word in words:
        assert words(str(word)) is word
        assert {word} == {str(word)}  # also among words that were read from a table


def test_a_model_that_kept_to_its_splits_has_no_leaks() -> None:
    for fold in range(5):
        card = classifier_card(
            fold=fold,
            training_studies=dict.fromkeys(studies_for(Split.TRAINING, fold), "c"),
            validation_studies=dict.fromkeys(studies_for(Split.VALIDATION, fold), "c"),
            test_studies=dict.fromkeys(studies_for(Split.TEST, fold), "c"),
        )
        leaks = leaks_of([card], STUDIES)
        assert not leaks
        assert leaks.locked_count == len(studies_for(Split.TEST, fold))


@pytest.mark.parametrize("part", ["training_studies", "validation_studies"])
@pytest.mark.parametrize("build", [classifier_card, segmentation_card])
def test_a_locked_study_that_a_model_learnt_from_is_a_leak(
    build: Callable[..., ModelCard], part: str
) -> None:
    locked, other = sorted(studies_for(Split.TEST, 2))[:2]
    seen = ("c", "m") if build is segmentation_card else "c"
    clean = build(fold=2)
    leaky = build(fold=2, **{part: {locked: seen, "1.9": seen}})
    leaks = leaks_of([clean, leaky], STUDIES)
    assert leaks
    assert (leaks.locked, leaks.held_out) == ((locked,), ())
    assert learnt_among([clean, leaky], {locked, other}) == {locked}


def test_a_study_of_the_held_out_fold_may_validate_but_not_train() -> None:
    (held_out, *_) = sorted(studies_for(Split.VALIDATION, 4))
    assert not leaks_of(
        [classifier_card(fold=4, validation_studies={held_out: "c"})], STUDIES
    )
    assert not leaks_of(
        [classifier_card(fold=3, training_studies={held_out: "c"})], STUDIES
    )
    leaks = leaks_of(
        [classifier_card(fold=4, training_studies={held_out: "c"})], STUDIES
    )
    assert leaks
    assert (leaks.locked, leaks.held_out) == ((), (held_out,))


def test_a_patient_whose_hash_is_locked_later_is_a_leak_as_well() -> None:
    """The rule asks for today's patients, not for those of the training."""
    known_by_study = STUDIES.assign(patient_key=None)
    uid = next(u for u in KEYS if is_test(u) and not is_test(PATIENT[u]))
    card = classifier_card(
        fold=(fold_of(PATIENT[uid]) + 1) % 5, training_studies={uid: "c"}
    )
    assert not leaks_of([card], STUDIES)
    assert leaks_of([card], known_by_study).locked == (uid,)
