"""csfd segment: from DICOM files to NIfTI masks that lie right on the CT."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.dicom_studies import write_study

from csfd_core.errors import SourceError
from csfd_core.inference.inputs import opened
from csfd_core.phantom.config import PhantomConfig
from csfd_core.phantom.source import write_phantom_source

# A study whose mask the phantom writes as NIfTI itself: the oracle for the affine.
CONFIG = PhantomConfig(studies=1, seed=11, masked_share=1.0, compressed_share=0.0)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom_source(folder, CONFIG)
    return folder


def segment(place: Path, out: Path) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-W", "ignore", "-m", "csfd_core.cli.main", "segment"]
    call += [str(place), "--out", str(out)]
    return subprocess.run(call, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_masks_lie_on_the_ct_in_patient_coordinates(
    phantom: Path, tmp_path: Path
) -> None:
    result = segment(phantom, tmp_path)
    assert result.returncode == 0, result.stderr
    (path,) = tmp_path.glob("*.nii.gz")
    (given_path,) = (phantom / "segmentations").iterdir()
    found, given = nib.load(path), nib.load(given_path)
    labels = np.asarray(found.dataobj)
    assert set(np.unique(labels)) <= set(range(8))
    # Whatever the order of their axes: the same levels at the same millimetres.
    expected = np.asarray(given.dataobj)
    for level in range(1, 8):
        places = []
        for image, values in ((found, labels), (given, expected)):
            voxels = np.argwhere(values == level)
            assert len(voxels), level
            places.append(nib.affines.apply_affine(image.affine, voxels).mean(axis=0))
        assert np.linalg.norm(places[0] - places[1]) < 8
    report = json.loads(
        path.with_name(path.name.replace(".nii.gz", ".json")).read_text()
    )
    assert report["study_uid"] == path.name.removesuffix(".nii.gz")
    assert {level["level"] for level in report["levels"]} == {
        f"C{level}" for level in range(1, 8)
    }
    assert set(report["seconds"]) == {"read", "locate", "segment", "to_slices"}
    assert 0 < report["confidence"] <= 1


@pytest.mark.slow
def test_a_zip_file_is_read_and_a_bad_study_is_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_study(source)
    next((source / "train_images").glob("*/9.dcm")).unlink()
    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for file in source.rglob("*.dcm"):
            target.write(file, file.relative_to(source))
    result = segment(archive, tmp_path / "out")
    assert result.returncode == 1
    assert "left out" in result.stdout
    assert "csfd: No study could be segmented." in result.stderr


def test_an_entry_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("../evil.dcm", b"")
    with pytest.raises(SourceError, match="leaves its folder"), opened(str(archive)):
        pass
    assert not (tmp_path.parent / "evil.dcm").exists()


def test_what_is_no_zip_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no zip")
    with (
        pytest.raises(SourceError, match="as a zip file"),
        opened(str(tmp_path / "a.zip")),
    ):
        pass
