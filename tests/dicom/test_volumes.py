"""Which images of a study are read as its volume, and what is said of the others."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from support.dicom_studies import (
    SLICE_MM,
    SLICES,
    STUDY_UID,
    Edit,
    add_series,
    neck_hounsfield,
    neck_mask,
    save,
    volume_affine_ras,
    write_mask,
    write_study,
)
from support.scans import codes, scan

from csfd_core.dicom.findings import Status
from csfd_core.ingest.scan import scan_study
from csfd_core.store.source import Source

NECK = neck_hounsfield()


def setting(**values: object) -> Edit:
    def edit(dataset: Dataset) -> None:
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return edit


def to_colour(dataset: Dataset) -> None:
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"  # secondary capture
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.PixelData = bytes(64 * 64 * 6)
    del dataset.ImagePositionPatient


def to_dose(dataset: Dataset) -> None:
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.2"
    dataset.Modality = "RTDOSE"
    dataset.NumberOfFrames = 3
    dataset.PixelData = bytes(64 * 64 * 6)


def sagittal(dataset: Dataset) -> None:
    dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]


@pytest.mark.parametrize(
    ("edit", "kind"),
    [
        (setting(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer"),
        (to_colour, "colour or multi-frame image"),
        (to_dose, "non-CT image"),
        (setting(Modality="MR"), "non-CT image"),
        (sagittal, "slice of another series"),
    ],
)
def test_what_is_no_slice_of_the_volume_is_set_aside_with_a_note(
    tmp_path: Path, edit: Edit, kind: str
) -> None:
    add_series(write_study(tmp_path), "9", every=30, edit=edit)
    found = scan(tmp_path)
    assert found.status is Status.GOOD
    assert len(found.headers) == SLICES
    assert found.notes == (f"Set aside, as no slices of the volume: 1 x {kind}.",)


def test_a_localizer_in_the_series_of_the_slices_is_set_aside(tmp_path: Path) -> None:
    def scout(dataset: Dataset) -> None:
        dataset.SeriesInstanceUID = f"{STUDY_UID}.1"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    add_series(write_study(tmp_path), "9", every=30, edit=scout)
    assert scan(tmp_path).status is Status.GOOD


def test_content_is_that_of_the_volume_alone(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    alone = scan(tmp_path).content_hash
    add_series(folder, "9", every=30, edit=to_colour)
    assert scan(tmp_path).content_hash == alone


def test_copies_are_left_out(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    for number in (3, 4):
        raw = (folder / f"{number}.dcm").read_bytes()
        (folder / f"again-{number}.dcm").write_bytes(raw)
    found = scan(tmp_path)
    assert (found.status, len(found.headers)) == (Status.GOOD, SLICES)
    assert found.notes == ("2 copies of slices left out.",)


@pytest.mark.parametrize("values", [{"InstanceNumber": 77}, {"RescaleIntercept": -1}])
def test_one_instance_with_two_contents_is_no_copy(
    tmp_path: Path, values: dict[str, object]
) -> None:
    folder = write_study(tmp_path)
    dataset = dcmread(folder / "3.dcm")
    setting(**values)(dataset)
    save(dataset, folder / "again.dcm")
    assert "duplicate_sop_uid" in codes(scan(tmp_path))


def test_the_thinnest_volume_that_covers_the_neck_is_read_and_told(
    tmp_path: Path,
) -> None:
    folder = write_study(tmp_path)
    add_series(folder, "8", every=2, slices=SLICES)
    found = scan(tmp_path)
    assert (found.status, len(found.headers)) == (Status.GOOD, SLICES)
    (note,) = found.notes
    assert "2 axial volumes" in note
    assert "24 slices, 2 mm apart is read" in note
    assert "Not read: 12 slices, 4 mm apart" in note


def test_a_thin_volume_of_a_part_does_not_count(tmp_path: Path) -> None:
    def thinner(dataset: Dataset) -> None:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, 90 + (z - 90) / 4]

    add_series(write_study(tmp_path), "9", edit=thinner, slices=12)
    found = scan(tmp_path)
    assert len(found.headers) == SLICES
    assert "Not read: 12 slices, 0.5 mm apart" in found.notes[0]


def test_every_volume_is_scanned_where_that_is_asked_for(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    add_series(folder, "8", every=2, slices=SLICES)
    add_series(folder, "9", edit=setting(ConvolutionKernel="B70s"))
    (study,) = Source(tmp_path).studies()
    found = scan_study(study, every_volume=True)
    assert [one.volume for one in found] == [1, 2, 3]
    assert [one.name for one in found] == [
        STUDY_UID, f"{STUDY_UID}-2", f"{STUDY_UID}-3",
    ]  # fmt: skip
    assert [len(one.headers) for one in found] == [SLICES, SLICES, SLICES // 2]
    assert len({header.series_uid for one in found for header in one.headers}) == 3
    assert found[2].notes[0].startswith("A further axial volume of the study: 12")
    assert "with a bone kernel" in found[0].notes[0]
    (alone,) = scan_study(study)
    assert (alone.headers, alone.notes) == (found[0].headers, found[0].notes)


def add_volumes(folder: Path) -> None:
    """Add a coarse volume, and in the series of the slices one of a sharp kernel."""
    sharp = setting(SeriesInstanceUID=f"{STUDY_UID}.1", ConvolutionKernel="B70s")
    add_series(folder, "8", every=2)
    add_series(folder, "9", edit=sharp)


@pytest.mark.parametrize(
    ("chosen", "number", "step", "why"),
    [
        (f"{STUDY_UID}.9.5", 1, 2.0, "a reader has chosen it, with a bone kernel"),
        (f"{STUDY_UID}.1.24", 2, 2.0, "a reader has chosen it"),
        (f"{STUDY_UID}.8.3", 3, 4.0, "a reader has chosen it"),
        ("1.2.3", 1, 2.0, "the thinnest that covers the neck, with a bone kernel"),
        ("../../x", 1, 2.0, "the thinnest that covers the neck, with a bone kernel"),
    ],
)
def test_the_volume_of_the_chosen_slice_is_read_and_told(
    tmp_path: Path, chosen: str, number: int, step: float, why: str
) -> None:
    add_volumes(write_study(tmp_path))
    (study,) = Source(tmp_path).studies()
    (by_default,) = scan_study(study)
    (found,) = scan_study(replace(study, chosen_slice=chosen))
    assert (found.status, found.volume) == (Status.GOOD, number)
    assert found.geometry is not None
    assert found.geometry.spacing_zyx_mm[0] == pytest.approx(step)
    assert (chosen in {h.sop_uid for h in found.headers}) is ("reader" in why)
    assert f"is read: {why}. Not read: " in " ".join(found.notes)
    is_told = "The volume that a reader has chosen is not among the images."
    assert (is_told in found.notes) is ("reader" not in why)
    assert (found.content_hash == by_default.content_hash) is (number == 1)


def test_volumes_are_told_apart_by_numbers_and_a_slice_of_their_own(
    tmp_path: Path,
) -> None:
    folder = write_study(tmp_path)
    add_volumes(folder)
    for number in (8, 14):  # of the coarse volume: some slices are lost
        (folder / f"8-{number + 1}.dcm").unlink()
    found = scan(tmp_path).volumes
    assert [(one.slice_count, one.step_mm, one.extent_mm) for one in found] == [
        (24, 2.0, 46.0), (24, 2.0, 46.0), (10, 4.0, 44.0),
    ]  # fmt: skip
    assert [one.is_bone_kernel for one in found] == [True, False, False]
    assert [one.is_usable for one in found] == [True, True, False]
    assert [one.thickness_mm for one in found] == [SLICE_MM] * 3
    slices = [f"{STUDY_UID}.{name}" for name in ("9.1", "1.1", "8.1")]
    assert [one.slice_uid for one in found] == slices
    for path in [folder / f"{number}.dcm" for number in range(1, SLICES + 1)]:
        path.unlink()
    for path in folder.glob("8-*.dcm"):
        path.unlink()
    assert scan(tmp_path).volumes == ()  # nothing to choose from


def test_a_volume_without_a_slice_of_its_own_cannot_be_named(tmp_path: Path) -> None:
    folder = write_study(tmp_path, edit=setting(SOPInstanceUID="1.2.3"))
    add_series(folder, "9", edit=setting(SOPInstanceUID="1.2.3"))
    assert [one.slice_uid for one in scan(tmp_path).volumes] == [None, None]


def test_the_mask_of_the_source_is_that_of_the_volume_read_by_default(
    tmp_path: Path,
) -> None:
    add_series(write_study(tmp_path), "8", every=2)
    write_mask(tmp_path, neck_mask(), volume_affine_ras())
    (study,) = Source(tmp_path).studies()
    (first,) = scan_study(study)
    (other,) = scan_study(replace(study, chosen_slice=f"{STUDY_UID}.8.1"))
    assert first.mask_hash is not None
    assert (other.mask_hash, codes(other)) == (None, [])


@pytest.mark.parametrize(
    ("kernel", "taken"),
    [
        ("BONEPLUS", True), ("B70s", True), ("Br64", True), ("FC30", True),
        ("STANDARD", False), ("B30s", False), ("Br40", False), ("FC08", False),
    ],
)  # fmt: skip
def test_of_equal_volumes_that_with_a_bone_kernel_is_read(
    tmp_path: Path, kernel: str, taken: bool
) -> None:
    folder = write_study(tmp_path, edit=setting(ConvolutionKernel="H31s"))
    # Its UID sorts behind that of the other series.
    add_series(folder, "9", edit=setting(ConvolutionKernel=kernel))
    (series,) = {header.series_uid for header in scan(tmp_path).headers}
    assert (series == f"{STUDY_UID}.9") is taken


def test_kernels_in_one_series_are_not_mixed(tmp_path: Path) -> None:
    folder = write_study(tmp_path, edit=setting(ConvolutionKernel="B30s"))
    same = setting(SeriesInstanceUID=f"{STUDY_UID}.1", ConvolutionKernel="B70s")
    add_series(folder, "9", edit=same)
    found = scan(tmp_path)
    assert (found.status, len(found.headers)) == (Status.GOOD, SLICES)
    assert all(header.is_bone_kernel for header in found.headers)


@pytest.mark.parametrize("number", [None, 2])
def test_passes_that_lie_between_each_other_are_not_mixed(
    tmp_path: Path, number: int | None
) -> None:
    """Every second slice is of another pass, half a step off: the stack looks even."""

    def second(dataset: Dataset) -> None:
        x, y, z = dataset.ImagePositionPatient
        dataset.SeriesInstanceUID = f"{STUDY_UID}.1"
        dataset.ImagePositionPatient = [x, y, z - SLICE_MM / 2]
        dataset.AcquisitionNumber = number or 1

    folder = write_study(tmp_path, edit=setting(AcquisitionNumber=1))
    add_series(folder, "9", edit=second)
    found = scan(tmp_path)
    assert len(found.headers) == (SLICES if number else 2 * SLICES)


@pytest.mark.parametrize(
    "is_other",
    [lambda n: n == 5, lambda n: n % 2 == 0, lambda n: n > 12, lambda n: n % 3 == 0],
    ids=["one slice", "every second", "the lower half", "every third"],
)
def test_one_volume_that_names_several_series_is_not_cut(
    tmp_path: Path, is_other: Callable[[int], bool]
) -> None:
    folder = write_study(tmp_path)
    for number in filter(is_other, range(1, SLICES + 1)):
        dataset = dcmread(folder / f"{number}.dcm")
        dataset.SeriesInstanceUID = "1.2.3.4"
        save(dataset, folder / f"{number}.dcm")
    found = scan(tmp_path)
    assert codes(found)[0] == "several_series"
    assert len(found.headers) == SLICES


def test_images_of_two_patients_are_not_chosen_from(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    add_series(folder, "8", every=2, edit=setting(PatientID="another"))
    assert "several_patients" in codes(scan(tmp_path))


def test_a_series_with_a_defect_comes_after_a_whole_one(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    add_series(folder, "8", every=2)
    for number in (12, 13):
        (folder / f"{number}.dcm").unlink()
    found = scan(tmp_path)
    assert found.status is Status.GOOD
    assert len(found.headers) == SLICES // 2


def test_positions_with_one_decimal_are_even(tmp_path: Path) -> None:
    def rounded(dataset: Dataset) -> None:
        x, y, _ = dataset.ImagePositionPatient
        z = round(100 - 0.625 * (dataset.InstanceNumber - 1), 1)
        dataset.ImagePositionPatient = [x, y, z]

    write_study(tmp_path, edit=rounded)
    found = scan(tmp_path)
    assert found.status is Status.GOOD
    assert found.geometry is not None
    assert found.geometry.spacing_zyx_mm[0] == pytest.approx(0.625, abs=1e-3)


def test_gaps_that_add_up_are_uneven(tmp_path: Path) -> None:
    """Each gap is within a tenth of the others, the places drift by millimetres."""

    def drifting(dataset: Dataset) -> None:
        x, y, _ = dataset.ImagePositionPatient
        number = dataset.InstanceNumber - 1
        z = 100 - 2.0 * number - 0.18 * max(0, number - 12)
        dataset.ImagePositionPatient = [x, y, z]

    write_study(tmp_path, edit=drifting)
    assert codes(scan(tmp_path)) == ["uneven_spacing"]


@pytest.mark.parametrize(("degrees", "is_good"), [(0.1, True), (2.0, False)])
def test_directions_may_tremble(tmp_path: Path, degrees: float, is_good: bool) -> None:
    def turned(dataset: Dataset) -> None:
        angle = np.radians(degrees) * (-1) ** dataset.InstanceNumber
        cosine, sine = float(np.cos(angle)), float(np.sin(angle))
        dataset.ImageOrientationPatient = [cosine, sine, 0, -sine, cosine, 0]

    write_study(tmp_path, edit=turned)
    assert (codes(scan(tmp_path)) == []) is is_good


@pytest.mark.parametrize(
    "values",
    [
        {"PixelSpacing": [1e300, 1e300]},
        {"ImagePositionPatient": [0, 0, 1e308]},
        {"PixelSpacing": [1e-30, 1]},
        {"ImageOrientationPatient": [1e200, 0, 0, 0, 1, 0]},
    ],
)
def test_numbers_that_cannot_be_true_are_no_geometry(
    tmp_path: Path, values: dict[str, object]
) -> None:
    def wrong(dataset: Dataset) -> None:
        if dataset.InstanceNumber == 5:
            setting(**values)(dataset)

    write_study(tmp_path, edit=wrong)
    assert codes(scan(tmp_path)) == ["no_geometry"]


@pytest.mark.parametrize("number", [10**30, 2**63, -(2**40)])
def test_an_instance_number_beyond_any_is_none(tmp_path: Path, number: int) -> None:
    def wrong(dataset: Dataset) -> None:
        element = dataset["InstanceNumber"]
        element.VR = "DS"
        element.value = str(number)[:16]
        element.VR = "IS"

    def write(dataset: Dataset) -> None:
        if dataset.InstanceNumber == 5:
            wrong(dataset)

    write_study(tmp_path, edit=write)
    numbers = [header.instance_number for header in scan(tmp_path).headers]
    assert [place for place, n in enumerate(numbers) if n is None] == [4]
