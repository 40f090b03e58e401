"""The written folder: DICOM, masks, tables, determinism and safety."""

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.pixels import pixel_array
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from typer.testing import CliRunner

from csfd_core.cli.main import app
from csfd_core.errors import SettingsError
from csfd_core.phantom.config import GridOverride, PhantomConfig
from csfd_core.phantom.dicom_writer import PixelStyle, write_dicom_series
from csfd_core.phantom.mask_writer import orient_mask
from csfd_core.phantom.source import write_phantom_source
from csfd_core.phantom.volume import build_phantom_volume
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES

CONFIG = PhantomConfig(studies=5, seed=2, boxed_share=1.0)
SMALL = GridOverride(shape_zyx=(9, 40, 44), spacing_zyx_mm=(5.0, 3.5, 3.0))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom") / "source"
    return out, write_phantom_source(out, CONFIG)


def files_of(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file()
    }


def read_table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_series(folder):
    slices = [pydicom.dcmread(p) for p in folder.glob("*.dcm")]
    return sorted(slices, key=lambda ds: ds.InstanceNumber)


@pytest.mark.slow
def test_two_folders_of_one_seed_are_equal_byte_for_byte(written, tmp_path):
    out, _ = written
    with ThreadPoolExecutor(2) as executor:
        write_phantom_source(tmp_path / "again", CONFIG, executor=executor)
    first, second = files_of(out), files_of(tmp_path / "again")
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


@pytest.mark.slow
def test_fewer_studies_are_the_first_of_more_and_more_are_added(written, tmp_path):
    out, studies = written
    some = write_phantom_source(tmp_path / "few", replace(CONFIG, studies=2))
    assert some == studies[:2]
    seen = {
        p: p.stat().st_mtime_ns for p in (tmp_path / "few/train_images").rglob("*.dcm")
    }
    reported = []
    write_phantom_source(
        tmp_path / "few", replace(CONFIG, studies=3), on_study=reported.append
    )
    assert reported == studies[:3]
    assert all(p.stat().st_mtime_ns == at for p, at in seen.items())
    assert len(list((tmp_path / "few/train_images").iterdir())) == 3
    full = files_of(out)
    for name, content in files_of(tmp_path / "few").items():
        if not name.endswith(".csv"):
            assert full[name] == content


def test_an_unfinished_study_is_written_again(written, tmp_path):
    out, studies = written
    config = replace(CONFIG, studies=1)
    write_phantom_source(tmp_path / "a", config)
    (tmp_path / "a/.phantom/0.json").unlink()
    victim = tmp_path / "a/train_images" / studies[0].study_uid / "3.dcm"
    victim.unlink()
    write_phantom_source(tmp_path / "a", config)
    original = out / "train_images" / studies[0].study_uid / "3.dcm"
    assert victim.read_bytes() == original.read_bytes()
    assert list((tmp_path / "a/.phantom").glob("partial*")) == []


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(SettingsError, match="not empty and holds no phantom.json"):
        write_phantom_source(tmp_path, CONFIG)
    assert files_of(tmp_path) == {"mine.txt": b"precious"}


def test_a_folder_of_another_seed_is_refused(written):
    out, _ = written
    before = (out / "train.csv").read_bytes()
    with pytest.raises(SettingsError, match="seed: 2 there, 3 asked"):
        write_phantom_source(out, replace(CONFIG, seed=3))
    assert (out / "train.csv").read_bytes() == before


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(SettingsError, match="is a file"):
        write_phantom_source(tmp_path / "x", CONFIG)


def test_the_label_table_lists_each_study_with_its_labels(written):
    out, studies = written
    rows = read_table(out / "train.csv")
    assert list(rows[0]) == ["StudyInstanceUID", *LABEL_COLUMNS]
    assert [row["StudyInstanceUID"] for row in rows] == [s.study_uid for s in studies]
    for row, study in zip(rows, studies, strict=True):
        levels = [int(row[name]) for name in LEVEL_NAMES]
        assert int(row["patient_overall"]) == max(levels)
        assert {n for n in LEVEL_NAMES if row[n] == "1"} == set(study.fractures)


def test_boxes_name_written_instances_of_fractured_studies(written):
    out, studies = written
    rows = read_table(out / "train_bounding_boxes.csv")
    by_uid = {s.study_uid: s for s in studies}
    assert {r["StudyInstanceUID"] for r in rows} == {
        s.study_uid for s in studies if s.labels["patient_overall"]
    }
    assert rows
    for row in rows:
        uid, number = row["StudyInstanceUID"], int(row["slice_number"])
        ds = pydicom.dcmread(out / "train_images" / uid / f"{number}.dcm")
        assert ds.InstanceNumber == number <= by_uid[uid].slice_count
        assert 0 <= float(row["x"]) < ds.Columns
        assert 0 <= float(row["y"]) < ds.Rows
        assert float(row["width"]) > 0
        assert float(row["height"]) > 0


def test_the_dicom_files_hold_the_volume_and_its_geometry(written):
    out, studies = written
    study = studies[1]
    volume = build_phantom_volume(CONFIG, 1)
    series = read_series(out / "train_images" / study.study_uid)
    assert [ds.InstanceNumber for ds in series] == list(range(1, study.slice_count + 1))
    assert len({ds.SOPInstanceUID for ds in series}) == len(series)
    for k, ds in enumerate(series):
        values = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        seen = ds.pixel_array != ds.get("PixelPaddingValue", 99_999)
        np.testing.assert_array_equal(values[seen], volume.hounsfield[k][seen])
        assert seen.mean() > 0.7
        np.testing.assert_allclose(ds.ImagePositionPatient, volume.position_of(k))
        assert [float(v) for v in ds.PixelSpacing] == list(volume.spacing_zyx_mm[1:])
        assert ds.StudyInstanceUID == study.study_uid
        assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    steps = np.diff([float(ds.ImagePositionPatient[2]) for ds in series])
    np.testing.assert_allclose(np.abs(steps), volume.spacing_zyx_mm[0], atol=1e-3)
    for keyword in ("Manufacturer", "ConvolutionKernel", "KVP", "PatientSex"):
        assert keyword not in series[0]


@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        JPEGLosslessSV1,
        JPEG2000Lossless,
        RLELossless,
        JPEGLSLossless,
    ],
)
@pytest.mark.parametrize(
    ("signed", "bits", "intercept", "padded"),
    [(True, 16, 0, False), (True, 16, -1024, True), (False, 12, -1024, False)],
)
def test_pixels_survive_every_transfer_syntax(
    tmp_path, syntax, signed, bits, intercept, padded
):
    volume = build_phantom_volume(CONFIG, 0, grid=SMALL)
    style = PixelStyle(syntax, signed, bits, intercept, padded)
    write_dicom_series(volume, style, tmp_path)
    ds = pydicom.dcmread(tmp_path / "5.dcm")
    assert ds.file_meta.TransferSyntaxUID == syntax
    stored = pixel_array(ds).astype(int)
    seen = stored != -2000
    assert seen.all() != padded
    np.testing.assert_array_equal(stored[seen] + intercept, volume.hounsfield[4][seen])


@pytest.mark.parametrize("z_falling", [True, False])
@pytest.mark.parametrize("orientation", ["LAS", "PIR", "RSA"])
def test_a_mask_lies_on_the_voxels_of_the_volume(orientation, z_falling):
    grid = replace(SMALL, z_falling=z_falling)
    volume = build_phantom_volume(CONFIG, 0, grid=grid)
    data, affine = orient_mask(volume, orientation)
    assert "".join(nib.aff2axcodes(affine)) == orientation
    voxels = np.argwhere(data)
    assert len(voxels) == np.count_nonzero(volume.mask) > 100
    lps = nib.affines.apply_affine(affine, voxels) * (-1, -1, 1)
    gap, row_mm, column_mm = volume.spacing_zyx_mm
    steps = (column_mm, row_mm, volume.z_step_mm)
    column, row, k = np.rint((lps - volume.first_position_mm) / steps).astype(int).T
    np.testing.assert_array_equal(volume.mask[k, row, column], data[tuple(voxels.T)])


def test_masks_are_stored_for_the_masked_studies_as_bytes(written):
    out, studies = written
    names = {p.name for p in (out / "segmentations").iterdir()}
    assert names == {f"{s.study_uid}.nii" for s in studies if s.has_mask}
    assert 0 < len(names) < len(studies)
    masked = next(s for s in studies if s.has_mask)
    image = nib.load(out / "segmentations" / f"{masked.study_uid}.nii")
    assert image.get_data_dtype() == np.uint8
    assert "".join(nib.aff2axcodes(image.affine)) == "LAS"
    volume = build_phantom_volume(CONFIG, masked.index)
    counts = np.bincount(np.asarray(image.dataobj).ravel(), minlength=12)
    np.testing.assert_array_equal(
        counts, np.bincount(volume.mask.ravel(), minlength=12)
    )
    assert (counts[1:8] > 0).all()


def test_the_settings_are_recorded(written):
    out, _ = written
    settings = json.loads((out / "phantom.json").read_text())
    assert settings["seed"] == 2
    assert settings["profile"] == "demo"
    assert "studies" not in settings


def test_folders_of_version_1_name_no_version_and_take_no_other(tmp_path):
    """As csfd 0.2 wrote them, so that it can add studies to them."""
    out = tmp_path / "old"
    write_phantom_source(out, PhantomConfig(studies=0, seed=2, version=1))
    settings = json.loads((out / "phantom.json").read_text())
    assert not {"version", "foreign"} & settings.keys()
    with pytest.raises(SettingsError, match="version: None there, 2 asked"):
        write_phantom_source(out, PhantomConfig(studies=0, seed=2))
    new = tmp_path / "new"
    write_phantom_source(new, PhantomConfig(studies=0, seed=2))
    with pytest.raises(SettingsError, match="foreign: False there, True asked"):
        write_phantom_source(new, PhantomConfig(studies=0, seed=2, foreign=True))


def test_version_1_has_no_foreign_necks(tmp_path):
    call = ["phantom", str(tmp_path / "out"), "--foreign", "--phantom-version", "1"]
    result = CliRunner().invoke(app, call, env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert "only version 2 draws foreign necks. Received version 1." in result.output
    assert not (tmp_path / "out").exists()
