"""Definitions of an asset that is never done, and of one that waits to be let go."""

import subprocess
import sys
import time
from pathlib import Path

import dagster as dg


@dg.asset
def endless(context: dg.AssetExecutionContext) -> None:
    """Start a process that does not heed SIGTERM, and wait for ever."""
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(900)"
    helper = subprocess.Popen([sys.executable, "-c", deaf])
    Path("helper.pid").write_text(str(helper.pid))
    for _ in range(9000):
        time.sleep(0.1)


@dg.asset
def waiting(context: dg.AssetExecutionContext) -> None:
    """Wait for a file."""
    Path("waiting").touch()
    while not Path("go").exists():
        time.sleep(0.1)


defs = dg.Definitions(assets=[endless, waiting], executor=dg.in_process_executor)
