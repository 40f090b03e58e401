"""No text of a patient survives; one patient stays one."""

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from support.deid_slices import OTHER, SECRET, read, slice_of, with_raw, written
from support.dicom_studies import write_study
from support.scans import scan

from csfd_core.deid.attributes import RETAINED
from csfd_core.deid.deidentify import deidentify
from csfd_core.deid.identities import reference_digest
from csfd_core.deid.refusals import RefusedError
from csfd_core.dicom.headers import read_slice_header
from csfd_core.evaluation.folds import fold_of, is_test, key_of
from csfd_core.ingest.patients import private_headers, read_secret
from csfd_core.settings import Settings

PLANTED = [f"PLANTED{index:02d}X" for index in range(48)]


def forms(text: str) -> list[bytes]:
    return [text.encode(), text.encode("utf-16-le"), text.encode("utf-16-be")]


def left_of(content: bytes, texts: list[str]) -> list[str]:
    upper = content.upper()
    return [t for t in texts if any(form in upper for form in forms(t))]


def plant(dataset: Dataset) -> bytes:
    """Put every planted text somewhere else; return the file."""
    marks = iter(PLANTED)
    nested = Dataset()
    nested.PatientName = f"{next(marks)}^{next(marks)}"
    nested.OtherPatientIDs = next(marks)
    deeper = Dataset()
    deeper.ReferringPhysicianName = next(marks)
    deeper.add_new(0x00091001, "LO", next(marks))
    nested.ReferencedStudySequence = Sequence([deeper])
    dataset.RequestAttributesSequence = Sequence([nested])
    for keyword in (
        "PatientName", "PatientID", "IssuerOfPatientID", "PatientAddress",
        "PatientComments", "AccessionNumber", "StudyID", "StudyDescription",
        "SeriesDescription", "ProtocolName", "InstitutionName", "InstitutionAddress",
        "OperatorsName", "PerformingPhysicianName", "StationName", "DeviceSerialNumber",
        "ManufacturerModelName", "SoftwareVersions", "ImageComments", "Manufacturer",
        "ConvolutionKernel", "FilterType", "RescaleType", "ContrastBolusAgent",
    ):  # fmt: skip
        setattr(dataset, keyword, next(marks))
    for tag, vr in (
        (0x00080008, "CS"), (0x00185100, "CS"), (0x00180015, "CS"), (0x00180022, "CS"),
        (0x00282110, "CS"), (0x00281056, "CS"), (0x60000022, "LO"), (0x50000022, "LO"),
        (0x00110010, "LO"), (0x00111010, "UN"), (0x00200052, "UI"), (0x0020000E, "UI"),
    ):  # fmt: skip
        text = next(marks)
        value = text.encode() if vr == "UN" else text
        dataset[tag] = DataElement(tag, vr, value, validation_mode=0)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", dataset.ImageType]
    meta = dataset.file_meta
    meta.SourceApplicationEntityTitle = next(marks)
    meta.ImplementationVersionName = next(marks)
    meta.PrivateInformationCreatorUID = "1.2.3"
    meta.PrivateInformation = next(marks).encode()
    dataset.preamble = next(marks).encode().ljust(128, b"\0")
    dataset.PixelData += next(marks).encode() + b"\0"
    dataset.DataSetTrailingPadding = next(marks).encode()
    raw = written(dataset)
    assert left_of(raw, PLANTED[:46]) == PLANTED[:46]
    return raw


def test_no_planted_text_survives() -> None:
    dataset = slice_of()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientBirthDate, dataset.StudyDate = "19561224", "20260131"
    result = deidentify(plant(dataset), SECRET)
    assert left_of(result.content, PLANTED) == []
    for date in (b"19561224", b"20260131", b"Sensitive"):
        assert date not in result.content
    assert not any(left_of(ref.encode(), PLANTED) for ref in result.references)


@pytest.mark.parametrize("tag", sorted(RETAINED))
def test_a_text_in_any_kept_element_does_not_survive(tag: int) -> None:
    """Raw bytes of a name, whatever the VR promises, in place of the value."""
    for text in (b"MEIER^HANS", b"\xff\xfeM\0E\0I\0E\0R\0"):
        raw = with_raw(tag, RETAINED[tag].vr, text)
        assert text in raw
        try:
            content = deidentify(raw, SECRET).content
        except RefusedError:
            continue
        assert text not in content


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 192", "山田^太郎"),
        ("ISO_IR 144", "Иван"),
        (["ISO 2022 IR 6", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
        ("GB18030", "王^小东"),
    ],
)
def test_names_of_other_scripts_do_not_survive(
    charset: str | list[str], name: str
) -> None:
    dataset = slice_of()
    dataset.SpecificCharacterSet = charset
    dataset.PatientName = name
    dataset.PatientID = name
    raw = written(dataset)
    held = dcmread(io.BytesIO(raw)).get_item("PatientID").value.strip()
    assert held in raw
    result = deidentify(raw, SECRET)
    assert held not in result.content
    assert reference_digest(f" {name.lower()}", SECRET) in result.references


def test_texts_in_numbers_and_identifiers_do_not_survive() -> None:
    for tag, vr, text in (
        (0x00200013, b"IS", b"12 MEIER"),
        (0x00180050, b"DS", b"MEIER"),
        (0x00200032, b"DS", b"1\\2\\MEIER"),
        (0x00281050, b"DS", b"19561224"),
        (0x00200013, b"IS", b"19561224"),
        (0x00180060, b"DS", b"nan "),
        (0x00180060, b"DS", b"0x12"),
        (0x00080018, b"UI", b"1.2.MEIER"),
        (0x0020000E, b"UI", b"1.2.MEIER"),
    ):
        result = deidentify(with_raw(tag, vr, text), SECRET)
        assert text not in result.content
        assert vr == b"UI" or tag not in read(result)


def test_what_is_written_says_so_and_names_a_study_by_keyed_uids() -> None:
    dataset = slice_of()
    result = deidentify(written(dataset), SECRET)
    after = read(result)
    assert after.PatientIdentityRemoved == "YES"
    (profile,) = after.DeidentificationMethodCodeSequence
    assert (profile.CodeValue, profile.CodingSchemeDesignator) == ("113100", "DCM")
    assert after.PatientSex == after.PatientName == after.StudyDate == ""
    uids = (after.StudyInstanceUID, after.SeriesInstanceUID, after.SOPInstanceUID)
    assert all(uid.startswith("2.25.") and uid.is_valid for uid in uids)
    assert after.FrameOfReferenceUID.startswith("2.25.")
    assert len({*uids, after.FrameOfReferenceUID}) == 4
    assert (result.study_uid, result.sop_uid) == (uids[0], uids[2])
    assert after.file_meta.MediaStorageSOPInstanceUID == result.sop_uid
    assert result == deidentify(written(dataset), SECRET)
    assert result.study_uid != deidentify(written(dataset), OTHER).study_uid
    assert result.study_uid == deidentify(written(slice_of(2)), SECRET).study_uid


@pytest.mark.parametrize("known", ["ACC-77", "acc-77 ", "1.2.826.0.1.3680043.11"])
def test_a_study_is_found_by_what_a_reader_knows(known: str) -> None:
    result = deidentify(written(slice_of()), SECRET)
    assert reference_digest(known, SECRET) in result.references
    assert reference_digest(known, OTHER) not in result.references
    assert reference_digest("ACC-7", SECRET) not in result.references


def key_in_store(raw: bytes) -> str | None:
    header = read_slice_header(raw, "1.dcm")
    assert header is not None
    (private,) = private_headers((header,))
    return private.patient_key


@given(st.text("0123456789ABCdef-ö", min_size=1, max_size=20), st.booleans())
@settings(max_examples=40)
def test_one_patient_has_one_key_by_source_and_by_page(name: str, issued: bool) -> None:
    dataset = slice_of()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientID = name
    if issued:
        dataset.IssuerOfPatientID = "CLINIC"
    raw = written(dataset)
    secret = read_secret(Settings.read().key_file)
    result = deidentify(raw, secret)
    assert key_in_store(result.content) == key_in_store(raw)
    # Sent by the page, a PatientID that looks like that is a text like any other.
    forged = deidentify(result.content, secret)
    assert key_in_store(forged.content) != key_in_store(raw)


def test_a_study_without_a_patient_falls_where_it_falls_by_the_source() -> None:
    secret = read_secret(Settings.read().key_file)
    for number in range(40):
        dataset = slice_of()
        del dataset.PatientID
        dataset.StudyInstanceUID = f"1.2.3.{number}"
        key = key_in_store(deidentify(written(dataset), secret).content)
        assert key is not None
        by_source = key_of(dataset.StudyInstanceUID, None)
        assert fold_of(key) == fold_of(by_source)
        assert is_test(key) == is_test(by_source)


def test_a_deidentified_study_is_a_study_of_the_inbox(tmp_path: Path) -> None:
    for path in write_study(tmp_path / "source").iterdir():
        result = deidentify(path.read_bytes(), SECRET)
        folder = tmp_path / "inbox" / "train_images" / result.study_uid
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{result.sop_uid}.dcm").write_bytes(result.content)
    original, sent = scan(tmp_path / "source"), scan(tmp_path / "inbox")
    assert sent.geometry == original.geometry
    assert sent.findings == original.findings
