"""Texts that could be a patient's stand nowhere, whatever csfd is told to do."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from support.command import csfd, csfd_here
from support.dicom_studies import (
    LABEL_HEADER,
    STUDY_UID,
    neck_mask,
    volume_affine_ras,
    write_mask,
    write_study,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Invalid value for VR"),
]

Run = Callable[..., subprocess.CompletedProcess[str]]
PLANT = "DOE^JANE"
OTHER_UID = "1.2.826.0.1.3680043.12"
MARKUP = f"{PLANT}\x1b[31m[red](x)$\\frac"


def planted(dataset: Dataset) -> None:
    for keyword in (
        "PatientName", "PatientID", "StudyDescription", "SeriesDescription",
        "InstitutionName", "ConvolutionKernel", "RescaleType", "ProtocolName",
        "ImageComments", "AccessionNumber", "Manufacturer",
    ):  # fmt: skip
        setattr(dataset, keyword, PLANT)
    dataset.PatientID = f"{PLANT}-{dataset.StudyInstanceUID}"


def wrong_syntax(dataset: Dataset) -> None:
    planted(dataset)
    if dataset.InstanceNumber == 5:
        dataset.Modality = PLANT
        dataset.PhotometricInterpretation = PLANT


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A good study, a bad one, and names and keys that are those of a patient."""
    source = tmp_path / "source"
    write_study(source, edit=planted)
    bad = write_study(source, OTHER_UID, edit=wrong_syntax)
    (bad / f"{PLANT}.dcm").write_bytes(b"no DICOM")
    (bad / f"{PLANT}").write_bytes(b"")
    (source / "train_images" / PLANT).mkdir()
    (source / "train_images" / PLANT / "1.dcm").write_bytes(b"x")
    mask = write_mask(source, neck_mask(), volume_affine_ras())
    mask.rename(mask.with_name(f"{PLANT}.nii"))
    (source / "labels").mkdir()
    note = {"study_uid": STUDY_UID, MARKUP: 1}
    (source / "labels" / f"{STUDY_UID}.json").write_text(json.dumps(note))
    (source / "labels" / f"{PLANT}.json").write_text("{}")
    rows = f"{PLANT},1,1,0,0,0,0,0,0\n{STUDY_UID},1,{PLANT},0,0,0,0,0,0\n"
    (source / "train.csv").write_text(LABEL_HEADER + rows)
    return source


def said(run: Run, *arguments: object) -> str:
    result = run(*arguments)
    assert result.returncode == 0, result.stderr
    return f"{result.stdout}{result.stderr}"


def test_planted_texts_are_nowhere(source: Path, tmp_path: Path) -> None:
    texts = [
        said(csfd, "inspect", source),
        said(csfd, "convert", source, tmp_path / "store"),
        said(csfd_here, "eda", "--source", source, "--store", tmp_path / "store"),
    ]
    plain = tmp_path / "plain"
    plain.mkdir()
    (source / "train_images" / OTHER_UID).rename(plain / PLANT)
    texts.append(said(csfd_here, "inspect", plain))
    texts.append(said(csfd_here, "convert", plain, tmp_path / "store2"))
    for text in texts:
        assert "DOE" not in text
        assert "JANE" not in text
    for path in [*tmp_path.glob("store*/**/*")]:
        assert "DOE" not in path.name
        if path.is_file():
            assert b"DOE^" not in path.read_bytes(), path
