"""Everything is killed once while the graph is made, as a power cut would."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

import dagster as dg
import psutil

from deploy.demo.cluster import Cluster

AWAY_S: Final = 30.0  # of S3
_REST_S: Final = 5.0  # between two kills
_DATABASE_S: Final = 3.0  # for PostgreSQL's processes to notice that they are alone

Say = Callable[[str], None]


class Kills:
    """What is killed, one after the other, each while a run is under way."""

    def __init__(
        self, cluster: Cluster, instance: dg.DagsterInstance, say: Say
    ) -> None:
        """Begin with the first; ``look`` is to be called again and again."""
        self._cluster = cluster
        self._instance = instance
        self._say = say
        self._next_at = 0.0
        self._steps = self._plan()
        self.done = False

    def look(self) -> None:
        """Do the next kill where a run is under way and the last one is past."""
        if self.done or time.monotonic() < self._next_at or not self._started():
            return
        try:
            next(self._steps)
        except StopIteration:
            self.done = True
        self._next_at = time.monotonic() + _REST_S

    def _plan(self) -> Iterator[None]:
        for service in ("dask worker cpu", "daemon", "code server"):
            if service in self._cluster.services:
                self._restart(service)
                yield
        while not self._kill_run():
            yield
        yield
        self._restart("postgres", _DATABASE_S)
        yield
        self._restart("seaweedfs", AWAY_S)

    def _restart(self, name: str, away_s: float = 0.0) -> None:
        self._say(f"  SIGKILL of {name}{f', away {away_s:.0f} s' if away_s else ''}.")
        process = psutil.Process(self._cluster.machines.process(name).pid)
        # Runs are children of the code server, and live on, as they do in the field.
        children = [] if name == "code server" else process.children(recursive=True)
        self._cluster.kill(name)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        time.sleep(away_s)
        self._cluster.start(name)

    def _kill_run(self) -> bool:
        for run in self._started():
            for pid in self._processes(run):
                with suppress(psutil.NoSuchProcess):
                    psutil.Process(pid).send_signal(signal.SIGKILL)
                    self._say(f"  SIGKILL of run {run.run_id[:8]}.")
                    return True
        return False

    def _processes(self, run: dg.DagsterRun) -> list[int]:
        wanted = {dg.DagsterEventType.RUN_START}
        entries = self._instance.all_logs(run.run_id, of_type=wanted)
        events = [entry.dagster_event for entry in entries]
        return [e.pid for e in events if e is not None and e.pid is not None]

    def _started(self) -> list[dg.DagsterRun]:
        wanted = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
        return list(self._instance.get_runs(wanted))
