"""Slow tests come first in every worker, and none is lost."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.ordering import deal_slow


def item(module: str, *, is_slow: bool, time_s: int | None = None) -> Any:
    def marker(name: str) -> Any:
        if name == "timeout" and time_s is not None:
            return pytest.mark.timeout(time_s).mark
        return is_slow and name == "slow"

    return SimpleNamespace(path=Path(module), get_closest_marker=marker)


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_every_worker_starts_with_whole_modules_of_slow_tests(workers: int) -> None:
    quick = [item(f"{index}", is_slow=False) for index in range(21)]
    slow = [item(module, is_slow=True) for module in "aabbbcdde"]
    dealt = deal_slow([*quick[:10], *slow, *quick[10:]], workers)
    assert len(dealt) == 30
    assert {id(one) for one in dealt} == {id(one) for one in [*quick, *slow]}
    # As pytest-xdist deals: each of those left takes its part of what is left.
    starts, at = [], 0
    for worker in range(workers):
        starts.append(at)
        at += (30 - at) // (workers - worker)
    assert all(dealt[start].get_closest_marker("slow") for start in starts)
    order = [one.path for one in dealt if one.get_closest_marker("slow")]
    assert len(list(itertools.groupby(order))) == 5


def test_the_modules_that_are_given_most_time_come_first() -> None:
    quick = [item(f"{index}", is_slow=False) for index in range(6)]
    given = {"a": None, "b": 600, "c": None, "d": 1800, "e": 900, "f": 1200}
    slow = [item(name, is_slow=True, time_s=given[name]) for name in "abccdef"]
    dealt = deal_slow([*slow, *quick], 2)
    order = "".join(str(one.path) for one in dealt if one.get_closest_marker("slow"))
    # Of d, f, e, b, a, c each worker has every second one.
    assert order == "dea" + "fbcc"


def test_without_slow_tests_the_order_stays() -> None:
    quick = [item(f"{index}", is_slow=False) for index in range(5)]
    assert deal_slow(quick, 2) == quick
