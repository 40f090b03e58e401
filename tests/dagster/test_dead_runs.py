"""Runs that have died are found; those that live are left alone."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import (
    consume_new_runs_for_automatic_reexecution as retry_as_dagster_does,
)

import csfd_dagster
from csfd_dagster.runs import (
    WILL_RETRY,
    fail_dead_runs,
    retry_given_up,
    run_that_makes,
)

INSTANCE_YAML = Path(csfd_dagster.__file__).with_name("instance") / "dagster.yaml"
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


@pytest.fixture
def retrying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """An instance as csfd has it: runs are started again whose process has died."""
    shutil.copy(INSTANCE_YAML, tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as found:
        yield found


def died(instance: dg.DagsterInstance) -> dg.DagsterRun:
    place = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("csfd"), "csfd")
    run = instance.create_run_for_job(
        dg.define_asset_job("one").resolve(asset_graph=graph()),
        status=dg.DagsterRunStatus.STARTED,
        remote_job_origin=RemoteJobOrigin(place, "one"),
    )
    instance.report_run_failed(run, "killed")
    return run


def graph() -> object:
    @dg.asset
    def one() -> None:
        """Nothing."""

    return dg.Definitions(assets=[one]).resolve_asset_graph()


def look_while_the_code_server_is_away(instance: dg.DagsterInstance) -> None:
    def away() -> None:
        raise DagsterUserCodeUnreachableError("away")

    context = SimpleNamespace(instance=instance, create_request_context=away)
    logger = logging.getLogger("silent")
    logger.disabled = True
    list(retry_as_dagster_does(context, instance.get_run_records(), logger))


def tag_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str | None:
    now = instance.get_run_by_id(run.run_id)
    return now and now.tags.get(WILL_RETRY)


def test_run_that_dagster_gave_up_on_is_started_again(
    retrying: dg.DagsterInstance,
) -> None:
    run = died(retrying)
    assert tag_of(retrying, run) == "true"
    assert retry_given_up(retrying) == []
    for _ in range(20):
        look_while_the_code_server_is_away(retrying)
        assert tag_of(retrying, run) == "false"
        assert retry_given_up(retrying) == [run.run_id]
        assert tag_of(retrying, run) == "true"  # it looks once more
        assert retry_given_up(retrying) == []
    look_while_the_code_server_is_away(retrying)
    assert retry_given_up(retrying) == []  # it will not get better


def test_run_that_failed_by_itself_is_not_started_again(
    retrying: dg.DagsterInstance,
) -> None:
    run = died(retrying)
    retrying.add_run_tags(run.run_id, {WILL_RETRY: "false"})
    assert retry_given_up(retrying) == []
