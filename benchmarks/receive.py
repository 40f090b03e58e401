"""How fast does the DICOM node take in images, against dcmtk's receiver?

Both get the same study from dcmtk's sender over this machine's own network. csfd
de-identifies every image and has it on the disk before it answers; storescp writes the
file as it came and waits for no disk, yet takes some 40 ms an image, whatever its
buffers are; why was not found out. Then four senders send a study each, at once.
"""

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.harness import Result, ratios, spread
from benchmarks.studies import large_volume, write_copy
from csfd_core.errors import SettingsError

LEAST_PER_S = 80.0  # images
IMAGES, ROUNDS, SENDERS = 200, 3, 4
_PATIENCE_S = 60.0
_TITLE = "CSFD"
_PDU = "131072"  # the largest that storescp takes

_Listening = tuple[int, psutil.Process]


def run() -> Result:
    """Send studies to both receivers in turns, then four at once to csfd."""
    if shutil.which("storescu") is None or shutil.which("storescp") is None:
        raise SettingsError("This needs storescu and storescp of dcmtk: install dcmtk.")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        volume = large_volume(IMAGES)
        studies = [place / f"study-{number}" for number in range(SENDERS)]
        for number, study in enumerate(studies):
            write_copy(study, volume, number)
        ours, other, busy = [], [], []
        for number in range(ROUNDS):
            with _node(place / f"csfd-{number}") as (port, node):
                before = sum(node.cpu_times()[:2])
                ours.append(IMAGES / _send(port, studies[:1]))
                busy.append((sum(node.cpu_times()[:2]) - before) / IMAGES * 1000)
            with _storescp(place / f"storescp-{number}") as (port, _):
                other.append(IMAGES / _send(port, studies[:1]))
        with _node(place / "csfd-at-once") as (port, _):
            at_once = SENDERS * IMAGES / _send(port, studies)
    return Result(
        question="Images that are received in a second",
        target=f"at least {LEAST_PER_S:.0f}",
        met=statistics.median(ours) >= LEAST_PER_S,
        data=f"studies of {IMAGES} images of 512x512, uncompressed",
        measured={
            "images_per_s": spread(ours, 0),
            "storescp_images_per_s": spread(other, 0),
            "of_storescp": ratios(ours, other),
            "processor_ms_an_image": spread(busy, 1),
            f"images_per_s_of_{SENDERS}_senders": round(at_once),
        },
    )


def _send(port: int, studies: Sequence[Path]) -> float:
    """Send studies at once; return the seconds until the last one has arrived."""
    begun = time.perf_counter()
    senders = [
        subprocess.Popen(
            ["storescu", "-aec", _TITLE, "+sd", "+r", "127.0.0.1", str(port), study],
            stdout=subprocess.DEVNULL,
        )
        for study in studies
    ]
    if any(sender.wait() for sender in senders):
        raise SettingsError("A study was not taken. Run storescu by hand to see why.")
    return time.perf_counter() - begun


@contextmanager
def _node(home: Path) -> Iterator[_Listening]:
    port = _free_port()
    environment = {
        **os.environ,
        "CSFD_HOME": str(home),
        "CSFD_KEY_FILE": str(home / "patients.key"),
        "CSFD_DICOM_PORT": str(port),
        "CSFD_DICOM_AE_TITLE": _TITLE,
    }
    command = [sys.executable, "-m", "csfd_core.network.node"]
    with _running(command, port, environment) as process:
        yield port, process
    taken = len(list(home.glob("data/*/**/*.dcm")))
    if taken < IMAGES:
        raise SettingsError(f"Only {taken} images were kept.")


@contextmanager
def _storescp(folder: Path) -> Iterator[_Listening]:
    folder.mkdir()
    port = _free_port()
    options = ["-aet", _TITLE, "-pdu", _PDU, "-od", str(folder)]
    with _running(["storescp", *options, str(port)], port, dict(os.environ)) as process:
        yield port, process


@contextmanager
def _running(
    command: list[str], port: int, environment: dict[str, str]
) -> Iterator[psutil.Process]:
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(_PATIENCE_S)


def _wait_for(port: int) -> None:
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SettingsError(f"Nobody listens at port {port}.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
