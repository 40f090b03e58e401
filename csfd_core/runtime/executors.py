"""Where the work of many studies is done: in this process, a pool, or on Dask."""

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
    as_completed,
    wait,
)
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import wait as wait_for_connections
from typing import Final, ParamSpec, TypeVar

from pebble import ProcessExpired, ProcessPool

from csfd_core.errors import SettingsError, WorkerDiedError

P = ParamSpec("P")
T = TypeVar("T")
K = TypeVar("K")
_AHEAD: Final = 2  # items: one takes longer to make than another


class InlineExecutor(Executor):
    """Does each call at once in the calling thread: for few studies."""

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
            if _has_died(future):
                future = executor.submit(call, item)
                wait([future])
            yield item, _told(future)
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
    futures = {executor.submit(call, item): item for item in items}
    died: list[K] = []
    try:
        for future in as_completed(futures):
            if _has_died(future):
                died.append(futures[future])
            else:
                yield futures[future], future
        for item in died:
            future = executor.submit(call, item)
            wait([future])
            yield item, _told(future)
    finally:
        for future in futures:
            future.cancel()


def _has_died(future: Future[T]) -> bool:
    return isinstance(future.exception(), (BrokenExecutor, ProcessExpired))


def _told(future: Future[T]) -> Future[T]:
    """Return a future whose error says what has happened."""
    if not _has_died(future):
        return future
    told: Future[T] = Future()
    told.set_exception(
        WorkerDiedError(
            "The process that worked on it has died, and died again alone: an image "
            "that no decoder survives, or too little memory."
        )
    )
    return told


class _Pool(Executor):
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
def open_executor(workers: int, dask_address: str | None = None) -> Iterator[Executor]:
    """Open an executor and close it after use.

    Args:
        workers: Processes on this machine; 1 works in this process.
        dask_address: ``tcp://host:port`` of a Dask scheduler; used instead.

    Raises:
        SettingsError: If the Dask scheduler does not answer.
    """
    if dask_address is not None:
        from distributed import Client

        try:
            client = Client(  # type: ignore[no-untyped-call]  # Dask has no types
                dask_address, timeout="10s"
            )
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"No Dask scheduler answers at {dask_address}. Start one with "
                "`dask scheduler` and workers with `dask worker`."
            ) from error
        with client:
            yield client.get_executor()  # type: ignore[no-untyped-call]  # likewise
    elif workers <= 1:
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
