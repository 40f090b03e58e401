"""csfd phantom --locked: enough locked studies, chosen by hash alone."""

from pathlib import Path

import pytest
from support.coarse import coarse_phantoms
from typer.testing import CliRunner

from csfd_core.cli.main import app
from csfd_core.cli.phantoms import with_locked
from csfd_core.evaluation.folds import is_test
from csfd_core.ingest.gather import gather_studies
from csfd_core.ingest.scan import scan_study
from csfd_core.phantom.config import PhantomConfig
from csfd_core.store.source import Source


def indices(parts: list[PhantomConfig]) -> list[int]:
    return [i for part in parts for i in range(part.first, part.first + part.studies)]


def test_without_a_wish_the_first_studies_are_drawn() -> None:
    config = PhantomConfig(studies=7, seed=3)
    assert with_locked(config, 0) == [config]


def test_as_many_studies_are_drawn_as_were_asked_for() -> None:
    found = indices(with_locked(PhantomConfig(studies=60), 20))
    assert len(set(found)) == len(found) == 60
    assert found == sorted(found)
    # More studies with as many locked ones keep those that are there.
    assert set(found) < set(indices(with_locked(PhantomConfig(studies=70), 20)))


def test_files_name_as_many_patients_of_the_locked_test_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse_phantoms(monkeypatch)
    out = tmp_path / "source"
    arguments = ["phantom", str(out), "--studies", "5", "--locked", "3"]
    told = CliRunner().invoke(app, [*arguments, "--workers", "1"])
    assert told.exit_code == 0, told.output
    assert "5 synthetic studies" in told.output
    folders, _ = gather_studies(Source(out))
    scans = [scan for folder in folders for scan in scan_study(folder)]
    keys = [scan.headers[0].patient_key for scan in scans]
    assert len(keys) == 5
    assert sum(is_test(str(key)) for key in keys) == 3
    rows = (out / "train.csv").read_text().splitlines()
    assert len(rows) == 1 + 5
