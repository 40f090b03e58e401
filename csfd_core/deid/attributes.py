"""What of a CT slice is kept, and the form that each value must have.

Everything that is not listed here is left out: private elements, sequences, dates,
names, free text. A listed element stays only if its value is what the standard promises
for it: a known word, a number of a plausible size, a kernel's name. Anything could be
written into any element, and so could a patient's name.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from csfd_core.dicom import tags

LARGEST: Final = 1e6  # mm, HU, degrees, mA; a date of birth is larger
_LONGEST_NUMBER: Final = 24  # characters; 16 by the standard, more by some devices
_NUMBER: Final = re.compile(rb"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,2})?")
_INTEGER: Final = re.compile(rb"[+-]?[0-9]{1,7}")
# Kernels by the forms that scanners give them: GE by words, Siemens B60s, Br59f, Hr60
# (and an iteration level), Canon FC30, Philips YA to YE, A to E, L and UB.
_KERNEL: Final = re.compile(
    rb"STANDARD|STND|SOFT|BONE|BONEPLUS|EDGE|LUNG|DETAIL|CHEST|ULTRA"
    rb"|[BHUDTIJ][a-z]?[0-9]{2}[a-z]?|FC[0-9]{2}|Y[A-E]|[A-EL]|U[AB]|[1-5]"
)

Clean = Callable[[bytes], bytes | None]


class Attribute(NamedTuple):
    """How an element is written, and what makes its value fit to be kept."""

    vr: bytes
    clean: Clean


def _words(*words: str) -> Clean:
    """Keep the first words, as far as they are known."""
    allowed = {word.encode() for word in words}

    def clean(value: bytes) -> bytes | None:
        leading: list[bytes] = []
        for word in parts(value):
            if word not in allowed:
                break
            leading.append(word)
        return b"\\".join(leading) or None

    return clean


def _numbers(least: int = 1, most: int = 1) -> Clean:
    def clean(value: bytes) -> bytes | None:
        numbers = parts(value)
        is_right = least <= len(numbers) <= most and all(map(_is_number, numbers))
        return b"\\".join(numbers) if is_right else None

    return clean


def _is_number(text: bytes) -> bool:
    if len(text) > _LONGEST_NUMBER or _NUMBER.fullmatch(text) is None:
        return False
    return math.isfinite(float(text)) and abs(float(text)) <= LARGEST


def _integer(value: bytes) -> bytes | None:
    text = value.strip(b" \0")
    is_right = _INTEGER.fullmatch(text) is not None and abs(int(text)) <= LARGEST
    return text if is_right else None


def _short(value: bytes) -> bytes | None:
    return value if len(value) == 2 else None  # bytes of 16 bits


def _kernel(value: bytes) -> bytes | None:
    names = parts(value)
    is_known = len(names) <= 2 and all(map(_KERNEL.fullmatch, names))
    return b"\\".join(names) if is_known else None


def _rescale_type(value: bytes) -> bytes | None:
    """Keep HU; for another word say unspecified, as nothing at all would mean HU."""
    text = value.strip(b" \0")
    return text if text in (b"", b"HU") else b"US"


def parts(value: bytes) -> list[bytes]:
    """Return the values of an element of texts, without padding."""
    return [part.strip(b" \0") for part in value.split(b"\\")]


_MANUFACTURERS: Final = (
    "GE MEDICAL SYSTEMS", "SIEMENS", "Siemens", "Siemens Healthineers",
    "SIEMENS HEALTHINEERS", "Siemens Healthcare", "Philips", "PHILIPS",
    "Philips Medical Systems", "Philips Healthcare", "TOSHIBA", "TOSHIBA_MEC",
    "CANON_MEC", "Canon Medical Systems", "Hitachi Medical Corporation",
    "Hitachi, Ltd.", "FUJIFILM Corporation", "NeuroLogica", "UIH",
    "Neusoft Medical Systems",
)  # fmt: skip
_IMAGE_TYPES: Final = (
    "ORIGINAL", "DERIVED", "PRIMARY", "SECONDARY", "AXIAL", "LOCALIZER", "REFORMATTED",
    "AVERAGE", "MPR", "HELICAL", "VOLUME", "NONE",
)  # fmt: skip
_DS, _IS, _US, _CS, _LO, _SH = b"DS", b"IS", b"US", b"CS", b"LO", b"SH"

# By tag; what is written by the de-identification itself is not among them.
RETAINED: Final[Mapping[int, Attribute]] = {
    tags.IMAGE_TYPE: Attribute(_CS, _words(*_IMAGE_TYPES)),
    tags.MODALITY: Attribute(_CS, _words("CT")),
    0x0008_0070: Attribute(_LO, _words(*_MANUFACTURERS)),
    0x0018_0015: Attribute(  # BodyPartExamined
        _CS, _words("CSPINE", "NECK", "SPINE", "HEADNECK", "HEAD", "TSPINE", "CTSPINE")
    ),
    0x0018_0022: Attribute(  # ScanOptions
        _CS, _words("AXIAL", "HELICAL", "HELICAL MODE", "AXIAL MODE", "HELIX")
    ),
    tags.SLICE_THICKNESS: Attribute(_DS, _numbers()),
    0x0018_0060: Attribute(_DS, _numbers()),  # KVP
    0x0018_0088: Attribute(_DS, _numbers()),  # SpacingBetweenSlices
    0x0018_0090: Attribute(_DS, _numbers()),  # DataCollectionDiameter
    0x0018_1100: Attribute(_DS, _numbers()),  # ReconstructionDiameter
    0x0018_1110: Attribute(_DS, _numbers()),  # DistanceSourceToDetector
    0x0018_1111: Attribute(_DS, _numbers()),  # DistanceSourceToPatient
    tags.GANTRY_DETECTOR_TILT: Attribute(_DS, _numbers()),
    0x0018_1130: Attribute(_DS, _numbers()),  # TableHeight
    0x0018_1140: Attribute(_CS, _words("CW", "CC")),  # RotationDirection
    0x0018_1150: Attribute(_IS, _integer),  # ExposureTime
    0x0018_1151: Attribute(_IS, _integer),  # XRayTubeCurrent
    0x0018_1152: Attribute(_IS, _integer),  # Exposure
    0x0018_1190: Attribute(_DS, _numbers(1, 2)),  # FocalSpots
    tags.CONVOLUTION_KERNEL: Attribute(_SH, _kernel),
    0x0018_5100: Attribute(  # PatientPosition
        _CS, _words("HFS", "HFP", "FFS", "FFP", "HFDR", "HFDL", "FFDR", "FFDL")
    ),
    0x0020_0011: Attribute(_IS, _integer),  # SeriesNumber
    tags.ACQUISITION_NUMBER: Attribute(_IS, _integer),
    tags.INSTANCE_NUMBER: Attribute(_IS, _integer),
    tags.IMAGE_POSITION_PATIENT: Attribute(_DS, _numbers(3, 3)),
    tags.IMAGE_ORIENTATION_PATIENT: Attribute(_DS, _numbers(6, 6)),
    0x0020_1041: Attribute(_DS, _numbers()),  # SliceLocation
    tags.SAMPLES_PER_PIXEL: Attribute(_US, _short),
    tags.PHOTOMETRIC_INTERPRETATION: Attribute(
        _CS, _words("MONOCHROME1", "MONOCHROME2")
    ),
    tags.NUMBER_OF_FRAMES: Attribute(_IS, _integer),
    tags.ROWS: Attribute(_US, _short),
    tags.COLUMNS: Attribute(_US, _short),
    tags.PIXEL_SPACING: Attribute(_DS, _numbers(2, 2)),
    tags.BITS_ALLOCATED: Attribute(_US, _short),
    tags.BITS_STORED: Attribute(_US, _short),
    tags.HIGH_BIT: Attribute(_US, _short),
    tags.PIXEL_REPRESENTATION: Attribute(_US, _short),
    tags.PIXEL_PADDING_VALUE: Attribute(_US, _short),
    tags.PIXEL_PADDING_RANGE_LIMIT: Attribute(_US, _short),
    0x0028_0301: Attribute(_CS, _words("NO")),  # BurnedInAnnotation
    0x0028_1050: Attribute(_DS, _numbers(1, 8)),  # WindowCenter
    0x0028_1051: Attribute(_DS, _numbers(1, 8)),  # WindowWidth
    tags.RESCALE_INTERCEPT: Attribute(_DS, _numbers()),
    tags.RESCALE_SLOPE: Attribute(_DS, _numbers()),
    tags.RESCALE_TYPE: Attribute(_LO, _rescale_type),
    0x0028_1056: Attribute(_CS, _words("LINEAR", "LINEAR_EXACT", "SIGMOID")),
    0x0028_2110: Attribute(_CS, _words("00", "01")),  # LossyImageCompression
}
SIGNED: Final = frozenset((tags.PIXEL_PADDING_VALUE, tags.PIXEL_PADDING_RANGE_LIMIT))
