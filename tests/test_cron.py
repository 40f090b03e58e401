"""Times of cron: what csfd takes, Dagster takes too, and nothing that never comes."""

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csfd_core.cron import is_cron

NUMBER = st.integers(0, 70).map(str)
RANGE = st.tuples(NUMBER, NUMBER).map("-".join)
PART = st.one_of(st.just("*"), NUMBER, RANGE, st.sampled_from(["mon", "feb", "SUN"]))
STEP = st.tuples(PART, st.integers(0, 70).map(str)).map("/".join)
FIELD = st.lists(st.one_of(PART, PART, STEP), min_size=1, max_size=2).map(",".join)
TIME = st.lists(FIELD, min_size=4, max_size=6).map(" ".join)


def dagster_takes(text: str) -> bool:
    try:
        dg.ScheduleDefinition(name="s", job_name="j", cron_schedule=text)
    except dg.DagsterInvalidDefinitionError:
        return False
    return True


@pytest.mark.parametrize(
    "text",
    [
        "0 2 * * *", "30 4 * * 6", "@daily", "*/5 * * * *",
        "0-30/10 8,20 1 jan MON-fri", "0 0 29 2 *", "0 0 31 1,2 *", "5/15 * * * 7",
    ],
)  # fmt: skip
def test_times_that_come_are_taken(text: str) -> None:
    assert is_cron(text)
    assert dagster_takes(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "at night", "0 2 * *", "0 2 * * * *", "60 * * * *", "0 24 * * *",
        "0 2 0 * *", "0 2 * 13 *", "0 2 * * 8", "0 0 30 2 *", "*/0 * * * *", "@reboot",
        "0 2 * mon *", "*/90 * * * *", "0 2 * * */8",
        "0-0 2 * * *",
    ],
)  # fmt: skip
def test_what_never_comes_or_not_as_it_says_is_refused(text: str) -> None:
    assert not is_cron(text)


@given(TIME)
@settings(max_examples=300)
def test_dagster_takes_whatever_is_taken(text: str) -> None:
    assert not is_cron(text) or dagster_takes(text)
