"""``csfd serve``: what it refuses, what it starts, and that nothing is lost by it."""

import json
import os
import random
import signal
import socket
import sys
import time
import urllib.request
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import dagster as dg
import psutil
import pytest
from support.coarse import coarse_phantoms
from support.ports import free_port
from support.supervised import Supervised, supervised, survivors
from support.uploaded import accept_study, open_page, row_of
from typer.testing import CliRunner

from csfd_core.cli.main import app
from csfd_core.errors import SettingsError
from csfd_core.phantom.config import PhantomConfig
from csfd_core.phantom.source import write_phantom_source
from csfd_core.runtime.executors import InlineExecutor
from csfd_core.settings import Settings, WebSettings
from csfd_core.web.addresses import is_loopback
from csfd_core.web.server import PlainFormatter, require_safe_host
from csfd_dagster.serving import look_before

ENDS_WITHIN_S = 20
SERVE = ["-m", "csfd_core.cli.main", "serve"]
STARTED = ("The code server listens", "The daemon runs", "The predictor has")
UPLOADS = 3
KILLS = ("web", "predictor", "daemon", "code server", "all", "runs")
PARTS = {
    "web": "csfd_core.web.server",
    "predictor": "csfd_core.inference.warm",
    "daemon": "csfd_dagster.daemon",
    "code server": "csfd_dagster.code_server",
}
PATIENCE_S = 500
ENDS = {"done", "refused"}


@pytest.fixture
def home(places: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything of a page that nobody has used."""
    monkeypatch.setenv("CSFD_HOME", str(places))
    monkeypatch.setenv("CSFD_WEB_DATABASE", f"sqlite:///{places}/web.db")
    monkeypatch.setenv("CSFD_WEB_PORT", str(free_port()))
    monkeypatch.setenv("CSFD_FILES_PORT", str(free_port()))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return places


def faults() -> list[str]:
    found = look_before(Settings.read(), WebSettings.read())
    return [remark.text for remark in found if remark.is_fault]


def test_only_this_machine_reaches_the_page_without_tls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for host in ("127.0.0.1", "127.3.2.1", "::1", "localhost"):
        assert is_loopback(host)
        require_safe_host(WebSettings.read(host=host))
    for host in ("0.0.0.0", "192.168.1.7", "::", "reader.hospital"):  # noqa: S104
        assert not is_loopback(host)
        with pytest.raises(SettingsError, match="CSFD_WEB_BEHIND_TLS=1"):
            require_safe_host(WebSettings.read(host=host))
        require_safe_host(WebSettings.read(host=host, behind_tls=True))


def test_check_finds_nothing_wrong_and_names_the_general_model(home: Path) -> None:
    result = CliRunner().invoke(app, ["serve", "--check"])
    assert result.exit_code == 0, result.output
    assert "the general classifier will speak" in result.output
    assert "Ready to start" in result.output


def test_check_names_what_prevents_a_start_in_a_line_each(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("CSFD_INBOX", str(home / "file" / "inbox"))
    monkeypatch.setenv("CSFD_STORE", str(home / "file" / "store"))
    monkeypatch.setenv("CSFD_WEB_DATABASE", f"sqlite:///{home}/file/web.db")
    monkeypatch.setenv("CSFD_WEB_HOST", "0.0.0.0")  # noqa: S104 - refused
    with closing(socket.create_server(("0.0.0.0", 0))) as busy:  # noqa: S104
        port = str(busy.getsockname()[1])
        monkeypatch.setenv("CSFD_WEB_PORT", port)
        found = "\n".join(faults())
    for word in (
        "unencrypted",
        f"cannot listen at port {port}",
        "CSFD_WEB_DATABASE",
        "CSFD_INBOX",
        "CSFD_STORE",
    ):
        assert word in found
    assert found.count("\n") == 4


def test_a_full_disk_is_a_fault(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 4_000_000_000})
    monkeypatch.setattr("csfd_dagster.serving.shutil.disk_usage", lambda _: usage)
    told = faults()
    assert len(told) == 2
    assert all("4.0 GB left" in one for one in told)


def test_log_of_the_page_tells_no_text_of_an_error() -> None:
    try:
        raise ValueError("MUELLER^ANNA")
    except ValueError:
        told = PlainFormatter().formatException(sys.exc_info())
    assert told.startswith("ValueError at ")
    assert "test_serving.py" in told
    assert "MUELLER" not in told


def started(found: Supervised) -> None:
    for text in (*STARTED, "The reader's page is at"):
        found.wait_for(text)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_starts_all_shows_the_password_once_and_ends_all(home: Path) -> None:
    port = os.environ["CSFD_WEB_PORT"]
    with supervised(SERVE, home / "log") as found:
        started(found)
        family = found.family()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
            assert answer.status == 200
            assert "server" not in answer.headers
        sent = time.monotonic()
        found.process.send_signal(signal.SIGTERM)
        left = survivors([*family, *found.family()], ENDS_WITHIN_S)
        assert not left, [p.cmdline() for p in left]
        assert found.process.wait(ENDS_WITHIN_S) == 0
        assert time.monotonic() - sent < ENDS_WITHIN_S
        said = found.said()
    (line,) = (one for one in said.splitlines() if "The first user is admin" in one)
    password = line.rpartition(" ")[2]
    assert len(password) >= 20
    for path in home.rglob("*"):
        if path.is_file() and path.name != "log":
            assert password.encode() not in path.read_bytes()
    with supervised(SERVE, home / "log2") as again:
        again.wait_for("The reader's page is at")
        assert "admin" not in again.said()


@pytest.fixture
def uploaded(home: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Coarse phantoms that lie in the inbox, the last one without a slice."""
    coarse_phantoms(monkeypatch)
    few = PhantomConfig(studies=UPLOADS, seed=5, masked_share=0, compressed_share=0)
    found = write_phantom_source(home / "inbox", few, executor=InlineExecutor())
    for table in (home / "inbox").glob("train*.csv"):
        table.unlink()
    uids = [study.study_uid for study in found]
    images = home / "inbox" / "train_images" / uids[-1]
    sorted(images.iterdir())[20].unlink()
    return uids


def kill(found: Supervised, name: str) -> None:
    """Kill a service, every run, or the supervisor, as a power cut does."""
    if name == "all":
        victims = [found.process]
    elif name == "runs":
        victims = [p for p in found.family() if "forkserver" in " ".join(p.cmdline())]
        victims = [child for p in victims for child in p.children()]
    else:
        victims = [p for p in found.process.children() if PARTS[name] in p.cmdline()]
    for process in victims:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whoever_is_killed_every_upload_ends_predicted_or_refused_once(
    home: Path, uploaded: list[str]
) -> None:
    draw = random.Random(0)
    database = open_page()
    for uid in uploaded:
        accept_study(database, uid)

    def states() -> Counter[str]:
        return Counter(row_of(database, uid).state for uid in uploaded)

    kills, number, begun = list(KILLS), 0, time.monotonic()
    draw.shuffle(kills)
    while set(states()) - ENDS:
        number += 1
        with supervised(SERVE, home / f"log{number}") as found:
            found.wait_for("The daemon runs")
            family = found.family()
            while set(states()) - ENDS and found.process.poll() is None:
                assert time.monotonic() - begun < PATIENCE_S, found.said()[-3000:]
                time.sleep(draw.uniform(0.5, 4))
                if kills:
                    family = found.family() or family
                    kill(found, kills.pop())
            if found.process.poll() is not None:
                assert not survivors(family, ENDS_WITHIN_S)
    assert not kills
    assert [row_of(database, uid).state for uid in uploaded] == [
        *["done"] * (UPLOADS - 1),
        "refused",
    ]
    with dg.DagsterInstance.get() as instance:
        for uid in uploaded[:-1]:
            wanted = dg.AssetRecordsFilter(
                dg.AssetKey("study_predictions"), asset_partitions=[uid]
            )
            records = instance.fetch_materializations(wanted, limit=50).records
            outcomes = [
                record.asset_materialization.metadata["outcome"].value
                for record in records
                if record.asset_materialization
                and "outcome" in record.asset_materialization.metadata
            ]
            assert outcomes.count("written") <= 1, outcomes
            note = json.loads((home / "store/predictions" / f"{uid}.json").read_text())
            assert note["study_uid"] == uid
            assert (home / "store/heats" / f"{uid}.npz").exists()
