"""Executors: errors stay with their study, a dead worker is told."""

import os
import signal

import pytest

from csfd_core.errors import SettingsError
from csfd_core.executors import (
    InlineExecutor,
    completed,
    default_workers,
    open_executor,
)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def halve(number: int) -> float:
    return 1 / number


def test_inline_executor_keeps_errors_in_the_future() -> None:
    executor = InlineExecutor()
    assert executor.submit(halve, 2).result() == 0.5
    assert isinstance(executor.submit(halve, 0).exception(), ZeroDivisionError)


def test_results_come_with_their_keys() -> None:
    with open_executor(1) as executor:
        futures = {executor.submit(halve, number): number for number in (1, 2, 4)}
        assert {key: future.result() for key, future in completed(futures)} == {
            1: 1.0,
            2: 0.5,
            4: 0.25,
        }


def test_dead_worker_is_told_with_what_to_do() -> None:
    with (
        pytest.raises(SettingsError, match="want of memory.*fewer --workers"),
        open_executor(2) as executor,
    ):
        list(completed({executor.submit(die): "study"}))


def test_unanswering_dask_scheduler_is_told() -> None:
    with (
        pytest.raises(SettingsError, match="No Dask scheduler answers at tcp://127"),
        open_executor(1, "tcp://127.0.0.1:9"),
    ):
        pass


def test_workers_are_at_most_the_processors_and_the_tasks() -> None:
    processors = len(os.sched_getaffinity(0))
    assert default_workers(0) == 1
    assert default_workers(1) == 1
    assert default_workers(10_000) == processors
