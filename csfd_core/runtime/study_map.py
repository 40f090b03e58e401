"""One map for the work on many studies: here, or by the workers of a Dask scheduler.

What is done to a study decides where it is done best, and stands in ``Work``. Whoever
has many studies opens the map and hands the executor to ``executors.completed``; the
work writes the store by itself, and only what came of it is returned.
"""

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from csfd_core.runtime.dask_worker import CSFD, Terms, is_in_a_task
from csfd_core.runtime.executors import (
    InlineExecutor,
    default_workers,
    open_executor,
)
from csfd_core.settings import LimitSettings, Settings

_MARK: Final = ".shared.tmp-"  # listings of a store leave out what is named so
_MARK_DAYS: Final = 10  # no other writer takes it for abandoned before


class Work(Enum):
    """What is done to each study."""

    FILES = "files"  # decoded: a decoder may die, and take its process with it
    ARRAYS = "arrays"  # reckoned with: NumPy lets other threads go on meanwhile
    NETWORKS = "networks"  # which take all processors; reading and writing fill gaps
    READING = "reading"  # little else: waits for the disk or the network


_THREADS: Final = {Work.NETWORKS: 2, Work.READING: 16}


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyMap:
    """Where the work on many studies is done.

    Attributes:
        workers: Processes on this machine, for files; 0: one per processor.
        dask: ``tcp://host:port`` of a Dask scheduler, whose workers do all of it.
    """

    workers: int = 0
    dask: str | None = None

    @classmethod
    def read(cls, *, workers: int | None = None, dask: str | None = None) -> "StudyMap":
        """Return what the settings say, but for what is given.

        Raises:
            SettingsError: If a setting cannot be used.
        """
        settings = Settings.read(workers=workers, dask=dask)
        return cls(workers=settings.workers, dask=settings.dask)

    @property
    def is_remote(self) -> bool:
        """Whether Dask workers do it; a worker hands on nothing itself."""
        return self.dask is not None and not is_in_a_task()

    @contextmanager
    def open(
        self,
        work: Work,
        tasks: int,
        *,
        store: Path | None = None,
        secret: Callable[[], bytes] | None = None,
    ) -> Iterator[Executor]:
        """Open an executor for studies, and close it after use.

        Args:
            work: What is done to each.
            tasks: How many may be done at once; no more workers are started here.
            store: Folder that it is done in, which Dask workers must see.
            secret: Returns what Dask workers must have the same of.

        Raises:
            SettingsError: If the Dask scheduler does not answer.
            UnfitWorkerError: If a Dask worker cannot be trusted.
        """
        if self.is_remote:
            with self._open_dask(work, store, secret) as executor:
                yield executor
        elif work is Work.FILES:
            # Who is a Dask worker may have no children.
            workers = 1 if is_in_a_task() else self.workers or default_workers(tasks)
            with open_executor(workers) as executor:
                yield executor
        else:
            threads = min(_THREADS.get(work) or default_workers(tasks), tasks)
            if threads <= 1:
                yield InlineExecutor()
                return
            with ThreadPoolExecutor(threads) as executor:
                yield executor

    @contextmanager
    def _open_dask(
        self, work: Work, store: Path | None, secret: Callable[[], bytes] | None
    ) -> Iterator[Executor]:
        from csfd_core.runtime.dask_client import open_dask
        from csfd_core.runtime.dask_worker import own_versions

        assert self.dask is not None
        with _marked(store) as mark:
            terms = Terms(
                version=own_versions()[CSFD],
                secret="" if secret is None else hashlib.sha256(secret()).hexdigest(),
                mark=mark,
                limits=LimitSettings.given(),
            )
            wants_gpu = work is Work.NETWORKS
            with open_dask(self.dask, terms, wants_gpu=wants_gpu) as executor:
                yield executor


@contextmanager
def _marked(store: Path | None) -> Iterator[str]:
    """Put a file into a folder by which others know that they see the same one."""
    if store is None:
        yield ""
        return
    mark = store / f"{_MARK}dask-{uuid.uuid4().hex}"
    store.mkdir(mode=0o700, parents=True, exist_ok=True)
    mark.touch(mode=0o600)
    later = time.time() + _MARK_DAYS * 24 * 3600
    os.utime(mark, (later, later))
    try:
        yield str(mark)
    finally:
        mark.unlink(missing_ok=True)
