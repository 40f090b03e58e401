"""``csfd serve``: what it refuses, what it starts, and that nothing is lost by it."""

import os
import signal
import socket
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest
from support.supervised import Supervised, supervised, survivors
from typer.testing import CliRunner

from csfd_core.cli.main import app
from csfd_core.errors import SettingsError
from csfd_core.settings import Settings, WebSettings
from csfd_core.web.addresses import is_loopback
from csfd_core.web.server import PlainFormatter, require_safe_host
from csfd_dagster.serving import look_before

ENDS_WITHIN_S = 20
SERVE = ["-m", "csfd_core.cli.main", "serve"]
STARTED = ("The code server listens", "The daemon runs", "The predictor has")


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
