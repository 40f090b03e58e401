"""Whose objects these are: patient and study as in the headers of the slices.

Values are copied byte for byte with their character set: nothing is decoded, so no name
is harmed, and none is told in a warning. highdicom, which checks values and repeats
them in its warnings, is given headers without any.
"""

import math
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Final

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage
from pydicom.valuerep import DA, DT, TM, PersonName

from csfd_core.dicom_objects.kinds import ResultKind, uid_of
from csfd_core.dicom_objects.source import ResultSource

MANUFACTURER: Final = "csfd"
MODEL_NAME: Final = "csfd"
VERSION: Final = version("csfd")
NOT_VERIFIED: Final = "AI, not verified, research only"
_CHARACTER_SET: Final = 0x0008_0005
_IDENTITY_REMOVED: Final = 0x0012_0062
_PLAIN: Final = frozenset(("CS", "DA", "TM"))  # of no character set
_UTF_8: Final = "ISO_IR 192"
_SERIAL_NUMBER: Final = "0"  # software has none; SEG wants one
# Of the patient and of the study, type 2: there, if need be empty.
_ALWAYS: Final[dict[int, str]] = {
    0x0008_0020: "DA",  # StudyDate
    0x0008_0030: "TM",  # StudyTime
    0x0008_0050: "SH",  # AccessionNumber
    0x0008_0090: "PN",  # ReferringPhysicianName
    0x0010_0010: "PN",  # PatientName
    0x0010_0020: "LO",  # PatientID
    0x0010_0030: "DA",  # PatientBirthDate
    0x0010_0040: "CS",  # PatientSex
    0x0020_0010: "SH",  # StudyID
}
_WHERE_THERE: Final[dict[int, str]] = {
    0x0008_1030: "LO",  # StudyDescription
    0x0010_0021: "LO",  # IssuerOfPatientID
    _IDENTITY_REMOVED: "CS",
    0x0012_0063: "LO",  # DeidentificationMethod
    0x0028_0303: "CS",  # LongitudinalTemporalInformationModified
}
_DEIDENTIFICATION_CODES: Final = 0x0012_0064
IDENTITY_TAGS: Final = (
    _CHARACTER_SET,
    *_ALWAYS,
    *_WHERE_THERE,
    _DEIDENTIFICATION_CODES,
)
_GEOMETRY: Final = (
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImageOrientationPatient",
    "ImagePositionPatient",
)


def frame_of_reference_of(source: ResultSource) -> str:
    """Return the frame of reference; one for the series where the slices name none."""
    first = source.headers[0]
    stated = first.get("FrameOfReferenceUID")
    if stated:
        return str(stated)
    return uid_of(source.study_uid, str(first.SeriesInstanceUID), "frame of reference")


def plain_headers(source: ResultSource) -> list[Dataset]:
    """Return the headers of the slices without patient, for highdicom."""
    frame_uid = frame_of_reference_of(source)
    spacing_mm = _slice_spacing_mm(source.headers)
    plain = []
    for header in source.headers:
        one = Dataset()
        for tag, vr in _ALWAYS.items():
            one.add_new(tag, vr, "")
        one.SOPClassUID = header.get("SOPClassUID") or CTImageStorage
        one.SOPInstanceUID = header.SOPInstanceUID
        one.StudyInstanceUID = header.StudyInstanceUID
        one.SeriesInstanceUID = header.SeriesInstanceUID
        one.FrameOfReferenceUID = frame_uid
        one.PositionReferenceIndicator = ""
        one.Modality = "CT"
        for keyword in _GEOMETRY:
            setattr(one, keyword, header[keyword].value)
        one.SliceThickness = header.get("SliceThickness") or spacing_mm
        plain.append(one)
    return plain


def finish(dataset: Dataset, source: ResultSource, kind: ResultKind) -> Dataset:
    """Give an object patient, study and times, and return it."""
    first = source.headers[0]
    dataset.SeriesDescription = kind.series_description
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = MODEL_NAME
    dataset.SoftwareVersions = VERSION
    dataset.DeviceSerialNumber = _SERIAL_NUMBER
    dataset.StudyInstanceUID = first.StudyInstanceUID
    set_times(dataset, source.made_at)
    for tag, vr in (_ALWAYS | _WHERE_THERE).items():
        if tag in first:
            _copy(first, dataset, tag, vr)
        elif tag in _ALWAYS:
            dataset.add_new(tag, vr, "")
        elif tag in dataset:
            del dataset[tag]
    if _DEIDENTIFICATION_CODES in first:
        dataset[_DEIDENTIFICATION_CODES] = first[_DEIDENTIFICATION_CODES]
    _copy_character_set(first, dataset)
    return dataset


def set_times(dataset: Dataset, made_at: datetime) -> None:
    """Say when an object was made, in the time of this place, as PACS take it.

    An offset from UTC would hold for the study's date and time as well, which are those
    of whoever has sent it.
    """
    local = made_at.astimezone()
    day, time = DA(local.date()), TM(local.time().replace(microsecond=0))
    for name in ("InstanceCreation", "Content", "Series", "OfSecondaryCapture"):
        date_word, time_word = f"{name}Date", f"{name}Time"
        if name.startswith("Of"):
            date_word, time_word = f"Date{name}", f"Time{name}"
        if date_word in dataset or name == "Series":
            setattr(dataset, date_word, day)
            setattr(dataset, time_word, time)
    for equipment in dataset.get("ContributingEquipmentSequence", ()):
        equipment.ContributionDateTime = DT(local.replace(tzinfo=None, microsecond=0))


def to_unicode(dataset: Dataset) -> None:
    """Turn the patient and the study of an object into UTF-8.

    For what holds a reader's name or words, which need not fit the sender's set.
    """
    encodings = _encodings_of(dataset)
    for tag, vr in (_ALWAYS | _WHERE_THERE).items():
        if tag not in dataset:
            continue
        value = dataset[tag].value
        raw = value.encode(encodings) if isinstance(value, PersonName) else value
        if isinstance(raw, bytes):
            told = decode_bytes(raw, encodings, {ord("\\")})
            dataset[Tag(tag)] = _element(tag, vr, told)
    dataset.SpecificCharacterSet = _UTF_8


def _copy(header: Dataset, dataset: Dataset, tag: int, vr: str) -> None:
    """Copy an element of text as it is encoded.

    In memory a text stays undecoded where it is not plain ASCII.
    """
    element = header.get_item(tag)
    if not isinstance(element, RawDataElement):
        dataset[Tag(tag)] = element
        return
    raw = (element.value or b"").rstrip(b" \0")
    value: str | bytes | PersonName = raw
    if vr == "PN":
        value = PersonName(raw, _encodings_of(header), validation_mode=IGNORE)
    elif _is_plain(raw) or vr in _PLAIN:
        value = raw.decode("latin-1")
    dataset[Tag(tag)] = _element(tag, vr, value)


def _is_plain(raw: bytes) -> bool:
    """Say whether a text is the same in every set; ISO 2022 is of seven bits, too."""
    return raw.isascii() and b"\x1b" not in raw


def _element(tag: int, vr: str, value: str | bytes | PersonName) -> DataElement:
    """Return an element whose value nobody judges: it is the archive's own."""
    if isinstance(value, str) and vr == "PN":
        value = PersonName(value, validation_mode=IGNORE)
    return DataElement(tag, vr, value, validation_mode=IGNORE)


def _encodings_of(dataset: Dataset) -> list[str]:
    stated = dataset.get("SpecificCharacterSet") or ""
    return convert_encodings(stated if isinstance(stated, str) else list(stated))


def _copy_character_set(header: Dataset, dataset: Dataset) -> None:
    stated = header.get("SpecificCharacterSet")
    if stated:
        dataset.SpecificCharacterSet = stated
    elif "SpecificCharacterSet" in dataset:
        del dataset.SpecificCharacterSet


def _slice_spacing_mm(headers: Sequence[Dataset]) -> float:
    """Return how far the first two slices lie apart, for slices without a thickness."""
    if len(headers) < 2:
        return 1.0
    positions = [[float(v) for v in h.ImagePositionPatient] for h in headers[:2]]
    return round(math.dist(*positions), 6)
