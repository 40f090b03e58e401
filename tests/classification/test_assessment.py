"""What is told of a study: no number of a level that was not assessed."""

import pytest

from csfd_core.classification.assessment import NOTHING_FOUND, Assessment, rests_on
from csfd_core.ingest.outcomes import Outcome
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES, OVERALL

NUMBERS = dict(
    zip(LABEL_COLUMNS, (0.6, 0.1, 0.2, 0.3, 0.4, 0.5, 0.1, 0.9), strict=True)
)
FLAGS = ("C4 does not lie below C3.",)


def test_a_level_that_was_not_assessed_has_no_number() -> None:
    found = Assessment.of(NUMBERS, {"C5", "C2", "C3"})
    assert {n: p for n, p in found.probabilities.items() if p is not None} == {
        OVERALL: 0.6, "C2": 0.2, "C3": 0.3, "C5": 0.5,
    }  # fmt: skip
    assert list(found.probabilities) == list(LABEL_COLUMNS)
    assert found.assessed == ("C2", "C3", "C5")
    assert found.not_assessed == ("C1", "C4", "C6", "C7")
    assert found.outcome is Outcome.PREDICTED


def test_a_study_without_any_level_has_no_number_either() -> None:
    found = Assessment.of(NUMBERS, ())
    assert set(found.probabilities.values()) == {None}
    assert found.outcome is Outcome.NOT_ASSESSED
    assert found.needs_eyes(["No cervical vertebra was found."]) == (NOTHING_FOUND,)


def test_eyes_are_needed_for_missing_levels_and_for_flags() -> None:
    every = Assessment.of(NUMBERS, LEVEL_NAMES)
    assert every.needs_eyes(()) == ()
    assert every.needs_eyes(FLAGS) == FLAGS
    missing, *flags = Assessment.of(NUMBERS, LEVEL_NAMES[1:6]).needs_eyes(FLAGS)
    assert missing.startswith("C1 and C7 were not assessed: not found, or hardly in")
    assert "rests on C2 to C6" in missing
    assert tuple(flags) == FLAGS
    (one,) = Assessment.of(NUMBERS, LEVEL_NAMES[1:]).needs_eyes(())
    assert one.startswith("C1 was not assessed")


def test_the_note_says_null_and_which_levels_the_study_rests_on() -> None:
    note = Assessment.of({**NUMBERS, "C2": 1 / 3}, ["C2", "C7"]).to_note(())
    assert note["outcome"] == "predicted"
    assert note["probabilities"]["C2"] == 0.333333
    assert note["probabilities"]["C1"] is None
    assert note["not_assessed"] == ["C1", "C3", "C4", "C5", "C6"]
    assert note["overall_rests_on"] == ["C2", "C7"]


@pytest.mark.parametrize(
    ("levels", "told"),
    [
        (LEVEL_NAMES, "all levels"),
        ((), "no level"),
        (("C4",), "C4"),
        (("C1", "C2"), "C1 and C2"),
        (("C2", "C3", "C4", "C5", "C6"), "C2 to C6"),
        (("C1", "C2", "C4", "C5", "C6"), "C1, C2 and C4 to C6"),
        (("C7", "C1", "C3"), "C1, C3 and C7"),
    ],
)
def test_levels_are_told_in_runs(levels: tuple[str, ...], told: str) -> None:
    assert rests_on(levels) == told
