"""Findings: what can be wrong with a study, in one catalogue.

A study that cannot be trusted is data, not a failure: it carries findings. Each kind of
finding has a code, a severity and a remedy here, once; the sentence that says what was
seen in a certain study is written where it is seen (``checks``, ``nifti``). Codes are
stable: they are stored and counted.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Severity(StrEnum):
    """What a finding means for its study."""

    QUARANTINE = "quarantine"  # kept out of the slice store and of training
    WARNING = "warning"  # used, and shown


class Status(StrEnum):
    """Standing of a study after its checks."""

    GOOD = "good"
    WARNING = "warning"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class FindingKind:
    """One entry of the catalogue."""

    severity: Severity
    meaning: str
    remedy: str


_REFETCH: Final = "Fetch the study again from the archive."
_ONE_SERIES: Final = "Keep one axial series of one study in the folder."

# In order of precedence: the first finding of a study is its quarantine code.
CATALOGUE: Final[dict[str, FindingKind]] = {
    code: FindingKind(Severity(severity), meaning, remedy)
    for code, severity, meaning, remedy in [
        (
            "invalid_uid",
            "quarantine",
            "A StudyInstanceUID is no valid DICOM UID.",
            "Name the folder by the StudyInstanceUID: digits and dots only.",
        ),
        (
            "unreadable",
            "quarantine",
            "The study could not be read to its end.",
            "Fetch it again from the archive; if that does not help, report it.",
        ),
        ("no_dicom", "quarantine", "The folder holds no DICOM file.", _REFETCH),
        ("empty_file", "quarantine", "A slice file has no content.", _REFETCH),
        ("not_dicom", "quarantine", "A slice file is no DICOM file.", _REFETCH),
        (
            "file_too_large",
            "quarantine",
            "A file is larger than any slice.",
            "Remove it if it is none; otherwise raise the limit.",
        ),
        ("truncated_file", "quarantine", "A slice file is cut off.", _REFETCH),
        (
            "study_uid_mismatch",
            "quarantine",
            "The StudyInstanceUID in a file differs from its folder's name.",
            "Move the file to the folder of its own study.",
        ),
        (
            "several_series",
            "quarantine",
            "The folder holds more than one series.",
            _ONE_SERIES,
        ),
        (
            "several_patients",
            "quarantine",
            "The folder holds slices of more than one patient.",
            _ONE_SERIES,
        ),
        ("no_pixel_data", "quarantine", "A slice has no pixel data.", _REFETCH),
        (
            "pixel_data_length",
            "quarantine",
            "The pixel data are not as long as rows, columns and bits demand.",
            _REFETCH,
        ),
        (
            "unsupported_pixels",
            "quarantine",
            "A slice is no single grey-scale image.",
            "Export the series as single-frame MONOCHROME images.",
        ),
        (
            "undecodable_pixels",
            "quarantine",
            "The compressed pixel data cannot be decoded.",
            "Export the series again, best as Explicit VR Little Endian.",
        ),
        (
            "no_geometry",
            "quarantine",
            "Position, orientation or pixel spacing is missing.",
            "Export the original axial series, not a screenshot or derived image.",
        ),
        (
            "mixed_orientation",
            "quarantine",
            "The slices do not lie parallel.",
            _ONE_SERIES,
        ),
        (
            "mixed_matrix_size",
            "quarantine",
            "The slices differ in rows or columns.",
            _ONE_SERIES,
        ),
        (
            "mixed_pixel_spacing",
            "quarantine",
            "The slices differ in pixel spacing.",
            _ONE_SERIES,
        ),
        (
            "duplicate_position",
            "quarantine",
            "Several slices lie at the same position.",
            "Remove the repeated slices, or keep one phase of a dynamic series.",
        ),
        (
            "duplicate_sop_uid",
            "quarantine",
            "Several slices have the same SOPInstanceUID.",
            "Remove the copies.",
        ),
        (
            "gantry_tilt",
            "quarantine",
            "The slices are sheared: the gantry was tilted.",
            "Resample the series to an untilted one on the workstation.",
        ),
        (
            "shifted_slices",
            "quarantine",
            "Slices lie beside the line of the others.",
            "Reconstruct the series with one centre and field of view.",
        ),
        (
            "missing_slices",
            "quarantine",
            "Slices are missing between others.",
            _REFETCH,
        ),
        (
            "uneven_spacing",
            "quarantine",
            "The distance between slices changes along the stack.",
            "Reconstruct the series with even spacing, or keep its even part.",
        ),
        (
            "too_few_slices",
            "quarantine",
            "The series has too few slices to hold a neck.",
            "Add the full axial series instead of a localizer or an excerpt.",
        ),
        ("wrong_modality", "quarantine", "The series is no CT.", "Provide CT images."),
        (
            "not_axial",
            "quarantine",
            "The slices are sagittal or coronal, not axial.",
            "Provide the original axial series.",
        ),
        (
            "no_hounsfield",
            "quarantine",
            "The values are no Hounsfield units.",
            "Export the original CT images with RescaleSlope and RescaleIntercept.",
        ),
        (
            "mask_unreadable",
            "quarantine",
            "The mask is no readable NIfTI file.",
            "Export the mask again, or remove it to use the study without.",
        ),
        (
            "mask_shape",
            "quarantine",
            "The mask has another shape than the slices.",
            "Draw the mask on this series, or remove it to use the study without.",
        ),
        (
            "mask_labels",
            "quarantine",
            "The labels of the mask are not those of vertebrae.",
            "Use 1-7 for C1-C7 and 8-19 for T1-T12, one for each vertebra; or remove "
            "the mask to use the study without.",
        ),
        (
            "mask_misaligned",
            "quarantine",
            "The mask's affine contradicts its content.",
            "Correct the affine, or remove the mask to use the study without.",
        ),
        (
            "odd_uid",
            "warning",
            "The StudyInstanceUID has leading zeros or more than 64 characters.",
            "Nothing to do: csfd calls the study by a valid UID of its own.",
        ),
        (
            "no_rescale",
            "warning",
            "The rescale is missing, but the values are evidently Hounsfield units.",
            "Nothing to do; export with RescaleSlope and RescaleIntercept if possible.",
        ),
        (
            "first_slices_missing",
            "warning",
            "Instance numbers do not begin at 1: an end of the scan may be missing.",
            "Compare the number of slices with the archive.",
        ),
        (
            "contradictory_labels",
            "warning",
            "patient_overall is not the highest of the labels C1 to C7.",
            "Correct the label table.",
        ),
    ]
}

_ORDER: Final = {code: rank for rank, code in enumerate(CATALOGUE)}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with one study.

    ``detail`` says what was seen, in one sentence without any text of the patient.
    """

    code: str
    detail: str

    def __post_init__(self) -> None:
        """Require a code of the catalogue."""
        if self.code not in CATALOGUE:
            raise ValueError(f"Not in the catalogue of findings: {self.code!r}.")

    @property
    def severity(self) -> Severity:
        """What it means for the study."""
        return CATALOGUE[self.code].severity

    @property
    def reason(self) -> str:
        """What was seen, and what to do about it."""
        return f"{self.detail} {CATALOGUE[self.code].remedy}"


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sort findings by precedence, one per code."""
    first: dict[str, Finding] = {}
    for finding in findings:
        first.setdefault(finding.code, finding)
    return tuple(sorted(first.values(), key=lambda finding: _ORDER[finding.code]))


def status_of(findings: Iterable[Finding]) -> Status:
    """Return the standing of a study with these findings."""
    severities = {finding.severity for finding in findings}
    if Severity.QUARANTINE in severities:
        return Status.QUARANTINED
    return Status.WARNING if severities else Status.GOOD
