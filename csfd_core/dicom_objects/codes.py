"""Coded words of the objects: SNOMED CT, DCM and UCUM (PS3.16)."""

from typing import Final

from pydicom.sr.coding import Code

from csfd_core.vocabulary import LEVEL_NAMES

ANATOMICAL_STRUCTURE: Final = Code("91723000", "SCT", "Anatomical structure")
CLINICAL_FINDING: Final = Code("404684003", "SCT", "Clinical finding")
FRACTURE: Final = Code("125605004", "SCT", "Fracture of bone")
PRESENT: Final = Code("52101004", "SCT", "Present")
ABSENT: Final = Code("272519000", "SCT", "Absent")
UNDETERMINED: Final = Code("373068000", "SCT", "Undetermined")
PROBABILITY: Final = Code("122157", "DCM", "Probability")
NO_UNITS: Final = Code("1", "UCUM", "no units")
ARTIFICIAL_INTELLIGENCE: Final = Code("123110", "DCM", "Artificial Intelligence")
CT_OF_A_REGION: Final = Code("25045-6", "LN", "CT unspecified body region")
CERVICAL_SPINE: Final = Code("122494005", "SCT", "Cervical spine")
DEVICE: Final = Code("121007", "DCM", "Device")
PERSON: Final = Code("121006", "DCM", "Person")
COMMENT: Final = Code("121106", "DCM", "Comment")
_VERTEBRAE: Final = (
    "14806007",
    "39976000",
    "113205007",
    "5329002",
    "36978003",
    "36054005",
    "87391001",
)
VERTEBRAE: Final = {
    name: Code(value, "SCT", f"{name} vertebra")
    for name, value in zip(LEVEL_NAMES, _VERTEBRAE, strict=True)
}
