"""Where the work of many studies is done: in this process, in threads, or in a pool."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import wait as wait_for_connections
from queue import Empty, SimpleQueue
from typing import ClassVar, Final, ParamSpec, TypeVar

from pebble import ProcessExpired, ProcessPool

from csfd_core.errors import SettingsError, UnfitWorkerError, WorkerDiedError

P = ParamSpec("P")
T = TypeVar("T")
K = TypeVar("K")
_AHEAD: Final = 2  # items: one takes longer to make than another
_LOOK_EVERY_S: Final = 5.0  # whether anybody is left who works


class StudyExecutor(Executor):
    """An executor that says what ``completed`` needs to know of it.

    Attributes:
        at_once: Calls that it may hold; the others wait with whoever asks.
        deaths: Errors of a call whose process has died, whatever it has done.
    """

    at_once: ClassVar[int] = 512  # each with the names of a study's files
    deaths: ClassVar[tuple[type[BaseException], ...]] = (
        BrokenExecutor,
        ProcessExpired,
    )

    def look(self) -> None:
        """Raise a ``CsfdError`` if nobody is left who would do what waits."""


class InlineExecutor(StudyExecutor):
    """Does each call at once in the calling thread: for few studies."""

    at_once = 1

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Call ``fn`` now; its error is kept in the future."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - as every executor does
            future.set_exception(error)
        return future


def default_workers(task_count: int) -> int:
    """Return as many workers as there are processors for us, at most one per task."""
    return max(1, min(task_count, len(os.sched_getaffinity(0))))


def ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield items; the next ones are made in a thread while one is worked on."""
    end = object()
    source = iter(items)
    with ThreadPoolExecutor(1) as thread:
        coming = deque(thread.submit(next, source, end) for _ in range(_AHEAD))
        while (item := coming.popleft().result()) is not end:
            coming.append(thread.submit(next, source, end))
            yield item  # type: ignore[misc]  # not the end


def in_threads(call: Callable[[K], T], items: Iterable[K], threads: int) -> Iterator[T]:
    """Call a function with many items in threads; yield the results in order.

    No more items are taken than the threads need, so that they may be large. One thread
    is the caller's own.
    """
    if threads <= 1:
        yield from map(call, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        coming: deque[Future[T]] = deque()
        for item in items:
            coming.append(pool.submit(call, item))
            if len(coming) > _AHEAD * threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def in_order(
    executor: Executor, call: Callable[[K], T], items: Iterable[K]
) -> Iterator[tuple[K, Future[T]]]:
    """Call a function with many items; yield each item and its future, in order.

    As ``completed``, but no more than one result waits while the caller works on
    another, so that they may be large.
    """
    coming: deque[tuple[K, Future[T]]] = deque()
    source = iter(items)
    try:
        while True:
            for item in islice(source, _AHEAD - len(coming)):
                coming.append((item, executor.submit(call, item)))
            if not coming:
                return
            item, future = coming.popleft()
            if _has_died(future, executor):
                future = executor.submit(call, item)
                wait([future])
            yield item, _told(future, executor)
    finally:
        for _, future in coming:
            future.cancel()


def completed(
    executor: Executor, call: Callable[[K], T], items: Iterable[K]
) -> Iterator[tuple[K, Future[T]]]:
    """Call a function with many items; yield each item and its future as it is done.

    An item whose process dies, for a decoder's fault or for want of memory, costs no
    other item. It is tried once more when all others are done, alone; the error of one
    that dies again is a ``WorkerDiedError``. What is left is cancelled when the caller
    leaves early.
    """
    source = iter(items)
    running: dict[Future[T], K] = {}
    done: SimpleQueue[Future[T]] = SimpleQueue()
    died: list[K] = []
    try:
        while True:
            for item in islice(source, _at_once(executor) - len(running)):
                future = executor.submit(call, item)
                running[future] = item
                future.add_done_callback(done.put)
            if not running:
                break
            future = _next(done, executor)
            item = running.pop(future)
            if _has_died(future, executor):
                died.append(item)
            else:
                yield item, future
        for item in died:
            future = executor.submit(call, item)
            running[future] = item
            future.add_done_callback(done.put)
            running.pop(_next(done, executor))
            yield item, _told(future, executor)
    finally:
        for future in running:
            future.cancel()


def _at_once(executor: Executor) -> int:
    kind = executor if isinstance(executor, StudyExecutor) else StudyExecutor
    return kind.at_once


def _next(done: SimpleQueue[Future[T]], executor: Executor) -> Future[T]:
    """Wait for a call to be done.

    Raises:
        UnfitWorkerError: If the worker that has got it could not be trusted.
        SettingsError: If who was to do the work is gone.
    """
    while True:
        try:
            future = done.get(timeout=_LOOK_EVERY_S)
            break
        except Empty:
            if isinstance(executor, StudyExecutor):
                executor.look()
    if future.cancelled():
        raise SettingsError(
            "The Dask scheduler has ended, or has lost what it was to do. Start it, "
            "and the same again: what is done stays."
        )
    if isinstance(error := future.exception(), UnfitWorkerError):
        raise error
    return future


def _has_died(future: Future[T], executor: Executor) -> bool:
    kind = executor if isinstance(executor, StudyExecutor) else StudyExecutor
    return isinstance(future.exception(), kind.deaths)


def _told(future: Future[T], executor: Executor) -> Future[T]:
    """Return a future whose error says what has happened."""
    if not _has_died(future, executor):
        return future
    told: Future[T] = Future()
    told.set_exception(
        WorkerDiedError(
            "The process that worked on it has died, and died again alone: an image "
            "that no decoder survives, or too little memory."
        )
    )
    return told


class _Pool(StudyExecutor):
    """Processes that die for themselves: only the call that they worked on fails."""

    def __init__(self, workers: int) -> None:
        # Not fork: fsspec and Dagster have threads running.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPool(workers, initializer=_prepare_worker, context=context)

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        future: Future[T] = self._pool.submit(fn, None, *args, **kwargs)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if cancel_futures:
            self._pool.stop()  # type: ignore[no-untyped-call]
        else:
            self._pool.close()  # type: ignore[no-untyped-call]
        self._pool.join()


def _prepare_worker() -> None:
    """Let a worker end with its parent, however that one ends.

    Ctrl+C stops the parent, which stops its workers; they print no traceback.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_connections([parent.sentinel])
        os._exit(1)


@contextmanager
def open_executor(workers: int) -> Iterator[Executor]:
    """Open an executor on this machine and close it after use.

    Args:
        workers: Processes; 1 works in this process.
    """
    if workers <= 1:
        yield InlineExecutor()
    else:
        with open_pool(workers) as pool:
            yield pool


@contextmanager
def open_pool(workers: int) -> Iterator[Executor]:
    """Open processes, also where it is one, and close them after use."""
    pool = _Pool(workers)
    try:
        yield pool
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()
