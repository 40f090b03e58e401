"""What a simulation must show, and that each of it can fail."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.cards import classifier_card

from csfd_core.evaluation.folds import is_test
from csfd_core.store.locations import Location
from csfd_core.store.metadata import STUDIES_COLUMNS
from csfd_core.store.stores import Stores
from csfd_dagster.simulation.ledger import Ledger, WeekFacts, events_of
from csfd_dagster.simulation.plan import Week

UIDS = [f"1.2.{number}" for number in range(1, 60)]
LOCKED = next(uid for uid in UIDS if is_test(uid))
OPEN = next(uid for uid in UIDS if not is_test(uid))
BAD = Week(number=1, arrivals=(1, 2), is_degraded=True)


def stores_of(folder: Path, patients: Mapping[str, str | None]) -> Stores:
    rows: list[dict[str, Any]] = [
        {
            **dict.fromkeys([name for name, _, _ in STUDIES_COLUMNS]),
            "study_uid": uid,
            "patient_key": patient,
            "status": "good",
            "warning_codes": [],
        }
        for uid, patient in patients.items()
    ]
    stores = Stores(Location(folder))
    stores.metadata.write_studies(pd.DataFrame(rows), "inputs", "phantom")
    return stores


def facts(**changes: Any) -> WeekFacts:
    values: dict[str, Any] = {
        "week": BAD,
        "expected": frozenset({"1.2.1"}),
        "made": {"vertebra_crops": 2, "basic_cnn": 1},
        "converted": frozenset({"1.2.1"}),
        "studies": 2,
        "quarantined": 0,
        "retraining": None,
        "decision": {
            "promoted": False,
            "verdict": "Version 1 stays champion.",
            "challenger": "version 2",
            "champion": "version 1",
            "scores": {
                "version 1": {"competition_log_loss": 0.5},
                "version 2": {"competition_log_loss": 0.75},
            },
        },
        "champion": "version 1",
    }
    return WeekFacts(**{**values, **changes})


def held(ledger: Ledger, kept: tuple[str, ...] = ()) -> list[bool]:
    return [verdict.holds for verdict in ledger.verdicts(kept)]


def good_ledger(folder: Path) -> Ledger:
    ledger = Ledger(weeks=[facts()])
    ledger.note_splits(stores_of(folder, dict.fromkeys(UIDS)))
    ledger.note_learnt([classifier_card(training_studies={OPEN: "a"})])
    return ledger


def test_everything_holds_where_nothing_is_wrong(tmp_path: Path) -> None:
    assert held(good_ledger(tmp_path)) == [True] * 5


@pytest.mark.parametrize("converted", [set(), {"1.2.1", "1.2.2"}])
def test_a_conversion_too_few_or_too_many_fails(
    tmp_path: Path, converted: set[str]
) -> None:
    ledger = good_ledger(tmp_path)
    ledger.weeks = [facts(converted=frozenset(converted))]
    assert held(ledger) == [False, True, True, True, True]
    assert "weeks [1]" in ledger.verdicts(())[0].sentence


def test_a_study_that_moves_fails(tmp_path: Path) -> None:
    ledger = good_ledger(tmp_path)
    other = next(uid for uid in UIDS if is_test(uid) != is_test(OPEN))
    ledger.note_splits(stores_of(tmp_path, {OPEN: other}))
    assert held(ledger) == [True, False, True, True, True]


@pytest.mark.parametrize("part", ["training_studies", "validation_studies"])
def test_a_locked_study_that_was_learnt_fails(tmp_path: Path, part: str) -> None:
    ledger = good_ledger(tmp_path)
    ledger.note_learnt([classifier_card(**{part: {LOCKED: "a"}})])
    assert held(ledger) == [True, True, False, True, True]


def test_a_file_of_a_withdrawn_study_fails(tmp_path: Path) -> None:
    assert held(good_ledger(tmp_path), ("slices/1.2.3.parquet",))[3] is False


@pytest.mark.parametrize("promoted", [True, None])
def test_a_degraded_week_that_wins_or_trains_nothing_fails(
    tmp_path: Path, promoted: bool | None
) -> None:
    ledger = good_ledger(tmp_path)
    decision = None if promoted is None else {"promoted": True}
    ledger.weeks = [facts(decision=decision, retraining="Too few.")]
    assert held(ledger)[4] is False


def test_models_of_the_weeks_until_the_correction_are_judged(tmp_path: Path) -> None:
    ledger = good_ledger(tmp_path)
    quiet = facts(decision=None, retraining="Too few.")

    def later(number: int) -> WeekFacts:
        week = Week(number=number, arrivals=())
        return facts(week=week, decision={"promoted": True})

    ledger.weeks = [quiet, later(2)]
    assert held(ledger)[4] is False
    ledger.weeks = [facts(), later(3)]  # by then the labels are read again
    assert held(ledger)[4] is True


def test_table_tells_of_a_week() -> None:
    row = Ledger(weeks=[facts()]).table().iloc[0]
    assert (row["candidate"], row["champion"]) == (0.75, 0.5)
    assert (row["models"], row["crops"], row["converted"]) == (1, 2, 1)
    assert row["events"] == "all labels wrong"
    assert row["decision"] == "Version 1 stays champion."
    quiet = facts(decision=None, retraining="Too few.").row()
    assert quiet["decision"] == "no training: Too few."


def test_events_are_counted() -> None:
    week = Week(
        number=3,
        arrivals=(5, 6),
        damaged=((5, "truncated_file"),),
        half_copied=6,
        withdrawn=1,
    )
    assert events_of(week) == "1 broken, 1 half-copied, 1 withdrawn"
    assert week.to_convert == set()
    assert events_of(Week(number=1, arrivals=())) == "none"
