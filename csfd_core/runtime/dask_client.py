"""Dask workers as an executor: who they are, whether they fit, who has a GPU.

A worker that dies costs nothing but time: the scheduler gives its calls to others. A
call that has taken too many workers with it (``distributed.KilledWorker``) is one whose
process has died, as in a pool.
"""

import logging
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from csfd_core.errors import SettingsError, UnfitWorkerError
from csfd_core.runtime.dask_worker import (
    CODE,
    CSFD,
    Terms,
    WorkerReport,
    own_versions,
    pack,
    report,
    run_call,
)
from csfd_core.runtime.executors import StudyExecutor
from csfd_core.text import count

if TYPE_CHECKING:
    from distributed import Client

P = ParamSpec("P")
T = TypeVar("T")

GPU: Final = "GPU"  # the resource of workers that are to run networks
_ANSWERS_WITHIN: Final = "10s"
# A cluster that grows by itself, or a queue of Slurm, takes its time.
_PATIENCE_S: Final = 1800.0

_log = logging.getLogger(__name__)
_said: set[str] = set()


class DaskExecutor(StudyExecutor):
    """Hands each call to a worker that fits."""

    def __init__(self, client: "Client", terms: Terms, *, needs_gpu: bool) -> None:
        """Take a client.

        Args:
            client: Of the scheduler.
            terms: What workers must agree with.
            needs_gpu: Let workers with the resource ``GPU`` do it, one call each.
        """
        from distributed import KilledWorker

        self.deaths = (KilledWorker, *StudyExecutor.deaths)  # type: ignore[misc]
        self._client = client
        self._terms = terms
        self._resource = GPU if needs_gpu else ""
        options = {"resources": {GPU: 1}} if needs_gpu else {}
        self._remote: Any = client.get_executor(pure=False, **options)  # type: ignore[no-untyped-call]
        self._nobody_since: float | None = None

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Let a worker make a call; what it takes and returns is pickled."""
        name = getattr(fn, "__name__", type(fn).__name__)
        future: Future[T] = self._remote.submit(
            run_call,
            self._terms,
            pack(fn, *args, **kwargs),
            key=f"csfd-{name}-{uuid.uuid4().hex}",  # what Dask's page shows
        )
        return future

    def look(self) -> None:
        """Say it where no worker is left; after half an hour, give up.

        Raises:
            SettingsError: If there has been none for so long, or no scheduler.
        """
        if _workers(self._client, self._resource):
            self._nobody_since = None
            return
        which = f" with the resource {GPU}" if self._resource else ""
        now = time.monotonic()
        if self._nobody_since is None:
            self._nobody_since = now
            _log.warning("Dask has no worker%s: waiting for one.", which)
        elif now - self._nobody_since > _PATIENCE_S:
            raise SettingsError(
                f"Dask has had no worker{which} for {_PATIENCE_S / 60:.0f} minutes. "
                "Start one with `dask worker`, and the same again: what is done stays."
            )


@contextmanager
def open_dask(
    address: str, terms: Terms, *, wants_gpu: bool = False
) -> Iterator[DaskExecutor]:
    """Open the workers of a Dask scheduler, and leave them after use.

    Args:
        address: ``tcp://host:port`` of the scheduler.
        terms: What every worker must agree with.
        wants_gpu: Let workers with the resource ``GPU`` do it, where there are.

    Raises:
        SettingsError: If the scheduler does not answer.
        UnfitWorkerError: If a worker has another csfd or secret, or does not see the
            store.
    """
    import distributed

    for name in ("client", "utils"):  # they log tracebacks of what is told below
        logging.getLogger(f"distributed.{name}").setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            # It tells in a table of six lines what ``_meet`` says in a sentence.
            warnings.simplefilter("ignore", distributed.versions.VersionMismatchWarning)
            client = distributed.Client(  # type: ignore[no-untyped-call]
                address, timeout=_ANSWERS_WITHIN
            )
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"No Dask scheduler answers at {address}. Start one with "
            "`dask scheduler` and workers with `dask worker`."
        ) from error
    with client:
        _meet(client, terms)
        has_gpu = wants_gpu and bool(_workers(client, GPU))
        if wants_gpu and not has_gpu:
            _say(
                f"No Dask worker has the resource {GPU}: networks run on any of them. "
                f"Start those that have one with `dask worker --resources {GPU}=1`."
            )
        yield DaskExecutor(client, terms, needs_gpu=has_gpu)


def _workers(client: "Client", resource: str = "") -> list[str]:
    """Return the addresses of the workers, or of those that have a resource.

    Raises:
        SettingsError: If the scheduler does not answer any more.
    """
    try:
        # Not ``scheduler_info``: at times it returns what its own thread has read for
        # another end, which is without workers.
        scheduler: Any = client.scheduler
        told = client.sync(scheduler.identity, n_workers=-1)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise SettingsError(
            "The Dask scheduler has ended. Start it, and the same again: what is done "
            "stays."
        ) from error
    workers: Mapping[str, Any] = told["workers"]
    return [
        address
        for address, worker in workers.items()
        if not resource or worker["resources"].get(resource, 0) >= 1
    ]


def _meet(client: "Client", terms: Terms) -> None:
    """Ask every worker what it runs with; say how they differ from this process.

    Raises:
        UnfitWorkerError: If one of them does not fit.
    """
    reports = client.run(report, terms, on_error="return")
    unlike: dict[str, list[str]] = {}
    for address, told in sorted(reports.items()):
        if not isinstance(told, WorkerReport):
            raise UnfitWorkerError(
                f"The Dask worker {address} cannot say what it runs with: {told}. "
                "Install the same csfd there."
            )
        if told.refusal:
            raise UnfitWorkerError(
                f"The Dask worker {address} cannot be used: {told.refusal}"
            )
        if difference := _difference(told.versions):
            unlike.setdefault(difference, []).append(address)
    for difference, addresses in unlike.items():
        workers = count(len(addresses), "Dask worker", "runs", "run")
        _say(
            f"{workers} with {difference}: results may differ. The first: "
            f"{addresses[0]}."
        )


def _difference(versions: Mapping[str, str]) -> str:
    """Say what a worker has, and this process has not."""
    local = own_versions()
    told = [
        f"{name} {versions.get(name, 'none')} instead of {local[name]}"
        for name in local
        if name not in (CSFD, CODE) and versions.get(name) != local[name]
    ]
    if versions.get(CODE) != local[CODE]:
        told.append("other code of the same version of csfd")
    return ", ".join(told)


def _say(sentence: str) -> None:
    """Warn of something once in the life of this process."""
    if sentence not in _said:
        _said.add(sentence)
        _log.warning(sentence)
