"""In which order a run with several workers takes its tests."""

import itertools
from collections.abc import Sequence

import pytest


def deal_slow(items: Sequence[pytest.Item], workers: int) -> list[pytest.Item]:
    """Put a share of the slow tests in front of what each worker starts with.

    pytest-xdist gives each worker a run of neighbours and lets idle ones take over what
    others have not begun. A slow test that comes last keeps one worker busy while the
    others wait: the modules that are given most time come first. Tests of one module
    stay together, as they share fixtures.
    """
    slow = [item for item in items if item.get_closest_marker("slow")]
    rest = iter([item for item in items if not item.get_closest_marker("slow")])
    modules = [list(own) for _, own in itertools.groupby(slow, lambda item: item.path)]
    modules.sort(key=_time_given, reverse=True)
    dealt: list[pytest.Item] = []
    for worker in range(workers):
        start = len(dealt)
        size = (len(items) - start) // (workers - worker)  # as WorkStealingScheduling
        for own in modules[worker::workers]:
            dealt += own
        dealt += itertools.islice(rest, max(0, size - (len(dealt) - start)))
    return dealt + list(rest)


def _time_given(module: Sequence[pytest.Item]) -> float:
    """Return the longest time, in seconds, that a test of a module asks for."""
    asked = [item.get_closest_marker("timeout") for item in module]
    return max((float(mark.args[0]) for mark in asked if mark), default=0.0)
