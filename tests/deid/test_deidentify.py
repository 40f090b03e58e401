"""No text of a patient survives; pixels and geometry do; one patient stays one."""

import io
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.filebase import DicomBytesIO
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from support.dicom_studies import neck_hounsfield, save, slice_dataset, write_study
from support.scans import scan

from csfd_core.deid.attributes import KEPT
from csfd_core.deid.deidentify import Deidentified, deidentify
from csfd_core.deid.identities import reference_digest
from csfd_core.deid.refusals import Reason, RefusedError, tell
from csfd_core.dicom.headers import read_slice_header
from csfd_core.dicom.pixels import DecodedSlice
from csfd_core.evaluation.folds import fold_of, is_test, key_of
from csfd_core.ingest.patients import private_headers, read_secret
from csfd_core.settings import Settings

SECRET, OTHER = bytes(range(32)), bytes(32)
COMPRESSED = (JPEGLosslessSV1, JPEG2000Lossless, JPEGLSLossless, RLELossless)


def slice_of(number: int = 1) -> Dataset:
    dataset = slice_dataset(neck_hounsfield()[number], number, 10.0 - number)
    dataset.FrameOfReferenceUID = "1.2.3.4.5"
    dataset.AccessionNumber = "ACC-77"
    return dataset


def written(dataset: Dataset) -> bytes:
    sink = io.BytesIO()
    dataset.save_as(sink, enforce_file_format=True)
    return sink.getvalue()


def compressed(dataset: Dataset, syntax: str) -> Dataset:
    """Compress with what the phantom uses."""
    from csfd_core.phantom.dicom_writer import PixelStyle, _encode

    style = PixelStyle(syntax, True, 16, 0, padded=False)  # type: ignore[arg-type]
    stored = np.frombuffer(dataset.PixelData, np.int16)
    dataset.PixelData = _encode(stored.reshape(dataset.Rows, dataset.Columns), style)
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def read(result: Deidentified) -> Dataset:
    return dcmread(io.BytesIO(result.content))


def with_raw(tag: int, vr: bytes, value: bytes) -> bytes:
    """Return a file whose element holds these bytes, whatever its VR is."""
    dataset = slice_of()
    dataset["PixelData"].VR = "OW"
    dataset.pop(tag, None)
    raw = written(dataset)
    value += b" " * (len(value) % 2)
    head = struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value))
    pixels = raw.index(struct.pack("<HH", 0x7FE0, 0x0010))
    return raw[:pixels] + head + value + raw[pixels:]


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


@pytest.mark.parametrize("tag", sorted(KEPT))
def test_a_text_in_any_kept_element_does_not_survive(tag: int) -> None:
    """Raw bytes of a name, whatever the VR promises, in place of the value."""
    for text in (b"MEIER^HANS", b"\xff\xfeM\0E\0I\0E\0R\0"):
        raw = with_raw(tag, KEPT[tag].vr, text)
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


KEPT_WORDS = (
    "Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "SliceThickness",
    "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept", "BitsStored",
    "HighBit", "PixelRepresentation", "InstanceNumber", "WindowCenter", "KVP",
    "GantryDetectorTilt", "ConvolutionKernel", "PixelPaddingValue", "Modality",
)  # fmt: skip


def described() -> Dataset:
    dataset = slice_of()
    dataset.WindowCenter, dataset.WindowWidth = [40, 400], [400, 1800]
    dataset.KVP, dataset.GantryDetectorTilt = "120", "-3.5"
    dataset.ConvolutionKernel = ["Br59f", "3"]
    dataset.add_new("PixelPaddingValue", "SS", -2000)
    return dataset


def check_same(before: Dataset, raw: bytes) -> None:
    result = deidentify(raw, SECRET)
    after = read(result)
    for keyword in KEPT_WORDS:
        assert after[keyword].value == before[keyword].value, keyword
    np.testing.assert_array_equal(after.pixel_array, before.pixel_array)
    old, new = (read_slice_header(c, "1.dcm") for c in (raw, result.content))
    assert old is not None
    assert new is not None
    np.testing.assert_array_equal(
        DecodedSlice(raw, old).hounsfield(),
        DecodedSlice(result.content, new).hounsfield(),
    )
    assert new.kernel_key == old.kernel_key
    again = deidentify(
        result.content, SECRET
    )  # what csfd has written can be read again
    assert read(again).pixel_array.shape == before.pixel_array.shape


@pytest.mark.parametrize(
    ("implicit", "little", "syntax"),
    [
        (False, True, ExplicitVRLittleEndian),
        (True, True, ImplicitVRLittleEndian),
        (False, False, ExplicitVRBigEndian),
        (False, True, DeflatedExplicitVRLittleEndian),
    ],
)
def test_pixels_and_geometry_stay_in_native_syntaxes(
    implicit: bool, little: bool, syntax: str
) -> None:
    dataset = described()
    if not little:
        swapped = np.frombuffer(dataset.PixelData, "<i2").astype(">i2")
        dataset.PixelData = swapped.tobytes()
        dataset["PixelData"].VR = "OW"
    dataset.file_meta.TransferSyntaxUID = syntax
    sink = DicomBytesIO()
    dataset.save_as(
        sink, implicit_vr=implicit, little_endian=little, enforce_file_format=True
    )
    raw = sink.getvalue()
    check_same(dcmread(io.BytesIO(raw)), raw)


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_pixels_and_geometry_stay_in_compressed_syntaxes(syntax: str) -> None:
    raw = written(compressed(described(), syntax))
    before = dcmread(io.BytesIO(raw))
    check_same(before, raw)
    result = deidentify(raw, SECRET)
    assert read(result).file_meta.TransferSyntaxUID == syntax
    if syntax != JPEG2000Lossless:  # whose encoder signs with a comment
        frames = [
            get_frame(d.PixelData, 0, number_of_frames=1)
            for d in (before, read(result))
        ]
        assert frames[0] == frames[1]


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_comments_in_and_texts_behind_code_streams_do_not_survive(syntax: str) -> None:
    text = b"MEIER^HANS*1956"
    dataset = compressed(described(), syntax)
    before = read_pixels(written(dataset))
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if syntax in (JPEGLosslessSV1, JPEGLSLossless):
        comment = b"\xff\xfe" + struct.pack(">H", 2 + len(text)) + text
        frame = frame[:2] + comment + comment.replace(b"\xfe", b"\xe1", 1) + frame[2:]
    elif syntax == JPEG2000Lossless:
        (length,) = struct.unpack_from(">H", frame, 4)
        comment = b"\xff\x64" + struct.pack(">HH", 4 + len(text), 1) + text
        frame = frame[: 4 + length] + comment + frame[4 + length :]
    dataset.PixelData = encapsulate([frame + text])
    raw = written(dataset)
    assert raw.count(text) == {RLELossless: 1, JPEG2000Lossless: 2}.get(syntax, 3)
    result = deidentify(raw, SECRET)
    assert text not in result.content
    np.testing.assert_array_equal(read(result).pixel_array, before)


def read_pixels(raw: bytes) -> np.ndarray:
    return np.array(dcmread(io.BytesIO(raw)).pixel_array)


def test_a_frame_in_many_fragments_and_its_offset_table() -> None:
    dataset = compressed(described(), JPEGLSLossless)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([frame], fragments_per_frame=3)
    raw = written(dataset)
    np.testing.assert_array_equal(
        read(deidentify(raw, SECRET)).pixel_array, read_pixels(raw)
    )


def test_drawings_in_the_unused_bits_of_pixels_are_cleared() -> None:
    dataset = slice_of()
    stored = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
    drawn = stored.copy()
    drawn[10:20] |= 1 << 13
    dataset.PixelData = drawn.tobytes()
    dataset.add_new(0x60000102, "US", 13)
    result = read(deidentify(written(dataset), SECRET))
    left = np.frombuffer(result.PixelData, np.uint16).reshape(64, 64)
    np.testing.assert_array_equal(left, stored)
    refused(compressed(dataset, RLELossless), Reason.OVERLAY)


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


def refused(dataset: Dataset | bytes, reason: Reason) -> None:
    raw = dataset if isinstance(dataset, bytes) else written(dataset)
    with pytest.raises(RefusedError) as error:
        deidentify(raw, SECRET)
    assert error.value.reason is reason
    assert str(error.value) == tell(reason, 1)
    assert pickle.loads(pickle.dumps(error.value)).reason is reason


def edited(**values: object) -> Dataset:
    dataset = slice_of()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"Modality": "MR"}, Reason.OTHER_MODALITY),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, Reason.SCREENSHOT),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.4"}, Reason.SCREENSHOT),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1"}, Reason.MULTI_FRAME),
        ({"NumberOfFrames": 3}, Reason.MULTI_FRAME),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, Reason.LOCALIZER),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, Reason.SCREENSHOT),
        ({"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED"]}, Reason.SCREENSHOT),
        ({"BurnedInAnnotation": "YES"}, Reason.BURNED_IN),
        ({"StudyInstanceUID": ""}, Reason.NO_STUDY),
        ({"Rows": 5000, "Columns": 5000}, Reason.TOO_LARGE),
        ({"Rows": 65}, Reason.DAMAGED),
        ({"SamplesPerPixel": 3}, Reason.SCREENSHOT),
    ],
)
def test_what_is_no_slice_is_told(values: dict[str, object], reason: Reason) -> None:
    refused(edited(**values), reason)


def test_an_axial_reformat_and_odd_identifiers_are_taken() -> None:
    for values in (
        {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]},
        {"ImageType": ["DERIVED", "SECONDARY", "MPR"], "BurnedInAnnotation": "NO"},
        {"SeriesInstanceUID": ""},
    ):
        assert read(deidentify(written(edited(**values)), SECRET)).Modality == "CT"
    dataset = slice_of()
    dataset[0x0020000D] = DataElement(0x0020000D, "UI", "1.2.0003.4", validation_mode=0)
    result = deidentify(written(dataset), SECRET)
    assert result.study_uid.startswith("2.25.")
    dataset[0x0020000D] = DataElement(0x0020000D, "UI", "UNKNOWN", validation_mode=0)
    refused(dataset, Reason.NO_STUDY)


def test_other_files_of_an_export_are_passed_over(tmp_path: Path) -> None:
    report = Dataset()
    report.file_meta = slice_of().file_meta
    report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.67"
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.67"
    report.SOPInstanceUID = "1.2.3"
    report.Modality = "SR"
    save(report, tmp_path / "report.dcm")
    refused((tmp_path / "report.dcm").read_bytes(), Reason.NO_IMAGE)
    for content in (b"", b"[autorun]\nopen=viewer.exe", b"PNG" * 1000, bytes(4000)):
        refused(content, Reason.NOT_DICOM)
    assert Reason.NO_IMAGE.is_passed_over
    assert not Reason.DAMAGED.is_passed_over


def test_damage_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = written(slice_of())
    refused(raw[:-10], Reason.DAMAGED)
    for length in range(200, len(raw), 61):
        with pytest.raises(RefusedError):
            deidentify(raw[:length], SECRET)
    bomb = slice_of()
    bomb.PixelData = bytes(64 * 64 * 2)
    bomb.add_new(0x00091001, "OB", bytes(300 * 2**20))
    bomb.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    refused(bomb, Reason.TOO_LARGE)
    mpeg = slice_of()
    mpeg.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
    mpeg.PixelData = encapsulate([b"\0" * 100])
    mpeg["PixelData"].VR = "OB"
    refused(mpeg, Reason.SYNTAX)


RAWS: list[Callable[[], bytes]] = [
    lambda: written(slice_of()),
    lambda: written(compressed(slice_of(), RLELossless)),
    lambda: written(compressed(slice_of(), JPEGLSLossless)),
    lambda: written(compressed(slice_of(), JPEG2000Lossless)),
]
MADE = [make() for make in RAWS]


@given(
    st.sampled_from(MADE),
    st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=9)), max_size=6),
    st.integers(0, 12_000),
)
@settings(max_examples=300)
def test_garbage_is_refused_or_harmless(
    raw: bytes, changes: list[tuple[int, bytes]], length: int
) -> None:
    damaged = bytearray(raw[: max(length, 200)])
    for place, content in changes:
        damaged[place : place + len(content)] = content
    try:
        result = deidentify(bytes(damaged), SECRET)
    except RefusedError:
        return
    after = read(result)
    assert after.file_meta.MediaStorageSOPClassUID == CTImageStorage
    assert b"Sensitive" not in result.content


def test_an_unknown_value_representation_is_damage() -> None:
    """pydicom looks at that of an empty element when it is asked for it."""
    dataset = slice_of()
    dataset.PositionReferenceIndicator = ""
    raw = written(dataset)
    broken = raw.replace(b"\x20\x00\x40\x10LO", b"\x20\x00\x40\x10L\xff")
    assert broken != raw
    refused(broken, Reason.DAMAGED)
