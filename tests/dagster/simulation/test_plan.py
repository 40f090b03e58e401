"""What arrives in which week."""

import numpy as np
import pytest

from csfd_core.errors import SettingsError
from csfd_dagster.simulation.inbox import wrong_labels
from csfd_dagster.simulation.plan import SimulationConfig, Week, plan_weeks


def degraded(weeks: list[Week]) -> Week:
    (found,) = [week for week in weeks if week.is_degraded]
    return found


def test_same_seed_gives_the_same_weeks() -> None:
    assert plan_weeks(SimulationConfig(seed=3)) == plan_weeks(SimulationConfig(seed=3))
    assert plan_weeks(SimulationConfig(seed=3)) != plan_weeks(SimulationConfig(seed=4))


@pytest.mark.parametrize("count", [6, 13, 30])
def test_studies_arrive_once_and_in_order(count: int) -> None:
    config = SimulationConfig(weeks=count, start=11)
    weeks = plan_weeks(config)
    assert len(weeks) == count + 1
    arrived = [study for week in weeks for study in week.arrivals]
    assert arrived == list(range(len(arrived)))
    low, high = config.weekly
    assert all(low <= len(week.arrivals) <= high for week in weeks[1:])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [6, 13])
def test_everything_that_goes_wrong_is_mended(count: int, seed: int) -> None:
    weeks = plan_weeks(SimulationConfig(weeks=count, seed=seed))
    worst = degraded(weeks)
    assert len(worst.arrivals) == 20
    assert set(worst.arrivals) <= set(weeks[worst.number + 2].corrected)
    assert set(weeks[2].misread) <= set(weeks[4].corrected)
    for week, after in zip(weeks, weeks[1:], strict=False):
        assert [study for study, _ in week.damaged] == list(after.repaired)
        assert week.half_copied == after.completed
    assert sum(week.withdrawn is not None for week in weeks) == 1
    assert sum(bool(week.again) for week in weeks) == 1


def test_every_study_is_converted_once_but_those_that_never_were_mended() -> None:
    weeks = plan_weeks(SimulationConfig(weeks=13))
    converted = [study for week in weeks for study in week.to_convert]
    assert len(converted) == len(set(converted))
    arrived = {study for week in weeks for study in week.arrivals}
    broken_last = {study for study, _ in weeks[-1].damaged}
    assert set(converted) == arrived - broken_last - {weeks[-1].half_copied}


@pytest.mark.parametrize(
    "wrong", [{"weeks": 5}, {"start": 0}, {"retrain": 0}, {"weekly": (9, 4)}]
)
def test_settings_that_cannot_be_meant_are_told(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="Received"):
        SimulationConfig(**wrong)  # type: ignore[arg-type]


def test_a_wrong_reading_is_wrong() -> None:
    rng = np.random.default_rng(0)
    whole = dict.fromkeys(("C1", "C2", "C3", "C4"), 0)
    assert sum(wrong_labels(whole, rng).values()) == 3
    assert wrong_labels({**whole, "C2": 1}, rng) == whole
