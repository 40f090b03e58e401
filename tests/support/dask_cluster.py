"""A Dask scheduler and workers as programs of their own, as on other machines."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.seaweed import _die_with_parent

DASK = Path(sys.executable).with_name("dask")
TESTS = Path(__file__).resolve().parents[1]
GPU = ("--resources", "GPU=1")
_STARTS_WITHIN_S = 60.0


@dataclass
class Cluster:
    """A scheduler, and the workers that were started for it.

    A worker that dies does not come back, and takes the calls that it had with it: the
    scheduler gives up a call at the first worker that it loses with it.
    """

    folder: Path
    scheduler: subprocess.Popen[bytes] | None = None
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def _file(self) -> Path:
        return self.folder / "scheduler.json"

    @property
    def address(self) -> str:
        return str(json.loads(self._file.read_text())["address"])

    def start_scheduler(self) -> None:
        self.scheduler = self._start(
            "scheduler",
            *("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"),
            DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0",
        )
        _wait_for(self._file.exists)

    def start(self, name: str, *options: str, **environment: str) -> None:
        """Start a worker that is not there; wait until it is."""
        if name in self.workers and self.workers[name].poll() is None:
            return
        self.workers[name] = self._start(
            name,
            *("worker", "--nthreads", "1", "--no-nanny", "--no-dashboard"),
            *("--name", name, "--local-directory", str(self.folder), *options),
            **environment,
        )

    def require(self) -> str:
        """Wait until there are one worker with a GPU and one without, no others.

        Returns:
            The address of the scheduler.
        """
        for name in set(self.workers) - {"cpu", "gpu"}:
            self.stop(name)
        self.start("cpu")
        self.start("gpu", *GPU)
        self.wait()
        return self.address

    def wait(self) -> None:
        """Wait until the scheduler knows all workers that live, and no others."""
        from distributed import Client

        living = {n for n, worker in self.workers.items() if worker.poll() is None}
        with Client(self.address, timeout="60s") as client:

            def is_known() -> bool:
                told = client.sync(client.scheduler.identity, n_workers=-1)
                known = {worker["name"] for worker in told["workers"].values()}
                return known == living

            _wait_for(is_known)

    def stop(self, name: str) -> None:
        worker = self.workers.pop(name)
        worker.kill()
        worker.wait()

    def close(self) -> None:
        for process in [*self.workers.values(), self.scheduler]:
            if process is not None:
                process.send_signal(signal.SIGKILL)
                process.wait()

    def _start(
        self, name: str, *call: str, **environment: str
    ) -> subprocess.Popen[bytes]:
        given = environment.pop("PYTHONPATH", "")
        path = os.pathsep.join([given, str(TESTS), str(TESTS.parent)])
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [DASK, *call, "--scheduler-file", str(self._file)],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": path.strip(os.pathsep), **environment},
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - it only calls prctl
            )


@contextmanager
def dask_cluster(folder: Path) -> Iterator[Cluster]:
    """Run a scheduler; workers are started where they are needed."""
    cluster = Cluster(folder)
    try:
        cluster.start_scheduler()
        yield cluster
    finally:
        cluster.close()


def _wait_for(holds: object) -> None:
    assert callable(holds)
    until = time.monotonic() + _STARTS_WITHIN_S
    while not holds():
        assert time.monotonic() < until, "Dask has not started"
        time.sleep(0.05)
