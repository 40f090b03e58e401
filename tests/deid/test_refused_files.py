"""What is no slice, or damaged, is refused and told."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from support.deid_slices import SECRET, compressed, read, refused, slice_of, written
from support.dicom_studies import save

from csfd_core.deid.deidentify import deidentify
from csfd_core.deid.refusals import Reason, RefusedError


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
