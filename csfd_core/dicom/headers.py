"""Header facts of one CT slice.

``SliceHeader`` is what csfd knows of a DICOM file without decoding its pixels. It is
read once per file and kept in the store (``metadata/slices/<study_uid>.parquet``). It
holds no name, date or other text of the patient: the PatientID is there as a digest
only, which is keyed before it is stored (``ingest.patients``).
"""

import hashlib
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from csfd_core.dicom import tags
from csfd_core.dicom.elements import RawElements, read_elements
from csfd_core.text import safe_name
from csfd_core.vocabulary import is_uid, own_uid

CT_IMAGE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
OTHER: Final = "other"  # of texts that are not repeated: they could be anything
# PS3.3 C.7.3.1.1.1, as far as exports have them.
MODALITIES: Final = frozenset(
    (
        "CT", "MR", "US", "CR", "DX", "PT", "NM", "XA", "RF", "MG", "OT", "SC", "SEG",
        "SR", "PR", "KO", "DOC", "ECG", "IO", "OP", "ES", "XC", "GM", "SM", "RTDOSE",
        "RTSTRUCT", "RTPLAN", "RTIMAGE", "RTRECORD", "REG", "FID", "RWV", "PLAN", "HC",
    )
)  # fmt: skip
_PHOTOMETRIC: Final = frozenset(  # PS3.3 C.7.6.3.1.2
    (
        "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL",
        "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT",
    )
)  # fmt: skip
PATIENT_KEY_LENGTH: Final = 32  # hexadecimal digits
# Before a digest that is keyed already, in the PatientID of what csfd de-identified.
KEYED_PATIENT: Final = "csfd-"
_KEYED_PATIENT: Final = re.compile(rb"csfd-[0-9a-f]{34,40}")
_ISSUER_KEY_LENGTH: Final = 8
_KERNEL_KEY_LENGTH: Final = 8
# What is beyond is no number of a patient's scan, whatever it is in a file.
_LARGEST_INTEGER: Final = 2**31 - 1
_LARGEST_NUMBER: Final = 1e6  # mm, HU, degrees
# Sharp kernels by the names that scanners give them: BONE, BONEPLUS, EDGE (GE); B60s to
# B90h, Br59 and higher, Hr60 (Siemens); FC30 to FC35, FC80 to FC86 (Canon); YC, YD, YE,
# D, E (Philips).
_BONE_KERNEL: Final = re.compile(
    r"BONE.*|EDGE.*|[BHU][a-z]?(59|[6-9]\d)\w*|FC(3|8)\d.*|Y[CDE]|[DE]"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceHeader:
    """One DICOM file. ``None`` stands for an element that is absent or unreadable.

    Positions and directions are in the patient's LPS frame (PS3.3 C.7.6.2.1.1), in mm.
    ``pixel_spacing_mm`` is (between rows, between columns); ``orientation`` is the
    direction of a row, then of a column. ``pixel_offset`` and ``pixel_length`` tell
    where the pixel data lie in the file (see ``RawElements``). ``has_odd_uid`` tells
    that ``study_uid`` stands for one that is not quite valid (see ``own_uid``).
    """

    file_name: str
    size_bytes: int
    digest: str
    transfer_syntax_uid: str
    sop_class_uid: str | None
    sop_uid: str | None
    study_uid: str | None
    has_odd_uid: bool
    series_uid: str | None
    patient_key: str | None
    modality: str | None
    instance_number: int | None
    acquisition_number: int | None
    is_localizer: bool
    kernel_key: str | None  # digest of the convolution kernel
    is_bone_kernel: bool
    rows: int | None
    columns: int | None
    samples_per_pixel: int | None
    frame_count: int | None
    photometric: str | None
    bits_allocated: int | None
    bits_stored: int | None
    high_bit: int | None
    is_signed: bool
    is_little_endian: bool
    padding_value: int | None
    padding_limit: int | None
    rescale_slope: float | None
    rescale_intercept: float | None
    is_rescaled_to_hu: bool  # RescaleType is HU, or is not given
    position_mm: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_spacing_mm: tuple[float, ...] | None
    slice_thickness_mm: float | None
    gantry_tilt_deg: float | None
    has_pixel_data: bool
    pixel_offset: int | None
    pixel_length: int | None


def read_slice_header(
    raw: bytes, file_name: str, *, size_bytes: int | None = None, digest: str = ""
) -> SliceHeader | None:
    """Read the header of a DICOM file from its bytes.

    Args:
        raw: The whole file, or its beginning.
        file_name: Name to record.
        size_bytes: Size of the whole file where ``raw`` is only its beginning.
        digest: Identity of the file's content, to record.

    Returns:
        The header, or ``None`` where ``raw`` is only the beginning of the file and the
        header goes on behind it.

    Raises:
        NotDicomError: If it is no DICOM file.
        DicomError: If its header is damaged or cut off.
    """
    elements = read_elements(raw, size_bytes=size_bytes)
    if not elements.complete:
        return None
    size = len(raw) if size_bytes is None else size_bytes
    return _to_header(elements, file_name, size, digest)


def _to_header(
    elements: RawElements, file_name: str, size_bytes: int, digest: str
) -> SliceHeader:
    value = _Values(elements.values, elements.is_little_endian)
    is_signed = value.short(tags.PIXEL_REPRESENTATION) == 1
    study_uid = value.text(tags.STUDY_INSTANCE_UID)
    kernel = value.text(tags.CONVOLUTION_KERNEL)
    return SliceHeader(
        file_name=file_name,
        size_bytes=size_bytes,
        digest=digest,
        transfer_syntax_uid=safe_name(elements.transfer_syntax_uid),
        sop_class_uid=value.identifier(tags.SOP_CLASS_UID),
        sop_uid=value.identifier(tags.SOP_INSTANCE_UID),
        study_uid=safe_name(own_uid(study_uid)) if study_uid else None,
        has_odd_uid=study_uid is not None and not is_uid(study_uid),
        series_uid=value.identifier(tags.SERIES_INSTANCE_UID),
        patient_key=value.patient(),
        modality=value.one_of(tags.MODALITY, MODALITIES),
        instance_number=value.integer(tags.INSTANCE_NUMBER),
        acquisition_number=value.integer(tags.ACQUISITION_NUMBER),
        is_localizer="LOCALIZER" in (value.text(tags.IMAGE_TYPE) or "").split("\\"),
        kernel_key=_digest(kernel.encode(), _KERNEL_KEY_LENGTH) if kernel else None,
        is_bone_kernel=_is_bone_kernel(kernel),
        rows=value.short(tags.ROWS),
        columns=value.short(tags.COLUMNS),
        samples_per_pixel=value.short(tags.SAMPLES_PER_PIXEL),
        frame_count=value.integer(tags.NUMBER_OF_FRAMES),
        photometric=value.one_of(tags.PHOTOMETRIC_INTERPRETATION, _PHOTOMETRIC),
        bits_allocated=value.short(tags.BITS_ALLOCATED),
        bits_stored=value.short(tags.BITS_STORED),
        high_bit=value.short(tags.HIGH_BIT),
        is_signed=is_signed,
        is_little_endian=elements.is_little_endian,
        padding_value=value.short(tags.PIXEL_PADDING_VALUE, signed=is_signed),
        padding_limit=value.short(tags.PIXEL_PADDING_RANGE_LIMIT, signed=is_signed),
        rescale_slope=value.number(tags.RESCALE_SLOPE),
        rescale_intercept=value.number(tags.RESCALE_INTERCEPT),
        is_rescaled_to_hu=value.text(tags.RESCALE_TYPE) in (None, "HU"),
        position_mm=value.numbers(tags.IMAGE_POSITION_PATIENT, 3),
        orientation=value.numbers(tags.IMAGE_ORIENTATION_PATIENT, 6),
        pixel_spacing_mm=value.numbers(tags.PIXEL_SPACING, 2),
        slice_thickness_mm=value.number(tags.SLICE_THICKNESS),
        gantry_tilt_deg=value.number(tags.GANTRY_DETECTOR_TILT),
        has_pixel_data=elements.has_pixel_data,
        pixel_offset=elements.pixel_offset,
        pixel_length=elements.pixel_length,
    )


class _Values:
    """Typed access to raw element values; absent or unreadable ones are ``None``."""

    def __init__(self, values: Mapping[int, bytes], is_little_endian: bool) -> None:
        self._values = values
        self._order = "<" if is_little_endian else ">"

    def text(self, tag: int) -> str | None:
        value = self._values.get(tag)
        if value is None:
            return None
        return value.decode("ascii", "replace").strip(" \0") or None

    def identifier(self, tag: int) -> str | None:
        """Return a UID; another text becomes a digest, as it could be anything."""
        text = self.text(tag)
        return None if text is None else safe_name(text)

    def one_of(self, tag: int, words: frozenset[str]) -> str | None:
        """Return one of the words; another text becomes ``other``."""
        text = self.text(tag)
        return text if text is None or text in words else OTHER

    def numbers(self, tag: int, count: int) -> tuple[float, ...] | None:
        text = self.text(tag)
        if text is None:
            return None
        try:
            numbers = tuple(float(part) for part in text.split("\\"))
        except ValueError:
            return None
        plausible = all(abs(number) <= _LARGEST_NUMBER for number in numbers)
        return numbers if len(numbers) == count and plausible else None

    def number(self, tag: int) -> float | None:
        numbers = self.numbers(tag, 1)
        return None if numbers is None else numbers[0]

    def integer(self, tag: int) -> int | None:
        try:
            number = float(self.text(tag) or "")
        except ValueError:
            return None
        # Compared before it is made an integer: infinity has none, NaN fits nowhere.
        fits = abs(number) <= _LARGEST_INTEGER and number == round(number)
        return int(number) if fits else None

    def short(self, tag: int, *, signed: bool = False) -> int | None:
        value = self._values.get(tag)
        if value is None:
            return None
        if len(value) != 2:  # already decoded, or not a single 16-bit number
            return self.integer(tag)
        (number,) = struct.unpack(f"{self._order}{'h' if signed else 'H'}", value)
        return int(number)

    def patient(self) -> str | None:
        """Return a digest of the PatientID, and behind it that of who has issued it.

        One that csfd has written itself is returned as it is: it is keyed already.
        """
        identifier = _encoded(self._values, tags.PATIENT_ID)
        if _KEYED_PATIENT.fullmatch(identifier):
            return identifier.decode()
        return patient_digest(self._values)


def patient_digest(values: Mapping[int, bytes]) -> str | None:
    """Return a digest of a PatientID, and behind it that of who has issued it.

    Of the bytes as they are encoded, in whatever character set. ``None`` without a
    PatientID.

    Args:
        values: Raw values of a file's elements by tag.
    """
    identifier = _encoded(values, tags.PATIENT_ID)
    if not identifier:
        return None
    issuer = _encoded(values, tags.ISSUER_OF_PATIENT_ID)
    behind = _digest(issuer, _ISSUER_KEY_LENGTH) if issuer else ""
    return _digest(identifier, PATIENT_KEY_LENGTH) + behind


def _encoded(values: Mapping[int, bytes], tag: int) -> bytes:
    return values.get(tag, b"").strip(b" \0")


def _digest(content: bytes, length: int) -> str:
    return hashlib.sha256(content).hexdigest()[:length]


def _is_bone_kernel(kernel: str | None) -> bool:
    first = (kernel or "").split("\\")[0].strip()
    return _BONE_KERNEL.fullmatch(first) is not None
