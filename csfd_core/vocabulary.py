"""Words and constants of the field, each defined once.

Holds the vertebra levels, their colours, the names of label columns, the number of
folds, the profiles, the window and quality of stored slices, and the rule for study
identifiers. No file access, no heavy imports.
"""

import hashlib
import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal

from csfd_core.errors import IdentifierError


class VertebraLevel(IntEnum):
    """Cervical vertebrae; the value is the label in segmentation masks."""

    C1 = 1
    C2 = 2
    C3 = 3
    C4 = 4
    C5 = 5
    C6 = 6
    C7 = 7


LEVELS: Final = tuple(VertebraLevel)
LEVEL_NAMES: Final = tuple(level.name for level in LEVELS)
OVERALL: Final = "patient_overall"
Profile = Literal["demo", "full"]  # sizes of models and crops: two processors, a GPU
FOLD_COUNT: Final = 5  # of the patients outside of the locked test set
LABEL_COLUMNS: Final = (OVERALL, *LEVEL_NAMES)

T1_LABEL: Final = 8  # masks continue below C7: T1 = 8 ... T12 = 19
HIGHEST_MASK_LABEL: Final = 19

# Volume of each vertebra relative to the mean of all seven, as in the phantom.
RELATIVE_VOLUMES: Final = dict(
    zip(LEVEL_NAMES, (1.07, 1.41, 0.8, 0.85, 0.83, 0.96, 1.08), strict=True)
)

# Okabe and Ito (2008), colour-blind safe: one colour per level, the same in every
# figure, film and page.
LEVEL_COLOURS: Final[dict[str, str]] = {
    "C1": "#E69F00",
    "C2": "#56B4E9",
    "C3": "#009E73",
    "C4": "#F0E442",
    "C5": "#0072B2",
    "C6": "#D55E00",
    "C7": "#CC79A7",
}


@dataclass(frozen=True, slots=True)
class Window:
    """A linear grey-scale window in Hounsfield units (DICOM PS3.3 C.11.2)."""

    center_hu: float
    width_hu: float

    def __post_init__(self) -> None:
        """Require a width above 1 HU, as the LINEAR function divides by width - 1."""
        if not self.width_hu > 1:
            raise ValueError(
                "`width_hu` must be greater than 1. "
                f"Received: width_hu={self.width_hu}."
            )


BONE_WINDOW: Final = Window(center_hu=400.0, width_hu=1800.0)
JPEG_QUALITY: Final = 96  # 95 falls below 42 dB inside bone on the noisiest kernels

# DICOM PS3.5 section 9.1: digits and dots, at most 64 characters, no empty component,
# no leading zero in a component.
_UID: Final = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+", re.ASCII)
_UID_LENGTH: Final = 64
OWN_ROOT: Final = "2.25."  # of identifiers that stand for odd ones
_LIKE_A_UID: Final = re.compile(r"[0-9]+(\.[0-9]+){2,}", re.ASCII)


def is_uid(text: str) -> bool:
    """Say whether ``text`` is a valid DICOM UID (PS3.5 section 9.1)."""
    return len(text) <= _UID_LENGTH and _UID.fullmatch(text) is not None


def own_uid(text: str) -> str:
    """Return an identifier that is a valid UID.

    Valid UIDs are returned as they are. Digits and dots that are too long or have
    leading zeros, as some devices write them and archives accept them, are stood for by
    a UID of their digest (2.25 and 128 bits, as PS3.5 section B.2 has it for a UUID).
    Anything else is returned as it is: it is no identifier of a study.
    """
    if is_uid(text) or _LIKE_A_UID.fullmatch(text) is None:
        return text
    digest = hashlib.sha256(text.encode()).digest()
    return f"{OWN_ROOT}{int.from_bytes(digest[:16], 'big')}"


def require_uid(text: str) -> str:
    """Return ``text`` if it is a valid DICOM UID.

    Every identifier from outside passes here before it becomes part of a path.

    Raises:
        IdentifierError: If it is not, for example ``../x``.
    """
    if not is_uid(text):
        raise IdentifierError(
            f"Not a valid DICOM UID: {text[:80]!r}. A UID has digits and dots only, "
            f"no leading zeros and at most {_UID_LENGTH} characters."
        )
    return text
