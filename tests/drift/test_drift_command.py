"""``csfd drift`` as users see it."""

from pathlib import Path

import pytest
from drift_store import add_new
from typer.testing import CliRunner

from csfd_core.cli import app
from csfd_core.errors import SourceError
from csfd_core.store.convert import Stores

NO_MLFLOW = "sqlite:////nowhere/mlflow.db"  # no version was registered: it is not asked


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["drift", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_command_prints_the_verdict_and_writes_where_it_is_told(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NO_MLFLOW)
    monkeypatch.setenv("CSFD_INBOX", str(tmp_path / "inbox"))
    add_new(stores, 12, spacing=2.0)
    waiting = tmp_path / "source" / "train_images" / "1.2.3" / "1.dcm"
    waiting.parent.mkdir(parents=True)
    waiting.write_bytes(b"not looked into")
    out = tmp_path / "out"
    place = ("--store", stores.root, "--source", tmp_path / "source")
    told = run(*place, "--out", out)
    assert "Verdict: drifted." in told
    assert "DRIFTED: PSI" in told
    assert "1 studies of the source are not in the store yet" in told
    assert (out / "index.html").is_file()
    assert not stores.root.exists("reports/drift/index.html")
    run("--store", stores.root)
    assert stores.root.exists("reports/drift/index.html")


def test_command_names_a_source_that_is_not_there(
    stores: Stores, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match="absent"):
        run("--store", stores.root, "--source", tmp_path / "absent")


def test_help_teaches() -> None:
    told = " ".join(run("--help").split())
    for word in ("ten new studies", "--source", "--store", "--out", "Example:"):
        assert word in told
