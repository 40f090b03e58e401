"""``csfd ui`` keeps its services running, and leaves nobody behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import dagster as dg
import psutil
import pytest
from support.ports import free_port
from support.supervised import Supervised, supervised, survivors

from csfd_core.errors import SettingsError
from csfd_core.web.addresses import HOST, require_free_port
from csfd_dagster.instance.files import lay_instance

ENDS_WITHIN_S = 10

# A service with a child, both of which do not heed SIGTERM; the child has left the
# group. The other service ends at once, whenever it is started.
SERVICES = """
import sys
from pathlib import Path
from csfd_dagster.supervisor import Service, supervise
deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(900)"
parent = (
    "import subprocess, sys;"
    f"subprocess.Popen([sys.executable, '-c', {deaf!r}], start_new_session=True);"
    "print('told', flush=True);"
    "print('at 12 - dagster - DEBUG - arrival - STEP_START', flush=True);"
    "print('at 12 - dagster - \\x1b[34mDEBUG\\x1b[0m - arrival', flush=True);"
    "print('at 12 - dagster - WARNING - careful', flush=True);" + deaf
)
services = [
    Service(name="deaf", command=[sys.executable, "-c", parent], greeting="It runs."),
    Service(name="weak", command=[sys.executable, "-c", "pass"], greeting="It ran."),
]
folder = Path(sys.argv[1])
folder.mkdir()
sys.exit(supervise(services, folder, lambda line: print(line, flush=True)))
"""
DAGSTER = """
import sys
from pathlib import Path
from csfd_dagster.supervisor import dagster_services, supervise
port, files_port, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
folder.mkdir()
services = dagster_services(port, files_port, folder, "support.slow_definitions")
sys.exit(supervise(services, folder, lambda line: print(line, flush=True)))
"""
LAUNCH = """
mutation($job: JobOrPipelineSelector!) {
  launchRun(executionParams: {selector: $job, runConfigData: {}}) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""


def end(found: Supervised, number: signal.Signals) -> None:
    """Send a signal; nobody is left ten seconds later."""
    family = found.family()
    assert family
    sent = time.monotonic()
    found.process.send_signal(number)
    left = survivors([*family, found.process], ENDS_WITHIN_S)
    assert not left, [p.cmdline() for p in left]
    assert time.monotonic() - sent < ENDS_WITHIN_S


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_even_who_does_not_heed_it_or_has_left_the_group(
    tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "private"
    with supervised(["-c", SERVICES, str(folder)], tmp_path / "log") as found:
        found.wait_for("deaf | told")
        found.wait_for("deaf | at 12 - dagster - WARNING - careful")
        assert "DEBUG" not in found.said()  # what each step of a run does
        assert len(found.family()) >= 3  # the guard, the service and its child
        end(found, number)
        assert found.process.wait() == 0
        assert "Stopping." in found.said()
        assert "Traceback" not in found.said()


def test_the_death_of_the_supervisor_ends_all(tmp_path: Path) -> None:
    folder = tmp_path / "private"
    with supervised(["-c", SERVICES, str(folder)], tmp_path / "log") as found:
        found.wait_for("deaf | told")
        end(found, signal.SIGKILL)
    assert not folder.exists()  # with the code server's socket


def test_the_death_of_the_guard_ends_all(tmp_path: Path) -> None:
    folder = tmp_path / "private"
    with supervised(["-c", SERVICES, str(folder)], tmp_path / "log") as found:
        found.wait_for("deaf | told")
        family = found.family()
        found.child("csfd_dagster.guard").kill()
        assert not survivors(family, ENDS_WITHIN_S)
        assert found.process.wait() == 1
        assert "guard" in found.said()


def test_who_dies_again_and_again_is_started_after_longer_and_longer_pauses(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "private"
    with supervised(["-c", SERVICES, str(folder)], tmp_path / "log") as found:
        for seconds in (1, 2, 4):
            found.wait_for(
                f"The weak has ended (status 0); it is started again in {seconds} s."
            )
    assert "The deaf has ended" not in found.said()


@pytest.mark.slow
def test_a_busy_port_is_told_of_in_one_sentence(tmp_path: Path) -> None:
    with closing(socket.create_server((HOST, 0))) as busy:
        port = int(busy.getsockname()[1])
        with pytest.raises(SettingsError, match=rf"Port {port} .* in use\. Give ano"):
            require_free_port(port, "Give another with --port.")
        call = [sys.executable, "-m", "csfd_core.cli.main", "ui", "--port", str(port)]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"csfd: Port {port} of {HOST} cannot be used: ")
    assert done.stderr.count("\n") == 1
    require_free_port(port, "It is free again.")


def launch(port: int, asset: str) -> str:
    """Launch a run of an asset through the webserver; return its id."""
    job = {
        "repositoryLocationName": "csfd",
        "repositoryName": "__repository__",
        "jobName": "__ASSET_JOB",
        "assetSelection": [{"path": [asset]}],
    }
    body = json.dumps({"query": LAUNCH, "variables": {"job": job}}).encode()
    request = urllib.request.Request(
        f"http://{HOST}:{port}/graphql", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.load(response)["data"]["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return str(answer["run"]["runId"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_service_comes_back_and_its_runs_live_until_all_are_ended(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_instance(places / "dagster")
    monkeypatch.chdir(places)
    port, files_port = free_port(), free_port()
    monkeypatch.setenv("CSFD_FILES_PORT", str(files_port))
    tests = Path(__file__).parent.parent
    paths = [str(tests), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    arguments = [str(port), str(files_port), str(places / "private")]
    with (
        dg.DagsterInstance.get() as instance,
        supervised(["-c", DAGSTER, *arguments], places / "log") as found,
    ):

        def status(run_id: str) -> dg.DagsterRunStatus:
            run = instance.get_run_by_id(run_id)
            assert run is not None
            return run.status

        found.wait_for(f"Dagster's UI is at http://{HOST}:{port}")
        found.wait_for(f"Reports and pictures are at http://{HOST}:{files_port}/.")
        endless, waiting = launch(port, "endless"), launch(port, "waiting")
        helper = places / "helper.pid"
        found.wait_until(lambda: helper.exists() and helper.read_text() != "")
        found.wait_until((places / "waiting").exists)
        family = found.family()
        deaf = psutil.Process(int(helper.read_text()))
        assert deaf in family

        for part in ("grpc", "run"):  # the code server and the daemon
            found.child(part).kill()
        found.wait_for("The code server listens at", times=2)
        found.wait_for("The daemon runs", times=2)
        (places / "go").touch()
        found.wait_until(lambda: status(waiting) is dg.DagsterRunStatus.SUCCESS)
        assert status(endless) is dg.DagsterRunStatus.STARTED
        assert deaf.is_running()
        with urllib.request.urlopen(f"http://{HOST}:{port}/server_info") as response:
            assert response.status == 200

        found.process.send_signal(signal.SIGINT)
        left = survivors([*family, *found.family()], ENDS_WITHIN_S)
        assert not left, [p.cmdline() for p in left]
        assert found.process.wait(ENDS_WITHIN_S) == 0
        assert status(endless) is dg.DagsterRunStatus.FAILURE  # it has noted its end
        run = instance.get_run_by_id(endless)
        assert run is not None
        assert run.tags["dagster/will_retry"] == "true"  # once the daemon is back
