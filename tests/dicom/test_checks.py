"""Each defect of a study has its own code; every good study has none."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, RLELossless
from support.dicom_studies import (
    SLICES,
    STUDY_UID,
    neck_hounsfield,
    save,
    slice_dataset,
    write_study,
)
from support.material import require_material
from support.scans import Damage, codes, scan

from csfd_core.dicom.findings import CATALOGUE, Finding, Status
from csfd_core.ingest.scan import scan_study
from csfd_core.store.source import Source


def change(number: int, edit: Callable[[Dataset], object]) -> Damage:
    """Damage that edits one slice in place."""

    def apply(folder: Path) -> None:
        path = folder / f"{number}.dcm"
        dataset = dcmread(path)
        edit(dataset)
        save(dataset, path)

    return apply


def change_all(edit: Callable[[Dataset], object]) -> Damage:
    def apply(folder: Path) -> None:
        for number in range(1, SLICES + 1):
            change(number, edit)(folder)

    return apply


def setting(**values: object) -> Callable[[Dataset], object]:
    def edit(dataset: Dataset) -> None:
        for keyword, value in values.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)

    return edit


def truncate(number: int, keep: float) -> Damage:
    def apply(folder: Path) -> None:
        path = folder / f"{number}.dcm"
        raw = path.read_bytes()
        path.write_bytes(raw[: int(len(raw) * keep)])

    return apply


def shear(dataset: Dataset) -> None:
    """Move each slice sideways in proportion to z, as a tilted gantry does."""
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x, y + 0.2 * z, z]


def lower_half_closer(dataset: Dataset) -> None:
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x, y, z if z > 80 else 80 - (80 - z) * 0.7]


def smaller_matrix(dataset: Dataset) -> None:
    dataset.Rows = 32
    dataset.PixelData = dataset.PixelData[: 32 * 64 * 2]


def wreck_compressed(folder: Path) -> None:
    path = folder / "7.dcm"
    dataset = dcmread(path)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    save(dataset, path)
    raw = path.read_bytes()
    path.write_bytes(raw[:-400] + bytes(400))


def unknown_syntax(dataset: Dataset) -> None:
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"  # MPEG2


def no_hounsfield(dataset: Dataset) -> None:
    dataset.PixelData = (dataset.pixel_array // 8 + 500).astype(np.int16).tobytes()
    setting(RescaleSlope=None, RescaleIntercept=None)(dataset)


def aside(dataset: Dataset) -> None:
    """Move the middle of the stack to the left; its ends stay on one line."""
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x + (30 if 70 < z < 90 else 0), y, z]


def huge_file(folder: Path) -> None:
    with (folder / "5.dcm").open("r+b") as file:
        file.truncate(300 * 2**20)  # a hole: it takes no place on the disk


DEFECTS: dict[str, Damage] = {
    "empty_file": lambda folder: (folder / "5.dcm").write_bytes(b""),
    "not_dicom": lambda folder: (folder / "5.dcm").write_text("not a slice"),
    "truncated_file": truncate(5, 0.6),
    "study_uid_mismatch": change(5, setting(StudyInstanceUID="1.2.3")),
    "several_series": change(5, setting(SeriesInstanceUID="1.2.3.4")),
    "several_patients": change(5, setting(PatientID="another")),
    "no_pixel_data": change(5, setting(PixelData=None)),
    "pixel_data_length": change(5, setting(PixelData=bytes(1000))),
    "unsupported_pixels": change(5, setting(SamplesPerPixel=3)),
    "undecodable_pixels": wreck_compressed,
    "no_geometry": change(5, setting(ImagePositionPatient=None)),
    "mixed_orientation": change(
        5, setting(ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    ),
    "mixed_matrix_size": change(5, smaller_matrix),
    "mixed_pixel_spacing": change(5, setting(PixelSpacing=[1.0, 1.0])),
    "duplicate_position": change(5, setting(ImagePositionPatient=[-48, -40, 100])),
    "duplicate_sop_uid": change(5, setting(SOPInstanceUID=f"{STUDY_UID}.1.6")),
    "shifted_slices": change_all(aside),
    "file_too_large": huge_file,
    "gantry_tilt": change_all(shear),
    "missing_slices": lambda folder: (folder / "12.dcm").unlink(),
    "uneven_spacing": change_all(lower_half_closer),
    "too_few_slices": lambda folder: [
        (folder / f"{number}.dcm").unlink() for number in range(8, SLICES + 1)
    ],
    "wrong_modality": change_all(setting(Modality="MR")),
    "no_hounsfield": change_all(no_hounsfield),
    "no_rescale": change_all(setting(RescaleSlope=None, RescaleIntercept=None)),
    "first_slices_missing": lambda folder: (folder / "1.dcm").unlink(),
}


@pytest.mark.parametrize("code", DEFECTS)
def test_defect_has_its_code(tmp_path: Path, code: str) -> None:
    folder = write_study(tmp_path)
    DEFECTS[code](folder)
    found = scan(tmp_path)
    assert codes(found)[0] == code
    expected = (
        Status.QUARANTINED
        if CATALOGUE[code].severity == "quarantine"
        else Status.WARNING
    )
    assert found.status is expected
    reason = found.findings[0].reason
    assert CATALOGUE[code].remedy in reason
    assert "Sensitive" not in reason


def test_unusual_bits_are_unsupported(tmp_path: Path) -> None:
    change(5, setting(BitsAllocated=64))(write_study(tmp_path))
    assert codes(scan(tmp_path)) == ["unsupported_pixels"]


def test_files_of_the_same_name_in_subfolders_are_told_apart(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    for number in range(1, SLICES + 1):
        half = folder / ("a" if number <= 12 else "b")
        half.mkdir(exist_ok=True)
        (folder / f"{number}.dcm").rename(half / f"{(number - 1) % 12 + 1}.dcm")
    found = scan(tmp_path)
    assert found.findings == ()
    assert len({header.file_name for header in found.headers}) == SLICES


def test_unknown_compression_is_undecodable(tmp_path: Path) -> None:
    change(5, unknown_syntax)(write_study(tmp_path))
    assert codes(scan(tmp_path)) == ["undecodable_pixels"]


def test_every_code_of_the_slices_is_planted_here() -> None:
    elsewhere = {
        "unreadable",
        "odd_uid",
        "invalid_uid",
        "no_dicom",
        "not_axial",
        "contradictory_labels",
        "mask_unreadable",
        "mask_shape",
        "mask_labels",
        "mask_misaligned",
    }
    assert set(DEFECTS) | elsewhere == set(CATALOGUE)


def test_good_study_has_no_finding(tmp_path: Path) -> None:
    write_study(tmp_path)
    found = scan(tmp_path)
    assert (found.status, found.findings, found.notes) == (Status.GOOD, (), ())


def test_folder_that_is_no_uid_is_quarantined_unread(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    folder.rename(folder.with_name("01.2.x"))
    found = scan(tmp_path)
    assert codes(found) == ["invalid_uid"]
    assert found.headers == ()


def test_folder_without_dicom_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "train_images" / STUDY_UID
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("nothing here")
    assert codes(scan(tmp_path)) == ["no_dicom"]


def test_empty_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "train_images" / STUDY_UID).mkdir(parents=True)
    assert codes(scan(tmp_path)) == ["no_dicom"]


def test_sagittal_series_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "train_images" / STUDY_UID
    for index, plane in enumerate(neck_hounsfield()):
        dataset = slice_dataset(plane, index + 1, 0.0)
        dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        dataset.ImagePositionPatient = [2.0 * index, -40, 100]
        save(dataset, folder / f"{index + 1}.dcm")
    assert codes(scan(tmp_path)) == ["not_axial"]


def test_stray_files_are_ignored_with_a_note(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    (folder / "Thumbs.db").write_bytes(b"\x00\x01")
    (folder / ".DS_Store").write_bytes(b"x")
    report = Dataset()
    source = dcmread(folder / "1.dcm")
    report.file_meta = source.file_meta
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    report.SOPInstanceUID = "1.2.3.4"
    report.Modality = "SR"
    save(report, folder / "report.dcm")
    found = scan(tmp_path)
    assert found.status is Status.GOOD
    assert found.notes == (
        "1 stray file ignored (hidden)",
        "1 stray file ignored (non-image DICOM)",
        "1 stray file ignored (not DICOM)",
    )
    assert len(found.headers) == SLICES


def test_slices_are_ordered_by_position_not_by_name(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    rng = np.random.default_rng(1)
    for number, other in enumerate(rng.permutation(SLICES) + 1):
        (folder / f"{number + 1}.dcm").rename(folder / f"x{other}.dcm")
    found = scan(tmp_path)
    positions = [
        header.position_mm[2] for header in found.headers if header.position_mm
    ]
    assert positions == sorted(positions, reverse=True)
    assert [header.instance_number for header in found.headers] == list(
        range(1, SLICES + 1)
    )


@pytest.mark.parametrize("z_descending", [True, False])
def test_direction_of_z_is_told_and_does_not_change_the_order(
    tmp_path: Path, z_descending: bool
) -> None:
    write_study(tmp_path, z_descending=z_descending)
    found = scan(tmp_path)
    assert found.geometry is not None
    assert found.geometry.z_descending is z_descending
    assert found.geometry.affine()[:3, 3].tolist() == [-48.0, -40.0, 100.0]


def test_affine_maps_voxels_as_the_standard_says(tmp_path: Path) -> None:
    """PS3.3 C.7.6.2.1.1 applied to single headers, for an oblique series."""
    cosine, sine = np.cos(0.2), np.sin(0.2)
    normal = np.array([0, -sine, cosine])

    def oblique(dataset: Dataset) -> None:
        distance = 100.0 - dataset.ImagePositionPatient[2]
        origin = np.array([-48.0, -40.0, 100.0]) - distance * normal
        dataset.ImagePositionPatient = [round(float(v), 6) for v in origin]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, float(cosine), float(sine)]
        dataset.PixelSpacing = [1.5, 1.25]

    write_study(tmp_path, edit=oblique)
    found = scan(tmp_path)
    assert found.findings == ()
    assert found.geometry is not None
    for index in (0, 7, SLICES - 1):
        header = found.headers[index]
        along_row, along_column = np.reshape(header.orientation or (), (2, 3))
        row, column = 11, 29
        expected = (
            np.array(header.position_mm)
            + along_row * column * 1.25
            + along_column * row * 1.5
        )
        mapped = found.geometry.affine() @ [index, row, column, 1]
        np.testing.assert_allclose(mapped[:3], expected, atol=1e-4)


def test_findings_outside_the_catalogue_are_refused() -> None:
    with pytest.raises(ValueError, match="'bad_luck'"):
        Finding("bad_luck", "It rained.")


@pytest.mark.parametrize(
    ("series", "code"),
    [
        ("gantrytilting/001", "gantry_tilt"),
        ("notavolume/001", "duplicate_position"),
        ("slicecount/001", "too_few_slices"),
        ("sliceincrement/001", "uneven_spacing"),
        ("sliceincrement/002", "missing_slices"),
        ("sliceorientation/001", "mixed_orientation"),
    ],
)
def test_real_failing_series_has_its_code(
    tmp_path: Path, series: str, code: str
) -> None:
    folder = require_material("difficult_dicom", "failing_series", *series.split("/"))
    shutil.copytree(folder, tmp_path / "series")
    found = scan(tmp_path)
    assert code in codes(found)
    assert found.status is Status.QUARANTINED


def test_real_tilted_head_is_quarantined_as_tilted() -> None:
    folder = require_material("head_ct_tilted")
    (study,) = Source(folder).studies()
    (found,) = scan_study(study)
    assert codes(found) == ["gantry_tilt", "uneven_spacing"]
    assert "sheared by 18.5 degrees" in found.findings[0].reason
