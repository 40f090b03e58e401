"""One CT slice without its patient: what is not on the list is left out.

The Basic Application Confidentiality Profile of PS3.15 without any of its options: UIDs
and the PatientID become keyed digests, dates and texts are not kept at all. The file is
read with pydicom and written anew, in its own transfer syntax.
"""

import hashlib
import io
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from pydicom import dcmread
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    RLELossless,
)

from csfd_core.deid.attributes import RETAINED, SIGNED, parts
from csfd_core.deid.identities import (
    keyed_patient,
    keyed_uid,
    reference_digest,
    study_uid_of,
    uid_of,
)
from csfd_core.deid.refusals import Reason, RefusedError
from csfd_core.deid.streams import blank_comments, encapsulate, join_fragments
from csfd_core.deid.writing import Encoder, file_meta
from csfd_core.dicom import tags
from csfd_core.dicom.elements import is_native, read_elements
from csfd_core.dicom.limits import limits
from csfd_core.errors import FileTooLargeError, NotDicomError

_ACCESSION_NUMBER: Final = 0x0008_0050
_CHARACTER_SET: Final = 0x0008_0005
_BURNED_IN: Final = 0x0028_0301
_FRAME_OF_REFERENCE: Final = 0x0020_0052
_OVERLAY_BIT: Final = 0x6000_0102  # of the first of sixteen groups
_PRIORITIES: Final = (0x0040_1003, 0x0032_000C)  # of the procedure, of the study
_URGENCIES: Final = {b"STAT": 2, b"HIGH": 1}
_OVERLAY_GROUPS: Final = range(0, 0x20, 2)
EMPTY: Final = {  # type 2 of the CT image: there, and empty
    0x0008_0020: b"DA",
    0x0008_0030: b"TM",
    0x0008_0050: b"SH",
    0x0008_0090: b"PN",
    0x0010_0010: b"PN",
    0x0010_0030: b"DA",
    0x0010_0040: b"CS",
    0x0020_0010: b"SH",
}
WRITTEN: Final = frozenset(  # what may have a value in a file that was de-identified
    {
        *RETAINED,
        tags.SOP_CLASS_UID,
        tags.SOP_INSTANCE_UID,
        tags.STUDY_INSTANCE_UID,
        tags.SERIES_INSTANCE_UID,
        _FRAME_OF_REFERENCE,
        tags.PATIENT_ID,
        0x0012_0062,  # PatientIdentityRemoved
        0x0012_0063,  # DeidentificationMethod
        0x0012_0064,  # DeidentificationMethodCodeSequence
        0x0028_0303,  # LongitudinalTemporalInformationModified
    }
)
_METHOD: Final = b"csfd: allowlist of CT attributes, keyed UIDs and PatientID"
_PROFILE: Final = {
    0x0008_0100: (b"SH", b"113100"),
    0x0008_0102: (b"SH", b"DCM"),
    0x0008_0104: (b"LO", b"Basic Application Confidentiality Profile"),
}
# PS3.5 section A.4: JPEG, JPEG-LS, JPEG 2000 and its high-throughput form.
JPEG_SYNTAXES: Final = frozenset(
    f"1.2.840.10008.1.2.4.{number}"
    for number in (50, 51, 53, 55, 57, 70, 80, 81, 90, 91, 201, 202, 203)
)
_SCREENS: Final = frozenset((b"SCREEN SAVE", b"SCREEN", b"SCREENSHOT", b"PASTED"))
_UNDEFINED: Final = 0xFFFFFFFF
_NEEDED: Final = (tags.ROWS, tags.COLUMNS, tags.BITS_ALLOCATED)

_QUIET: Final = threading.Lock()  # filters of warnings belong to the whole process

Order = Literal["little", "big"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deidentified:
    """A slice that names nobody.

    Attributes:
        content: A DICOM file.
        study_uid: Keyed, as in the file.
        sop_uid: Keyed, as in the file.
        references: Keyed digests of what the study may be searched by.
        urgency: As it was asked for: 0 routine, 1 urgent, 2 STAT.
    """

    content: bytes
    study_uid: str
    sop_uid: str
    references: frozenset[str]
    urgency: int = 0


def deidentify(raw: bytes, secret: bytes) -> Deidentified:
    """De-identify one file.

    Args:
        raw: The whole file.
        secret: Of this installation, from ``read_secret``.

    Raises:
        RefusedError: If it is no slice of a CT that can be used; it says why.
    """
    dataset, values, syntax = _read(raw)
    _require_slice(values)
    study_uid = study_uid_of(values)
    if study_uid is None:
        raise RefusedError(Reason.NO_STUDY)
    # Without an identity of its own, a file is what it holds.
    given_uid = uid_of(values, tags.SOP_INSTANCE_UID)
    sop_uid = given_uid or f"{study_uid} file {hashlib.sha256(raw).hexdigest()}"
    series_uid = uid_of(values, tags.SERIES_INSTANCE_UID) or f"{study_uid} series"
    elements = _retained(values)
    elements.update({tag: (vr, b"") for tag, vr in EMPTY.items()})
    written = (
        ExplicitVRLittleEndian if syntax == DeflatedExplicitVRLittleEndian else syntax
    )
    encoder = Encoder(written)
    identities = {
        tags.SOP_CLASS_UID: CTImageStorage,
        tags.SOP_INSTANCE_UID: keyed_uid(sop_uid, secret),
        tags.STUDY_INSTANCE_UID: keyed_uid(study_uid, secret),
        tags.SERIES_INSTANCE_UID: keyed_uid(series_uid, secret),
    }
    frame = uid_of(values, _FRAME_OF_REFERENCE)
    if frame is not None:
        identities[_FRAME_OF_REFERENCE] = keyed_uid(frame, secret)
    elements.update({tag: (b"UI", uid.encode()) for tag, uid in identities.items()})
    patient = keyed_patient(values, study_uid, secret)
    elements[tags.PATIENT_ID] = (b"LO", patient.encode())
    elements[0x0012_0062] = (b"CS", b"YES")
    elements[0x0012_0063] = (b"LO", _METHOD)
    elements[0x0012_0064] = (b"SQ", encoder.item(_PROFILE))
    elements[0x0028_0303] = (b"CS", b"REMOVED")
    meta = file_meta(CTImageStorage, identities[tags.SOP_INSTANCE_UID], written)
    pixels = _pixels(dataset, values, written, encoder)
    return Deidentified(
        content=meta + encoder.elements(elements) + pixels,
        study_uid=identities[tags.STUDY_INSTANCE_UID],
        sop_uid=identities[tags.SOP_INSTANCE_UID],
        references=_references(values, study_uid, secret),
        urgency=_urgency(values),
    )


def _read(raw: bytes) -> tuple[Dataset, dict[int, bytes], str]:
    """Return what pydicom reads, its undecoded values, and the transfer syntax.

    Raises:
        RefusedError: If the file cannot be read, or would take too much memory.
    """
    if len(raw) > limits().file_bytes:
        raise RefusedError(Reason.TOO_LARGE)
    try:
        with quiet():
            # Refuses damage and deflated bombs; names a syntax where the file does not.
            syntax = read_elements(raw).transfer_syntax_uid
            dataset = dcmread(io.BytesIO(raw), force=True)
            return dataset, _raw_values(dataset), syntax
    except NotDicomError:
        raise RefusedError(Reason.NOT_DICOM) from None
    except FileTooLargeError:
        raise RefusedError(Reason.TOO_LARGE) from None
    except Exception:  # noqa: BLE001 - damaged bytes fail in many ways
        raise RefusedError(Reason.DAMAGED) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Let pydicom not warn: its warnings repeat values. One thread at a time may."""
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _raw_values(dataset: Dataset) -> dict[int, bytes]:
    """Return the undecoded values of all elements that have any."""
    values: dict[int, bytes] = {}
    for tag in dataset.keys():  # noqa: SIM118 - iterating a data set decodes its elements
        value = dataset.get_item(tag).value
        if isinstance(value, bytes):
            values[int(tag)] = value
        elif int(tag) == _CHARACTER_SET and value:  # pydicom decodes it at once
            words = [value] if isinstance(value, str) else [str(word) for word in value]
            values[int(tag)] = "\\".join(words).encode("ascii", "replace")
    return values


def _require_slice(values: Mapping[int, bytes]) -> None:
    """Require an original slice of a CT.

    Raises:
        RefusedError: If the file is anything else.
    """
    words = parts(values.get(tags.IMAGE_TYPE, b""))
    modality = values.get(tags.MODALITY, b"").strip(b" \0")
    sop_class = values.get(tags.SOP_CLASS_UID, b"").strip(b" \0").decode("latin-1")
    burned_in = values.get(_BURNED_IN, b"").strip(b" \0").upper()
    samples = values.get(tags.SAMPLES_PER_PIXEL, b"").strip(b"\0")
    frames = values.get(tags.NUMBER_OF_FRAMES, b"1").strip(b" \0") or b"1"
    is_reformat = b"SECONDARY" in words and words[2:3] != [b"AXIAL"]
    is_screen = bool(_SCREENS & set(words)) or samples not in (b"", b"\1")
    tests = (
        (sop_class == EnhancedCTImageStorage, Reason.MULTI_FRAME),
        (_is_screenshot_class(sop_class), Reason.SCREENSHOT),
        (not values.get(tags.ROWS), Reason.NO_IMAGE),
        (modality != b"CT", Reason.OTHER_MODALITY),
        (sop_class not in ("", CTImageStorage), Reason.OTHER_MODALITY),
        (b"LOCALIZER" in words, Reason.LOCALIZER),
        (burned_in == b"YES", Reason.BURNED_IN),
        (is_screen or (is_reformat and burned_in != b"NO"), Reason.SCREENSHOT),
        (frames != b"1", Reason.MULTI_FRAME),
    )
    for is_so, reason in tests:
        if is_so:
            raise RefusedError(reason)


def _is_screenshot_class(sop_class: str) -> bool:
    """Say whether a SOP class is Secondary Capture, of any number of frames."""
    root = "1.2.840.10008.5.1.4.1.1.7"
    return sop_class == root or sop_class.startswith(f"{root}.")


def _retained(values: Mapping[int, bytes]) -> dict[int, tuple[bytes, bytes]]:
    """Return what is on the list and has its form, with the VR to write."""
    is_signed = values.get(tags.PIXEL_REPRESENTATION, b"").strip(b"\0") == b"\1"
    elements = {}
    for tag, attribute in RETAINED.items():
        value = values.get(tag)
        clean = None if value is None else attribute.clean(value)
        if clean is not None:
            vr = b"SS" if is_signed and tag in SIGNED else attribute.vr
            elements[tag] = (vr, clean)
    return elements


def _pixels(
    dataset: Dataset, values: Mapping[int, bytes], syntax: str, encoder: Encoder
) -> bytes:
    """Return the pixel data and nothing else that lies in or behind them.

    Raises:
        RefusedError: If they are missing, cut off, or of an unknown transfer syntax.
    """
    value = values.get(tags.PIXEL_DATA)
    if value is None or any(len(values.get(tag, b"")) != 2 for tag in _NEEDED):
        raise RefusedError(Reason.DAMAGED)
    order: Order = "big" if syntax == ExplicitVRBigEndian else "little"
    rows, columns, bits = (int.from_bytes(values[tag], order) for tag in _NEEDED)
    size = rows * columns
    if not size or size > limits().pixels or bits not in (8, 16, 32):
        raise RefusedError(Reason.TOO_LARGE if size else Reason.DAMAGED)
    overlays = _overlay_bits(values, order, bits)
    element: Any = dataset.get_item(tags.PIXEL_DATA)
    is_raw = isinstance(element, RawDataElement)
    is_encapsulated = is_raw and element.length == _UNDEFINED
    if is_native(syntax):
        expected = size * bits // 8
        if is_encapsulated or len(value) < expected:
            raise RefusedError(Reason.DAMAGED)
        native = _without(value[:expected], overlays, bits, order)
        vr = b"OB" if bits == 8 else b"OW"
        return encoder.element(tags.PIXEL_DATA, vr, _even(native))
    if syntax != RLELossless and syntax not in JPEG_SYNTAXES:
        raise RefusedError(Reason.SYNTAX)
    if overlays:
        raise RefusedError(Reason.OVERLAY)
    if not is_encapsulated:
        raise RefusedError(Reason.DAMAGED)
    frame = blank_comments(
        join_fragments(value), is_rle=syntax == RLELossless, segment_bytes=size
    )
    return encoder.encapsulated(tags.PIXEL_DATA, encapsulate(frame))


def _even(value: bytes) -> bytes:
    return value + b"\0" * (len(value) % 2)


def _overlay_bits(values: Mapping[int, bytes], order: Order, bits: int) -> int:
    """Return a mask of the bits of a pixel that hold drawings.

    Until 2004 overlays could lie in the unused bits of the pixels (PS3.3 C.9.2).
    """
    used = int.from_bytes(values.get(tags.BITS_STORED, b""), order)
    mask = 0
    for group in _OVERLAY_GROUPS:
        value = values.get(_OVERLAY_BIT + (group << 16), b"")
        position = int.from_bytes(value, order)
        if len(value) == 2 and max(1, used) <= position < bits:
            mask |= 1 << position
    return mask


def _without(value: bytes, mask: int, bits: int, order: Order) -> bytes:
    if not mask:
        return value
    kind = np.dtype(f"{'>' if order == 'big' else '<'}u{bits // 8}")
    pixels = np.frombuffer(value, kind)
    unmasked = (pixels & kind.type(~mask & ((1 << bits) - 1))).astype(kind)
    return bytes(unmasked.tobytes())


def _references(
    values: Mapping[int, bytes], study_uid: str, secret: bytes
) -> frozenset[str]:
    """Return keyed digests of what a reader may know a study by."""
    stated = values.get(tags.STUDY_INSTANCE_UID, b"").decode("ascii", "replace")
    texts = {study_uid, stated.strip(" \0")}
    for tag in (_ACCESSION_NUMBER, tags.PATIENT_ID):
        texts.add(_decoded(values, tag).strip(" \0"))
    return frozenset(reference_digest(text, secret) for text in texts if text)


def _urgency(values: Mapping[int, bytes]) -> int:
    words = (values.get(tag, b"").strip(b" \0").upper() for tag in _PRIORITIES)
    return max(_URGENCIES.get(word, 0) for word in words)


def _decoded(values: Mapping[int, bytes], tag: int) -> str:
    value = values.get(tag, b"")
    named = values.get(_CHARACTER_SET, b"").decode("ascii", "replace")
    try:
        with quiet():
            encodings = convert_encodings([n.strip(" \0") for n in named.split("\\")])
            return decode_bytes(value, encodings, {ord("\\")})
    except (LookupError, ValueError):
        return value.decode("latin-1")
