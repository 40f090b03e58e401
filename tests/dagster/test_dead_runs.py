"""Runs that have died are found; those that live are left alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from csfd_dagster.runs import fail_dead_runs, run_that_makes

PATIENCE_S = 120
SLEEPER = """
import time
import dagster as dg

@dg.asset
def sleeper():
    time.sleep(600)

with dg.DagsterInstance.get() as instance:
    dg.materialize([sleeper], instance=instance)
"""


@pytest.fixture
def instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as found:
        yield found


@contextmanager
def running(instance: dg.DagsterInstance) -> Iterator[subprocess.Popen[bytes]]:
    """Run an asset that takes long in another process; wait until it has begun."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SLEEPER],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    try:
        end = time.monotonic() + PATIENCE_S
        while not begun(instance):
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.2)
        yield process
    finally:
        process.kill()
        process.wait(30)


def begun(instance: dg.DagsterInstance) -> bool:
    runs = instance.get_runs()
    return bool(runs) and bool(
        instance.all_logs(runs[0].run_id, of_type=dg.DagsterEventType.STEP_START)
    )


@pytest.mark.slow
def test_run_whose_process_was_killed_is_marked_as_failed(
    instance: dg.DagsterInstance,
) -> None:
    with running(instance) as process:
        assert fail_dead_runs(instance) == []
        (run,) = instance.get_runs()
        assert run.status is dg.DagsterRunStatus.STARTED
        assert run_that_makes(instance, [], run.job_name) is not None
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        assert fail_dead_runs(instance) == [run.run_id]
    (run,) = instance.get_runs()
    assert run.status is dg.DagsterRunStatus.FAILURE
    assert run_that_makes(instance, [], run.job_name) is None
    assert fail_dead_runs(instance) == []
