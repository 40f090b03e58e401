"""Raw DICOM elements of one file, up to the pixel data.

Turns the bytes of a file into the raw values of the elements that csfd needs. Files in
the usual form (preamble, explicit little endian, no sequence of undefined length before
the pixel data) take a short path of our own; every other file is read by pydicom. Both
give the same values: a test compares them over pydicom's own files. Meaning and units
are given in ``headers``.

The own path stays because a scan needs it: with ``dcmread(specific_tags=...,
stop_before_pixels=True)`` in its place, the scan of a study of 192 slices, every byte
read and hashed, took 4.0 times as long (2.1 to 5.3 in seven rounds, 7.8 for 1.9 ms a
slice on a busy machine; ``benchmarks/headers.py``). More than 10 % was the mark.
"""

import io
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from csfd_core.dicom import tags
from csfd_core.dicom.limits import require_inflatable
from csfd_core.errors import DicomError, NotDicomError

PREAMBLE_LENGTH: Final = 128
_MAGIC: Final = b"DICM"
_UNDEFINED_LENGTH: Final = 0xFFFFFFFF
# PS3.5 section 7.1.2: these VRs have two reserved bytes and a 32-bit length.
_LONG_VRS: Final = frozenset(
    [b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT"]
)
_PIXEL_VRS: Final = frozenset([b"OB", b"OW"])
_NATIVE: Final = frozenset(
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawElements:
    """Undecoded values of the wanted elements of one file.

    ``pixel_offset`` is the position of the first byte of the pixel data's value in the
    file (``None`` where there is no pixel data, or the file is deflated);
    ``pixel_length`` its declared length in bytes (``None`` where it is undefined, as in
    encapsulated data). ``complete`` is false when the bytes ended before the pixel data
    and before the end of the file.
    """

    values: Mapping[int, bytes]
    transfer_syntax_uid: str
    is_little_endian: bool
    has_pixel_data: bool
    pixel_offset: int | None
    pixel_length: int | None
    complete: bool


def is_native(transfer_syntax_uid: str) -> bool:
    """Say whether pixel data in this transfer syntax are stored uncompressed."""
    return transfer_syntax_uid in _NATIVE


def read_elements(raw: bytes, *, size_bytes: int | None = None) -> RawElements:
    """Read the wanted elements from the first bytes of a file, or all of it.

    Args:
        raw: The file's content, or its beginning.
        size_bytes: Size of the whole file where ``raw`` is only its beginning.

    Raises:
        NotDicomError: If the bytes are no DICOM file.
        DicomError: If they are one but cannot be parsed, because the header is cut off
            or damaged.
    """
    whole = size_bytes is None or len(raw) >= size_bytes
    elements = _read_plain(raw)
    if elements is None:
        if not whole:
            return RawElements(
                values={},
                transfer_syntax_uid="",
                is_little_endian=True,
                has_pixel_data=False,
                pixel_offset=None,
                pixel_length=None,
                complete=False,
            )
        elements = _read_with_pydicom(raw)
    return elements


def _read_plain(raw: bytes) -> RawElements | None:
    """Parse the usual form of a file; ``None`` where anything is out of the usual."""
    if raw[PREAMBLE_LENGTH : PREAMBLE_LENGTH + 4] != _MAGIC:
        return None
    values: dict[int, bytes] = {}
    offset, end = PREAMBLE_LENGTH + 4, len(raw)
    in_meta = True
    while offset + 12 <= end:
        group, element, vr = struct.unpack_from("<HH2s", raw, offset)
        tag = group << 16 | element
        if vr in _LONG_VRS:
            (length,) = struct.unpack_from("<I", raw, offset + 8)
            start = offset + 12
        else:
            (length,) = struct.unpack_from("<H", raw, offset + 6)
            start = offset + 8
        if in_meta and group > 2:
            if not _is_explicit_little_endian(values):
                return None
            in_meta = False
        if tag == tags.PIXEL_DATA:
            if vr not in _PIXEL_VRS:  # implicit, whatever the file meta says
                return None
            return RawElements(
                values=values,
                transfer_syntax_uid=_text(values[tags.TRANSFER_SYNTAX_UID]),
                is_little_endian=True,
                has_pixel_data=True,
                pixel_offset=start,
                pixel_length=None if length == _UNDEFINED_LENGTH else length,
                complete=True,
            )
        if length == _UNDEFINED_LENGTH or start + length > end or not vr.isupper():
            return None
        if tag in tags.WANTED:
            values[tag] = raw[start : start + length]
        offset = start + length
    return None


def _is_explicit_little_endian(values: Mapping[int, bytes]) -> bool:
    """Say whether the data set after the file meta is explicit little endian."""
    uid = _text(values.get(tags.TRANSFER_SYNTAX_UID, b""))
    implicit_or_else = (
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        "",
    )
    return uid not in implicit_or_else


def _read_with_pydicom(raw: bytes) -> RawElements:
    stream = io.BytesIO(raw)
    has_preamble = raw[PREAMBLE_LENGTH : PREAMBLE_LENGTH + 4] == _MAGIC
    if has_preamble:
        _require_inflatable(raw)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = dcmread(stream, stop_before_pixels=True, force=True)
            values = _raw_values(dataset)
            is_cut_off = _ends_inside_a_value(dataset)
    except MemoryError:  # no fault of the file
        raise
    except Exception as error:  # noqa: BLE001 - damaged bytes fail in many ways
        kind = DicomError if has_preamble else NotDicomError
        raise kind(
            f"The header cannot be parsed ({type(error).__name__}); the file is "
            "damaged or cut off."
        ) from error
    if not has_preamble and tags.SOP_CLASS_UID not in values:
        raise NotDicomError(
            "No DICOM file: neither the DICM prefix nor a SOP Class UID is there."
        )
    if is_cut_off or not values:
        raise DicomError("The header is cut off: the file ends inside an element.")
    syntax = _text(values.get(tags.TRANSFER_SYNTAX_UID, b""))
    little_endian = bool(dataset.original_encoding[1])
    if not syntax:
        implicit = bool(dataset.original_encoding[0])
        syntax = str(ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian)
    deflated = syntax == DeflatedExplicitVRLittleEndian
    has_pixel_data, offset, length = (
        _find_deflated_pixel_data(raw)
        if deflated
        else _find_pixel_data(raw, stream.tell(), dataset.original_encoding)
    )
    return RawElements(
        values=values,
        transfer_syntax_uid=syntax,
        is_little_endian=little_endian,
        has_pixel_data=has_pixel_data,
        pixel_offset=offset,
        pixel_length=length,
        complete=True,
    )


def _require_inflatable(raw: bytes) -> None:
    """Inflate a deflated file piece by piece before pydicom does it at once."""
    start = PREAMBLE_LENGTH + 4
    # PS3.10 section 7.1: the meta header begins with its own length.
    if raw[start : start + 8] != b"\x02\x00\x00\x00UL\x04\x00":
        return
    (length,) = struct.unpack_from("<I", raw, start + 8)
    end = start + 12 + length
    if str(DeflatedExplicitVRLittleEndian).encode() in raw[start:end]:
        require_inflatable(raw[end:])


def _raw_values(dataset: Dataset) -> dict[int, bytes]:
    """Return undecoded values; little or big endian, as they stand in the file."""
    values: dict[int, bytes] = {}
    for part in (getattr(dataset, "file_meta", Dataset()), dataset):
        for tag in tags.WANTED:
            if tag not in part:
                continue
            element = part.get_item(tag)
            value = element.value
            if isinstance(value, bytes):
                values[tag] = value
            elif value is not None:
                values[tag] = str(value).encode("ascii", "replace")
    return values


def _ends_inside_a_value(dataset: Dataset) -> bool:
    """Say whether an element has fewer bytes than it declares, as pydicom lets pass."""
    return any(
        isinstance(element, RawDataElement)
        and element.value is not None
        and element.length != _UNDEFINED_LENGTH
        and len(element.value) < element.length
        for element in (dataset.get_item(tag) for tag in dataset.keys())  # noqa: SIM118 - iterating a data set decodes its elements
    )


def _find_pixel_data(
    raw: bytes, offset: int, encoding: tuple[bool | None, bool | None]
) -> tuple[bool, int | None, int | None]:
    """Return (found, offset of the value, declared length) of an element at ``offset``.

    Where the data set ended or was cut off before the pixel data, nothing is found.
    """
    _, little_endian = encoding
    order = "<" if little_endian else ">"
    if offset + 12 > len(raw):
        return False, None, None
    group, element, vr = struct.unpack_from(f"{order}HH2s", raw, offset)
    if group << 16 | element != tags.PIXEL_DATA:
        return False, None, None
    if vr not in _PIXEL_VRS:  # implicit; the transfer syntax need not say so
        (length,) = struct.unpack_from(f"{order}I", raw, offset + 4)
        start = offset + 8
    else:
        (length,) = struct.unpack_from(f"{order}I", raw, offset + 8)
        start = offset + 12
    return True, start, None if length == _UNDEFINED_LENGTH else length


def _find_deflated_pixel_data(raw: bytes) -> tuple[bool, int | None, int | None]:
    """Inflate the whole file: its pixel data have no position in the file itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(io.BytesIO(raw), force=True)
    if "PixelData" not in dataset:
        return False, None, None
    return True, None, len(dataset.PixelData)


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace").strip(" \0")
