"""Where the work of many studies is done: in this process, a pool, or on Dask."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
)
from contextlib import contextmanager
from typing import Final, ParamSpec, TypeVar

from csfd_core.errors import SettingsError

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


def completed(
    futures: Mapping[Future[T], K],
) -> Iterator[tuple[K, Future[T]]]:
    """Yield each key and its future as it is done; cancel the rest when left early.

    Raises:
        SettingsError: If a worker process has died.
    """
    try:
        for future in as_completed(futures):
            if isinstance(future.exception(), BrokenExecutor):
                raise SettingsError(
                    "A worker process has died, most likely for want of memory. Run "
                    "the same command again with fewer --workers; what is done is kept."
                )
            yield futures[future], future
    finally:
        for future in futures:
            future.cancel()


def _leave_interrupts_to_the_parent() -> None:
    """Ctrl+C stops the parent, which stops its workers; they print no traceback."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


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
        # Not fork: fsspec and Dagster have threads running.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(
            workers, mp_context=context, initializer=_leave_interrupts_to_the_parent
        ) as pool:
            try:
                yield pool
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
