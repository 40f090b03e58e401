"""The ``csfd`` command, as users start it and within this process."""

import io
import logging
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from csfd_core.cli.main import main

CSFD = Path(sys.executable).with_name("csfd")
_WIDE = {"COLUMNS": "200"}
# Put back afterwards; the last is what the command itself sets.
_HERE = {**_WIDE, "CSFD_WORKERS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}


def csfd(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, on a wide terminal."""
    return subprocess.run(
        [str(CSFD), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **_WIDE, **environment},
        timeout=280,  # less than a test may take
    )


def csfd_here(
    *arguments: object, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, with one worker: nothing has to be started."""
    call = ["csfd", *map(str, arguments)]
    said, told = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(said),
        redirect_stderr(told),
    ):
        patch.setattr(sys, "argv", call)
        for name, value in {**_HERE, **environment}.items():
            patch.setenv(name, value)
        logging.getLogger().addHandler(log := logging.StreamHandler(told))
        log.setLevel(logging.WARNING)  # what Python shows of what nobody handles
        try:
            main()
        except SystemExit as ended:
            status = ended.code
        finally:
            logging.getLogger().removeHandler(log)
    assert isinstance(status, int)
    return subprocess.CompletedProcess(call, status, said.getvalue(), told.getvalue())
