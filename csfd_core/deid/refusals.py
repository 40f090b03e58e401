"""Why a file is not taken: each reason has a short code and says what to do.

What lies beside the slices of a study in every export (reports, localizers, a viewer's
own files) is passed over; what should have been a slice and cannot be used is refused.
"""

from enum import StrEnum
from typing import Final

from csfd_core.errors import DicomError
from csfd_core.text import agree, count


class Reason(StrEnum):
    """Short code of a reason."""

    NOT_DICOM = "not-dicom"
    OTHER_MODALITY = "other-modality"
    NO_IMAGE = "no-image"  # a report, a plan, a directory of a medium
    SCREENSHOT = "screenshot"
    LOCALIZER = "localizer"
    DAMAGED = "damaged"
    TOO_LARGE = "too-large"
    BURNED_IN = "burned-in"
    OVERLAY = "overlay"
    NO_STUDY = "no-study"
    MULTI_FRAME = "multi-frame"
    SYNTAX = "transfer-syntax"

    @property
    def is_passed_over(self) -> bool:
        """Whether such a file may lie beside a study that is whole."""
        return self in _PASSED_OVER


_PASSED_OVER: Final = frozenset(
    (
        Reason.NOT_DICOM,
        Reason.OTHER_MODALITY,
        Reason.NO_IMAGE,
        Reason.SCREENSHOT,
        Reason.LOCALIZER,
    )
)
# What follows the number of files: of one, of several, what to do.
_TOLD: Final[dict[Reason, tuple[str, str, str]]] = {
    Reason.NOT_DICOM: ("is no DICOM file", "are no DICOM files", ""),
    Reason.OTHER_MODALITY: ("is of another modality", "are of another modality", ""),
    Reason.NO_IMAGE: (
        "is no image but a report or the like",
        "are no images but reports or the like",
        "",
    ),
    Reason.SCREENSHOT: (
        "is a screenshot or reformat that may show a name",
        "are screenshots or reformats that may show a name",
        "",
    ),
    Reason.LOCALIZER: ("is a localizer", "are localizers", ""),
    Reason.DAMAGED: ("is damaged or cut off", "are damaged or cut off", "Export again"),
    Reason.TOO_LARGE: (
        "is larger than any slice (CSFD_MAX_FILE_MB)",
        "are larger than any slice (CSFD_MAX_FILE_MB)",
        "Export single slices",
    ),
    Reason.BURNED_IN: (
        "has text burned into its pixels",
        "have text burned into their pixels",
        "Export the original images",
    ),
    Reason.OVERLAY: (
        "has drawings inside its compressed pixels",
        "have drawings inside their compressed pixels",
        "Export without compression",
    ),
    Reason.NO_STUDY: (
        "has no valid StudyInstanceUID",
        "have no valid StudyInstanceUID",
        "Export from the archive",
    ),
    Reason.MULTI_FRAME: (
        "holds many frames (Enhanced CT)",
        "hold many frames (Enhanced CT)",
        "Export single slices (CT Image Storage)",
    ),
    Reason.SYNTAX: (
        "is compressed in a way that csfd does not read",
        "are compressed in a way that csfd does not read",
        "Export without compression",
    ),
}


class RefusedError(DicomError):
    """A file that is not taken. Takes the reason alone; its text says no word of it."""

    def __init__(self, reason: Reason) -> None:
        """Take the reason."""
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        """Return a sentence about the file."""
        return tell(self.reason, 1)


def tell(reason: Reason, number: int) -> str:
    """Say in a sentence how many files were not taken, why, and what to do.

    Args:
        reason: Of all of them.
        number: How many.
    """
    one, many, remedy = _TOLD[reason]
    told = f"{count(number, 'file')} {agree(number, one, many)}"
    if reason.is_passed_over:
        return f"{told}: passed over."
    return f"{told}. {remedy}." if remedy else f"{told}."
