"""Executors: errors stay with their study, a dead worker is told; items ahead."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from csfd_core.errors import WorkerDiedError
from csfd_core.runtime.executors import (
    InlineExecutor,
    ahead,
    completed,
    default_workers,
    in_order,
    in_threads,
    open_executor,
    open_pool,
)


def halve(number: int) -> float:
    return 1 / number


def test_inline_executor_keeps_errors_in_the_future() -> None:
    executor = InlineExecutor()
    assert executor.submit(halve, 2).result() == 0.5
    assert isinstance(executor.submit(halve, 0).exception(), ZeroDivisionError)


def test_results_come_with_their_items() -> None:
    with open_executor(1) as executor:
        found = completed(executor, halve, (1, 2, 4))
        assert {item: future.result() for item, future in found} == {
            1: 1.0,
            2: 0.5,
            4: 0.25,
        }


def halve_or_die(number: int) -> float:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return halve(number)


def die_once(mark: Path) -> str:
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def test_a_worker_that_dies_costs_its_own_item_alone() -> None:
    with open_executor(2) as executor:
        found = dict(completed(executor, halve_or_die, range(8)))
    errors = {item: type(future.exception()) for item, future in found.items()}
    assert errors == dict.fromkeys(range(8), type(None)) | {
        0: ZeroDivisionError,
        3: WorkerDiedError,
    }
    assert found[4].result() == 0.25
    assert "died again alone" in str(found[3].exception())


def test_in_order_a_process_that_dies_costs_its_own_item_alone() -> None:
    with open_pool(1) as pool:
        found = list(in_order(pool, halve_or_die, [1, 2, 3, 0, 4]))
    assert [item for item, _ in found] == [1, 2, 3, 0, 4]
    errors = [type(future.exception()) for _, future in found]
    assert errors == [
        type(None), type(None), WorkerDiedError, ZeroDivisionError, type(None),
    ]  # fmt: skip
    assert found[4][1].result() == 0.25


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_keep_the_order_and_take_no_more_than_they_need(threads: int) -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(40):
            taken.append(number)
            yield number

    ahead = []
    for number in in_threads(lambda item: item * 2, items(), threads):
        ahead.append(len(taken) - number // 2)
    assert len(ahead) == 40
    assert max(ahead) <= 1 + 3 * threads


def test_an_item_that_dies_once_is_done_after_all(tmp_path: Path) -> None:
    with open_executor(2) as executor:
        marks = [tmp_path / "a", tmp_path / "b"]
        found = dict(completed(executor, die_once, marks))
    assert [found[mark].result() for mark in marks] == ["done", "done"]


ORPHANS = """
import os, signal, time
from csfd_core.runtime.executors import open_executor
if __name__ == "__main__":
    with open_executor(2) as executor:
        workers = [executor.submit(os.getpid) for _ in range(6)]
        print(*{future.result() for future in workers}, flush=True)
        for _ in workers:
            executor.submit(time.sleep, 60)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "orphans.py").write_text(ORPHANS)
    call = [sys.executable, tmp_path / "orphans.py"]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    workers = [int(number) for number in done.stdout.split()]
    assert workers
    begun = time.monotonic()
    while any(psutil.pid_exists(number) for number in workers):
        assert time.monotonic() - begun < 10
        time.sleep(0.1)


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
