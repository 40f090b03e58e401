"""The contract of the ``csfd`` command: exit status, standard error, JSON."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.data import get_testdata_files
from support.command import csfd, csfd_here
from support.dicom_studies import (
    LABEL_HEADER,
    SLICES,
    STUDY_UID,
    neck_mask,
    volume_affine_ras,
    write_mask,
    write_study,
)
from support.material import require_material

from csfd_core.errors import TOO_LITTLE_MEMORY
from csfd_core.store.source import Source

OTHER_UID = "1.2.826.0.1.3680043.12"


@pytest.mark.parametrize("command", ["", "phantom", "inspect", "convert", "run", "ui"])
def test_help_teaches(command: str) -> None:
    run = csfd_here if command else csfd
    result = run(*command.split(), "--help")
    assert result.returncode == 0
    assert "Usage: csfd" in result.stdout
    if command not in ("", "ui"):
        assert "Example: csfd" in result.stdout


@pytest.mark.parametrize(
    "arguments", [("inspect",), ("phantom", "x", "--studies", "0"), ("nonsense",)]
)
def test_wrong_usage_is_status_2(arguments: tuple[str, ...]) -> None:
    assert csfd_here(*arguments).returncode == 2


def test_status_2_leaves_the_process() -> None:
    assert csfd("inspect").returncode == 2


def test_absent_source_is_one_clear_line_and_status_1(tmp_path: Path) -> None:
    result = csfd("inspect", tmp_path / "nowhere")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "There is no source at" in result.stderr
    assert "csfd phantom" in result.stderr


def test_empty_source_is_told(tmp_path: Path) -> None:
    result = csfd_here("convert", tmp_path, tmp_path / "store")
    assert result.returncode == 1
    assert "There are no files in" in result.stderr


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    write_study(folder)
    write_study(folder, OTHER_UID)
    write_mask(folder, neck_mask(), volume_affine_ras())
    (folder / "train_images" / OTHER_UID / "9.dcm").unlink()
    (folder / "train.csv").write_text(
        f"{LABEL_HEADER}{STUDY_UID},0,1,0,0,0,0,0,0\n1.2.9,0,0,0,0,0,0,0,0\n"
        "../x,1,0,1,0,0,0,0,0\n"
    )
    return folder


def test_inspect_writes_the_json_of_the_contract(source: Path, tmp_path: Path) -> None:
    result = csfd_here("inspect", source, "--json", tmp_path / "out" / "report.json")
    assert result.returncode == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    good, bad = report["studies"]
    assert good["study_uid"] == STUDY_UID
    assert good["folder"] == f"train_images/{STUDY_UID}"
    assert (good["status"], good["codes"]) == ("warning", ["contradictory_labels"])
    assert (good["slice_count"], good["has_mask"]) == (SLICES, True)
    assert (bad["status"], bad["codes"]) == ("quarantined", ["missing_slices"])
    assert len(bad["reasons"]) == 1
    assert report["notes"] == [
        "train.csv: 1 row has no valid StudyInstanceUID.",
        "1 labelled study has no images: 1.2.9",
        "1 study has no labels.",
    ]
    for text in (STUDY_UID, "quarantined", "missing_slices", "Fetch the study again"):
        assert text in result.stdout
    assert "Sensitive" not in result.stdout + result.stderr


def test_inspect_writes_nothing_into_the_source(source: Path) -> None:
    before = sorted(source.rglob("*"))
    csfd_here("inspect", source)
    assert sorted(source.rglob("*")) == before


@pytest.mark.slow
def test_convert_reports_and_resumes(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = csfd("convert", source, store)
    assert first.returncode == 0, first.stderr
    assert f"quarantined {OTHER_UID}: missing_slices" in first.stdout
    assert "1 study written, 0 unchanged, 1 quarantined, 0 failed" in first.stdout
    assert (store / "slices" / f"{STUDY_UID}.parquet").is_file()
    assert (store / "masks" / f"{STUDY_UID}.parquet").is_file()
    assert (store / "metadata" / "studies.parquet").is_file()
    second = csfd_here("convert", source, store)
    assert "0 studies written, 1 unchanged, 1 quarantined" in second.stdout


@pytest.mark.slow
def test_broken_label_table_is_told(source: Path, tmp_path: Path) -> None:
    (source / "train.csv").write_text("a,b\n1,2\n")
    result = csfd_here("convert", source, tmp_path / "store")
    assert result.returncode == 1
    assert "lacks the columns StudyInstanceUID" in result.stderr
    inspected = csfd_here("inspect", source)
    assert inspected.returncode == 0
    assert "lacks the columns" in inspected.stdout


def test_unwritable_json_is_told(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = csfd_here("inspect", source, "--json", tmp_path / "file" / "x.json")
    assert result.returncode == 1
    assert re.search(r"csfd: Cannot write .*x\.json", result.stderr)


def test_unexpected_failure_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Source) -> Source:
        raise RuntimeError("secret text")

    monkeypatch.setattr(Source, "require", fail)
    result = csfd_here("inspect", tmp_path)
    assert result.returncode == 1
    assert result.stderr == (
        "csfd: Unexpected RuntimeError. Set CSFD_DEBUG=1 to see where it happened.\n"
    )


def test_too_little_memory_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Source) -> Source:
        raise MemoryError

    monkeypatch.setattr(Source, "require", fail)
    result = csfd_here("inspect", tmp_path)
    assert result.returncode == 1
    assert result.stderr == f"csfd: {TOO_LITTLE_MEMORY}\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "run"), [("pydicom", csfd), ("pydicom-data", csfd_here)]
)
def test_all_of_pydicoms_files_are_inspected_without_a_traceback(
    tmp_path: Path,
    package: str,
    run: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    if package == "pydicom":
        folder = Path(get_testdata_files("CT_small.dcm")[0]).parent
    else:
        data_store = pytest.importorskip("data_store")
        folder = Path(data_store.__file__).parent
    result = run("inspect", folder, "--json", tmp_path / "report.json")
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report["studies"]) > 10
    assert {study["status"] for study in report["studies"]} <= {
        "good",
        "warning",
        "quarantined",
    }


def test_real_difficult_files_are_inspected(tmp_path: Path) -> None:
    folder = require_material("difficult_dicom")
    result = csfd_here("inspect", folder, "--json", tmp_path / "report.json")
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    series = {
        study["folder"]: study["codes"][0]
        for study in report["studies"]
        if study["folder"].startswith("failing_series")
    }
    assert series == {
        "failing_series/gantrytilting/001": "gantry_tilt",
        "failing_series/notavolume/001": "duplicate_position",
        "failing_series/slicecount/001": "too_few_slices",
        "failing_series/sliceincrement/001": "uneven_spacing",
        "failing_series/sliceincrement/002": "gantry_tilt",
        "failing_series/sliceorientation/001": "mixed_orientation",
    }


def test_real_label_table_is_counted() -> None:
    folder = require_material("rsna2022")
    result = csfd_here("inspect", folder)
    assert "2019 labelled studies have no images" in result.stdout
