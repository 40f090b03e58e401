"""The cluster demo leaves nothing behind, however it ends."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from support.paths import ROOT

PATIENCE_S = 240


def family_of(folder: Path) -> list[psutil.Process]:
    """Return the processes that have something of a folder in their command."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in part for part in process.info["cmdline"] or [])
    ]


def wait_until_gone(folder: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    while (left := family_of(folder)) or list(folder.glob("*/state")):
        assert time.monotonic() < end, left
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_and_no_state_is_left(number: signal.Signals) -> None:
    with tempfile.TemporaryDirectory(prefix="csfd-demo-") as place:
        folder = Path(place)
        folder.chmod(0o711)  # PostgreSQL may run as another user
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.demo", "--studies", "2"],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": place},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        with process.stdout as output:
            for line in output:
                if "Postgres and S3 answer" in line:
                    break
            assert len(family_of(folder)) >= 3  # PostgreSQL, SeaweedFS, the guard
            process.send_signal(number)
            rest = output.read()
        status = process.wait(PATIENCE_S)
        wait_until_gone(folder)
        assert list(folder.glob("*/logs/postgres.log"))
        if number is signal.SIGINT:
            assert (status, "Stopped. Logs:" in rest) == (130, True)
