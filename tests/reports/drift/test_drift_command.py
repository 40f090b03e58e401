"""``csfd drift`` as users see it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.drift_store import add_new
from typer.testing import CliRunner

from csfd_core.cli.main import app
from csfd_core.errors import SourceError
from csfd_core.store.stores import Stores

pytestmark = pytest.mark.slow

NO_MLFLOW = "sqlite:////nowhere/mlflow.db"  # no version was registered: it is not asked


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["drift", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.usefixtures("plain")
def test_command_prints_the_verdict_and_writes_where_it_is_told(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NO_MLFLOW)
    monkeypatch.setenv("CSFD_INBOX", str(tmp_path / "inbox"))
    monkeypatch.setenv("COLUMNS", "160")  # so that no cell is broken
    add_new(stores, 12, spacing=2.0)
    waiting = tmp_path / "source" / "train_images" / "1.2.3" / "1.dcm"
    waiting.parent.mkdir(parents=True)
    waiting.write_bytes(b"not looked into")
    out = tmp_path / "out"
    place = ("--store", stores.root, "--source", tmp_path / "source")
    told = run(*place, "--out", out)
    assert "Verdict: drifted." in told
    assert "DRIFTED: PSI" in told
    assert "leaves out 1 study of the source, not in the store yet" in told
    assert (out / "index.html").is_file()
    assert not stores.root.exists("reports/drift/index.html")
    run("--store", stores.root)
    assert stores.root.exists("reports/drift/index.html")


def test_command_names_a_source_that_is_not_there(
    stores: Stores, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match="absent"):
        run("--store", stores.root, "--source", tmp_path / "absent")


def test_tensorflow_is_left_alone_where_no_prediction_is_missing(
    stores: Stores, tmp_path: Path
) -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from csfd_core.cli.main import app\n"
        f"call = ['drift', '--store', {str(stores.root)!r}]\n"
        "found = CliRunner().invoke(app, call)\n"
        "assert 'Verdict: nothing new.' in found.output, found.output\n"
        "sys.exit(bool({'tensorflow', 'keras', 'mlflow'} & set(sys.modules)))"
    )
    own = {"CSFD_SOURCE": str(tmp_path / "no"), "CSFD_INBOX": str(tmp_path / "no")}
    call = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(
        call, env={**os.environ, **own}, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_help_teaches() -> None:
    told = " ".join(run("--help").split())
    for word in ("ten new studies", "--source", "--store", "--out", "Example:"):
        assert word in told
