"""Executors: errors stay with their study, a dead worker is told; items ahead."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from csfd_core.errors import SettingsError
from csfd_core.runtime.executors import (
    InlineExecutor,
    ahead,
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


def test_items_are_made_ahead_in_another_thread_and_keep_their_order() -> None:
    made: list[tuple[int, int]] = []
    second = threading.Event()

    def items() -> Iterator[int]:
        for number in range(5):
            made.append((number, threading.get_ident()))
            if number == 1:
                second.set()
            yield number

    found = []
    for item in ahead(items()):
        if item == 0:  # the next one is made although this one is still worked on
            assert second.wait(timeout=10)
        found.append(item)
    assert found == list(range(5)) == [number for number, _ in made]
    assert threading.get_ident() not in {thread for _, thread in made}


def test_an_error_in_making_an_item_comes_through() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken item")

    found = ahead(items())
    assert next(found) == 1
    with pytest.raises(ValueError, match="broken item"):
        next(found)


def test_no_more_is_made_once_nobody_takes_it() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    for item in ahead(items()):
        if item == 3:
            break
    assert len(made) <= 7


def test_nothing_to_make() -> None:
    assert list(ahead(iter(()))) == []
