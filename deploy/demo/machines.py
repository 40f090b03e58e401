"""Machines that are none: processes with a home and a temporary folder of their own.

What they share lies in Postgres, on S3 and in MLflow, never on a disk: a process that
looked for a file of another machine would not find it. All belong to one group of
processes that ``csfd_dagster.guard`` ends with the demo, however that one ends.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from csfd_dagster.guard import end_group

GRACE_S: Final = 3.0
_KEPT: Final = (
    "PATH",
    "PYTHONPATH",
    "LANG",
    "LC_ALL",
    "TZ",
    "LD_LIBRARY_PATH",
    "COLUMNS",
)
_KEY_FILE: Final = "patients.key"  # all machines have the same one
_POLL_S: Final = 0.1


class DemoError(Exception):
    """Something that the demo needs, or must show, is not as it should be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A program that runs until it is ended.

    Attributes:
        name: Of the service; also of its log.
        machine: That it runs on.
        command: Program and arguments.
        is_ready: Whether it answers.
        variables: Of its environment, beside those of its machine.
        user: Who it runs as; ``None``: as this process.
        within_s: Seconds in which it has to answer.
    """

    name: str
    machine: str
    command: Sequence[str]
    is_ready: Callable[[], bool]
    variables: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    within_s: float = 180.0


class Machines:
    """The folder of all machines, and the processes that run on them."""

    def __init__(self, state: Path, logs: Path, group: int) -> None:
        """Take a folder for state, one for logs, and the group of the processes."""
        self.state = state
        self.logs = logs
        self._group = group
        self._secret = os.urandom(32)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def home(self, machine: str) -> Path:
        """Return the home of a machine, made at first use with a copy of the secret."""
        home = self.state / machine / "home"
        for folder in (home, home.parent / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)
        if not (home / _KEY_FILE).exists():
            (home / _KEY_FILE).write_bytes(self._secret)
            (home / _KEY_FILE).chmod(0o600)
        return home

    def environment(self, machine: str, more: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of a machine, and nothing else of this process."""
        home = self.home(machine)
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        own = {
            "HOME": str(home),
            "TMPDIR": str(home.parent / "tmp"),
            "CSFD_HOME": str(home),
            "CSFD_KEY_FILE": str(home / _KEY_FILE),
            "DAGSTER_HOME": str(home),
            "PYTHONUNBUFFERED": "1",
        }
        return {**kept, **own, **more}

    def start(self, service: Service) -> None:
        """Start a service, and wait until it answers.

        Raises:
            DemoError: If it ends, or does not answer in time.
        """
        log = self.logs / f"{service.name}.log"
        with log.open("ab") as sink:
            process = subprocess.Popen(
                list(service.command),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=self.home(service.machine),
                env=self.environment(service.machine, service.variables),
                process_group=self._group,
                user=service.user,
            )
        self._running[service.name] = process
        end = time.monotonic() + service.within_s
        while not service.is_ready():
            if process.poll() is not None or time.monotonic() > end:
                raise DemoError(f"The {service.name} does not answer; see {log}.")
            time.sleep(_POLL_S)

    def call(
        self, machine: str, command: Sequence[str], variables: Mapping[str, str]
    ) -> float:
        """Run a program to its end; return how many seconds it took.

        Raises:
            DemoError: If its exit status is not 0.
        """
        name = Path(command[0]).name
        log = self.logs / f"{machine} {name} {command[1]}.log"
        begun = time.monotonic()
        with log.open("ab") as sink:
            status = subprocess.run(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=self.home(machine),
                env=self.environment(machine, variables),
                process_group=self._group,
                check=False,
            ).returncode
        if status:
            raise DemoError(f"{name} {command[1]} ended with status {status}; {log}.")
        return time.monotonic() - begun

    def process(self, name: str) -> "subprocess.Popen[bytes]":
        """Return the process of a service."""
        return self._running[name]

    def kill(self, name: str) -> None:
        """Kill a service as a power cut would; its children live on."""
        process = self._running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def bury(self) -> None:
        """Take note of the end of every service; none is left."""
        for process in self._running.values():
            process.wait()

    def ended(self) -> list[str]:
        """Return the services that have ended by themselves."""
        return [name for name, one in self._running.items() if one.poll() is not None]


@contextmanager
def machines_in(root: Path) -> Iterator[Machines]:
    """Make a folder of machines; end their processes and remove their state at the end.

    Args:
        root: Holds the folder ``state``, which goes, and ``logs``, which stays.
    """
    state, logs = root / "state", root / "logs"
    for folder in (state, logs):
        folder.mkdir(parents=True, exist_ok=True)
    guard = subprocess.Popen(
        [sys.executable, "-m", "csfd_dagster.guard", str(state), str(GRACE_S)],
        stdin=subprocess.PIPE,
        process_group=0,
    )
    machines = Machines(state, logs, guard.pid)
    try:
        yield machines
    finally:
        assert guard.stdin is not None
        guard.stdin.close()
        try:
            guard.wait(10 * GRACE_S)
        finally:
            end_group(guard.pid, grace_s=0)
            machines.bury()
            shutil.rmtree(state, ignore_errors=True)
