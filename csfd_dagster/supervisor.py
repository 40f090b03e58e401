"""What ``csfd ui`` is: a supervisor of services, each started again when it ends.

The services are Dagster's code server, webserver and daemon, and the server of the
store's files. Runs are children of the code server. A service that dies is started
again, with longer pauses the more often it happens; runs live on when the code server
is killed, and write their own end. SIGINT, SIGTERM and the supervisor's own death end
all of them (``csfd_dagster.guard``).
"""

import re
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from csfd_core.web.addresses import HOST, file_url, require_free_port
from csfd_dagster.guard import GRACE_S, end_group

DEFINITIONS: Final = "csfd_dagster.definitions"
LOCATION: Final = "csfd"
# Warnings and worse: a sensor that looks every second says so every second.
_DAEMON: Final = [sys.executable, "-m", "csfd_dagster.daemon", "run"]
_TICK_S: Final = 0.2
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_STABLE_S: Final = 60.0  # who has lived so long is no longer on the way down
# What each step of a run does, which Dagster's UI shows with the run.
_OF_RUNS: Final = re.compile(r" - dagster - (\x1b\[\d+m)*DEBUG\b")
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A program that is kept running.

    ``may_start`` holds it back until what it needs is there; once ``is_ready``,
    ``greeting`` says where it is.
    """

    name: str
    command: Sequence[str]
    greeting: str
    is_ready: Callable[[], bool] = lambda: True
    may_start: Callable[[], bool] = lambda: True


class _Child:
    """The process of a service."""

    def __init__(self, service: Service, group: int, say: Say) -> None:
        self._service = service
        self._group = group
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._start_at = 0.0
        self._pause_s = _FIRST_PAUSE_S
        self._is_greeted = False

    def tend(self, now: float) -> None:
        """Start it where it does not run, and greet where it has become ready."""
        if self._process is None:
            if now >= self._start_at and self._service.may_start():
                self._start(now)
        elif (status := self._process.poll()) is not None:
            self._bury(status, now)
        elif not self._is_greeted and self._service.is_ready():
            self._is_greeted = True
            self._say(self._service.greeting)

    def _start(self, now: float) -> None:
        self._started_at = now
        self._process = subprocess.Popen(
            self._service.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=self._group,
        )
        assert self._process.stdout is not None
        # Of its own: runs that outlive their code server go on to write to this pipe.
        threading.Thread(
            target=self._pass_on, args=(self._process.stdout,), daemon=True
        ).start()

    def _pass_on(self, output: IO[bytes]) -> None:
        with output:
            for line in output:
                text = line.decode(errors="replace").rstrip()
                if not _OF_RUNS.search(text):
                    self._say(f"{self._service.name:>11} | {text}")

    def _bury(self, status: int, now: float) -> None:
        if now - self._started_at > _STABLE_S:
            self._pause_s = _FIRST_PAUSE_S
        reason = signal.Signals(-status).name if status < 0 else f"status {status}"
        self._say(
            f"The {self._service.name} has ended ({reason}); it is started again in "
            f"{self._pause_s:.0f} s."
        )
        self._process, self._is_greeted = None, False
        self._start_at = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


def dagster_services(
    port: int, files_port: int, folder: Path, module: str = DEFINITIONS
) -> list[Service]:
    """Return the services of ``csfd ui``.

    Args:
        port: Of Dagster's UI, on this machine.
        files_port: Of reports and pictures, on this machine.
        folder: Where the code server's socket goes: nobody else may enter it.
        module: Has the definitions.

    Raises:
        SettingsError: If a port is taken.
    """
    return [
        *graph_services(folder, module),
        *ui_services(port, files_port, folder),
    ]


def graph_services(folder: Path, module: str = DEFINITIONS) -> list[Service]:
    """Return the services that run the graph: code server and daemon.

    Args:
        folder: Where the code server's socket goes: nobody else may enter it.
        module: Has the definitions.
    """
    code_socket = code_socket_in(folder)
    workspace = _write_workspace(folder, code_socket)
    return [
        Service(
            name="code server",
            command=_code_server(module, code_socket),
            greeting=f"The code server listens at {code_socket}.",
            is_ready=lambda: answers(socket.AF_UNIX, code_socket),
        ),
        Service(
            name="daemon",
            command=[*_DAEMON, "--log-level", "warning", *workspace],
            greeting="The daemon runs sensors, schedules and the queue.",
            may_start=lambda: answers(socket.AF_UNIX, code_socket),
        ),
    ]


def ui_services(port: int, files_port: int, folder: Path) -> list[Service]:
    """Return the services that show the graph: Dagster's webserver and the files.

    Args:
        port: Of Dagster's UI, on this machine.
        files_port: Of reports and pictures, on this machine.
        folder: That ``graph_services`` got.

    Raises:
        SettingsError: If a port is taken.
    """
    require_free_port(port, "Give another with --port.")
    require_free_port(files_port, "Give another with CSFD_FILES_PORT.")
    code_socket = code_socket_in(folder)
    workspace = _write_workspace(folder, code_socket)
    options = ["--host", HOST, "--port", str(port), "--live-data-poll-rate", "2000"]
    return [
        Service(
            name="files",
            command=[sys.executable, "-m", "csfd_core.web"],
            greeting=f"Reports and pictures are at {file_url(files_port)}.",
            is_ready=lambda: answers(socket.AF_INET, (HOST, files_port)),
        ),
        Service(
            name="webserver",
            command=[_program("dagster-webserver"), *options, *workspace],
            greeting=f"Dagster's UI is at http://{HOST}:{port} (stop it with Ctrl+C).",
            is_ready=lambda: answers(socket.AF_INET, (HOST, port)),
            may_start=lambda: answers(socket.AF_UNIX, code_socket),
        ),
    ]


def code_socket_in(folder: Path) -> str:
    """Return where the code server listens."""
    return str(folder / "code.sock")


def _code_server(module: str, code_socket: str) -> list[str]:
    """Return the command of the code server. A socket, since a port has no owner."""
    return [
        *(sys.executable, "-m", "csfd_dagster.code_server", "api", "grpc"),
        *("--module-name", module),
        *("--socket", code_socket, "--location-name", LOCATION),
        # A fault of the definitions is shown in the UI, and ends nothing.
        *("--lazy-load-user-code", "--use-python-environment-entry-point"),
        *("--inject-env-vars-from-instance", "--log-level", "warning"),
    ]


def _write_workspace(folder: Path, code_socket: str) -> list[str]:
    """Write where the code is; return the arguments that name it."""
    workspace = folder / "workspace.yaml"
    workspace.write_text(
        "load_from:\n  - grpc_server:\n"
        f"      socket: {code_socket}\n      location_name: {LOCATION}\n"
    )
    return ["--workspace", str(workspace)]


@contextmanager
def private_folder() -> Iterator[Path]:
    """Make a folder that only this user may enter, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="csfd-", ignore_cleanup_errors=True) as at:
        yield Path(at)


def supervise(
    services: Sequence[Service], folder: Path, say: Say, grace_s: float = GRACE_S
) -> int:
    """Keep services running until SIGINT or SIGTERM; then end all they have started.

    Args:
        services: Started in this order.
        folder: Removed by the guard if this process is killed.
        say: Takes lines to show.
        grace_s: Seconds to finish in, before what still runs is killed.

    Returns:
        Exit status: 0 where it was asked to stop, 1 where its guard was killed.
    """
    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stop.set()) for number in _SIGNALS
    }
    guard = subprocess.Popen(
        [sys.executable, "-m", "csfd_dagster.guard", str(folder), str(grace_s)],
        stdin=subprocess.PIPE,
        process_group=0,
    )
    try:
        children = [_Child(service, guard.pid, say) for service in services]
        while not stop.wait(_TICK_S):
            if guard.poll() is not None:
                say("The guard of csfd's processes was killed; everything stops.")
                return 1
            for child in children:
                child.tend(time.monotonic())
        say("Stopping.")
        return 0
    finally:
        _end(guard, grace_s)
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(guard: "subprocess.Popen[bytes]", grace_s: float) -> None:
    """Let the guard end the group; do it where the guard is gone."""
    assert guard.stdin is not None
    guard.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        guard.wait(grace_s + 2)
    end_group(guard.pid, grace_s=0 if guard.returncode == 0 else 1)


def answers(family: socket.AddressFamily, address: str | tuple[str, int]) -> bool:
    """Say whether somebody listens at an address."""
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        return client.connect_ex(address) == 0


def _program(name: str) -> str:
    return str(Path(sysconfig.get_path("scripts")) / name)
