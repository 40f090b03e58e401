"""In which form a client takes an object, and the object in that form.

As it is stored, or uncompressed in explicit little endian, which every client takes: to
compress anew would change what is shown.
"""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from fastapi import HTTPException
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import ExplicitVRLittleEndian

from csfd_core.deid.deidentify import quiet
from csfd_core.dicom.elements import is_native
from csfd_core.dicom.headers import read_slice_header
from csfd_core.dicom.pixels import DecodedSlice, expected_pixel_bytes
from csfd_core.web.dicomweb.multipart import MediaType

DICOM: Final = "application/dicom"
BYTES: Final = "application/octet-stream"
_PLAIN: Final = str(ExplicitVRLittleEndian)
_ANY: Final = "*"
_OF_BYTES: Final = (BYTES, "application/*", "*/*")
_LONGEST: Final = 4096  # characters of Accept
# PS3.18 table 8.7.3-5, by transfer syntax.
_IMAGE_TYPES: Final[Mapping[str, str]] = {
    "1.2.840.10008.1.2.5": "image/dicom-rle",
    **{
        f"1.2.840.10008.1.2.4.{number}": media_type
        for media_type, numbers in (
            ("image/jpeg", (50, 51, 53, 55, 57, 70)),
            ("image/jls", (80, 81)),
            ("image/jp2", (90, 91)),
            ("image/jphc", (201, 202, 203)),
        )
        for number in numbers
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """One form that a client takes; ``syntax`` is empty where it says nothing of it."""

    media_type: str
    syntax: str
    is_multipart: bool


def accepted_in(header: str | None) -> list[Accepted]:
    """Return what an Accept header asks for, the most wanted first.

    Raises:
        HTTPException: 406 for a header of a length that no client needs.
    """
    if len(header or "") > _LONGEST:
        raise HTTPException(406, "The Accept header is too long.")
    wanted: list[tuple[float, Accepted]] = []
    for text in _split(header or "*/*"):
        media_type = MediaType.of(text)
        weight = _weight(media_type.parameters.get("q", "1"))
        if not weight:
            continue
        is_multipart = media_type.name == "multipart/related"
        name = (media_type.related or "*/*") if is_multipart else media_type.name
        syntax = media_type.parameters.get("transfer-syntax", "").strip()
        one = Accepted(media_type=name, syntax=syntax, is_multipart=is_multipart)
        wanted.append((weight, one))
    wanted.sort(key=lambda pair: -pair[0])
    return [one for _, one in wanted]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How objects are sent.

    Attributes:
        is_multipart: Each as a part of a body.
        syntaxes: Transfer syntaxes that may stay as they are; what is stored in
            another one is sent uncompressed.
        is_any: Every transfer syntax may stay.
        is_plain: Uncompressed is taken.
    """

    is_multipart: bool
    syntaxes: frozenset[str]
    is_any: bool
    is_plain: bool

    def keeps(self, transfer_syntax_uid: str) -> bool:
        """Say whether what is stored in a transfer syntax is sent as it is."""
        return self.is_any or transfer_syntax_uid in self.syntaxes


def form_of_files(header: str | None) -> Form:
    """Return how DICOM files are sent to who accepts this.

    Raises:
        HTTPException: 406 where no form will do.
    """
    types = (DICOM, "*/*", "application/*")
    fitting = [one for one in accepted_in(header) if one.media_type in types]
    if not fitting:
        raise HTTPException(
            406, f'Objects are sent as multipart/related; type="{DICOM}".'
        )
    return Form(
        is_multipart=fitting[0].is_multipart or fitting[0].media_type != DICOM,
        syntaxes=frozenset(one.syntax for one in fitting) - {_ANY, ""},
        is_any=any(
            one.syntax == _ANY or (one.media_type != DICOM and not one.syntax)
            for one in fitting
        ),
        # PS3.18 section 8.7.3.5.2: the default where nothing is said.
        is_plain=any(one.syntax in ("", _ANY, _PLAIN) for one in fitting),
    )


def file_in(form: Form, raw: bytes, transfer_syntax_uid: str) -> tuple[str, bytes]:
    """Return the content type and the bytes of a file in a form.

    Args:
        form: From ``form_of_files``.
        raw: The file as it is stored.
        transfer_syntax_uid: As it is stored.

    Raises:
        HTTPException: 406 where it cannot be sent in any form that is taken.
        DicomError: If its pixels cannot be decoded.
    """
    if form.keeps(transfer_syntax_uid):
        return f"{DICOM}; transfer-syntax={transfer_syntax_uid}", raw
    if not form.is_plain:
        raise HTTPException(
            406,
            f"Some of it is stored in {transfer_syntax_uid}: accept that, "
            f"transfer-syntax=* or {_PLAIN}.",
        )
    if transfer_syntax_uid != _PLAIN:
        raw = _uncompressed(raw)
    return f"{DICOM}; transfer-syntax={_PLAIN}", raw


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """Frames of an object as they are sent."""

    part_type: str
    is_multipart: bool
    content: list[bytes]


def frames_in(
    header: str | None, raw: bytes, transfer_syntax_uid: str, numbers: list[int]
) -> Frames:
    """Return frames in the first form that a client takes and that can be had.

    Args:
        header: Accept, as it was sent.
        raw: The file as it is stored.
        transfer_syntax_uid: As it is stored.
        numbers: From 1.

    Raises:
        HTTPException: 406 where no form will do.
        DicomError: If the pixels cannot be decoded.
    """
    own_type = _IMAGE_TYPES.get(transfer_syntax_uid, BYTES)
    is_coded = not is_native(transfer_syntax_uid)
    for one in accepted_in(header):
        media_type = _coded_type(one, transfer_syntax_uid, own_type) if is_coded else ""
        syntax = transfer_syntax_uid
        if media_type:
            content = _coded_frames(raw, numbers)
        elif one.media_type in _OF_BYTES and one.syntax in ("", _ANY, _PLAIN):
            media_type, syntax = BYTES, _PLAIN
            content = list(_plain_frames(raw, numbers))
        else:
            continue
        is_single = one.media_type == media_type and not one.is_multipart
        return Frames(
            part_type=f"{media_type}; transfer-syntax={syntax}",
            is_multipart=not is_single or len(numbers) > 1,
            content=content,
        )
    raise HTTPException(
        406, f'Frames are sent as multipart/related; type="{BYTES}" or {own_type}.'
    )


def _coded_type(one: Accepted, transfer_syntax_uid: str, own_type: str) -> str:
    """Return as what compressed frames are sent; empty: they are not accepted."""
    is_named = one.syntax in (_ANY, transfer_syntax_uid)
    if one.media_type == BYTES and is_named:
        return BYTES
    fits = one.media_type in (own_type, "image/*", "*/*")
    return own_type if fits and (is_named or not one.syntax) else ""


def _coded_frames(raw: bytes, numbers: list[int]) -> list[bytes]:
    with quiet():
        dataset = dcmread(io.BytesIO(raw))
        count = int(dataset.get("NumberOfFrames") or 1)
        return [
            get_frame(dataset.PixelData, number - 1, number_of_frames=count)
            for number in numbers
        ]


def _plain_frames(raw: bytes, numbers: list[int]) -> Iterator[bytes]:
    with quiet():
        dataset = dcmread(io.BytesIO(raw))
    if int(dataset.get("NumberOfFrames") or 1) == 1 and dataset.SamplesPerPixel == 1:
        if dataset.BitsAllocated > 1:
            yield _stored_values(raw).tobytes()
            return
    elif not is_native(dataset.file_meta.TransferSyntaxUID):
        with quiet():
            dataset.decompress()
    pixels = int(dataset.Rows) * int(dataset.Columns) * int(dataset.SamplesPerPixel)
    bits = pixels * int(dataset.BitsAllocated)
    for number in numbers:
        yield _bits_of(dataset.PixelData, (number - 1) * bits, bits)


def _bits_of(content: bytes, start: int, length: int) -> bytes:
    """Return some bits; frames of single bits follow each other without a gap."""
    if start % 8 == 0 and length % 8 == 0:
        return content[start // 8 : (start + length) // 8]
    chosen = np.frombuffer(content[start // 8 : -(-(start + length) // 8)], np.uint8)
    bits = np.unpackbits(chosen, bitorder="little")[start % 8 :][:length]
    return np.packbits(bits, bitorder="little").tobytes()


def _stored_values(raw: bytes) -> npt.NDArray[np.integer]:
    """Return the values of a slice, little-endian, as many bytes as are allocated."""
    header = read_slice_header(raw, "")
    assert header is not None  # the file is whole
    length, offset = expected_pixel_bytes(header), header.pixel_offset
    if length is None or offset is None or not is_native(header.transfer_syntax_uid):
        values = DecodedSlice(raw, header).stored_values()
        return values.astype(values.dtype.newbyteorder("<"))
    width = (header.bits_allocated or 8) // 8
    kind = f"{'<' if header.is_little_endian else '>'}u{width}"
    native = np.frombuffer(raw, kind, length // width, offset)
    return native.astype(f"<u{width}")


def _uncompressed(raw: bytes) -> bytes:
    with quiet():
        dataset = dcmread(io.BytesIO(raw))
        if "PixelData" in dataset:
            _decode(dataset, raw)
        plain = Dataset()  # which was read in no byte order
        plain.update({element.tag: element for element in dataset})
        plain.file_meta, plain.preamble = dataset.file_meta, bytes(128)
        plain.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        sink = io.BytesIO()
        plain.save_as(
            sink, implicit_vr=False, little_endian=True, enforce_file_format=True
        )
    return sink.getvalue()


def _decode(dataset: Dataset, raw: bytes) -> None:
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames == 1 and dataset.SamplesPerPixel == 1 and dataset.BitsAllocated > 1:
        content = _stored_values(raw).tobytes()
        element: Any = dataset["PixelData"]
        dataset.PixelData = content + b"\0" * (len(content) % 2)
        element.VR = "OB" if dataset.BitsAllocated == 8 else "OW"
        element.is_undefined_length = False
    elif not is_native(dataset.file_meta.TransferSyntaxUID):
        dataset.decompress()


def _split(header: str) -> list[str]:
    """Split at commas that are not in quotes."""
    parts, is_quoted = [""], False
    for letter in header:
        is_quoted ^= letter == '"'
        if letter == "," and not is_quoted:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0
