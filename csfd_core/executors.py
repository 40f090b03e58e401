"""Where the work of many studies is done: in this process, a pool, or on Dask."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from csfd_core.errors import SettingsError

P = ParamSpec("P")
T = TypeVar("T")


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
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            try:
                yield pool
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
