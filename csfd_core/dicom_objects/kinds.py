"""What csfd makes of a study for a PACS, and how such objects are identified.

Every UID is a digest of the study, of the prediction that the object tells of, and of
what it is. So the same prediction of the same study gives the same object again, a new
model gives new series beside the old ones, and a study under another identity has
objects of its own.
"""

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from csfd_core.vocabulary import OWN_ROOT

_FORMAT: Final = 1  # of the objects; raised when the same prediction is told otherwise
_UID_BYTES: Final = 16
_IDENTITY_DIGITS: Final = 32
# What a prediction follows from. How likely a fracture is follows from these.
_IDENTITY: Final = (
    "content_hash",
    "volume",
    "model",
    "model_version",
    "model_ids",
    "made_from",
    "thresholds",
    "format",
)


class ResultKind(StrEnum):
    """Kind of a result object; also the name of its file."""

    SEG = "seg"
    SR = "sr"
    KEY_IMAGE = "key-image"
    PDF = "pdf"
    SIGNED_SR = "signed-sr"

    @property
    def series_number(self) -> int:
        """Beyond those of scanners, so that results stand last in a list."""
        return {
            ResultKind.SEG: 9001,
            ResultKind.SR: 9002,
            ResultKind.KEY_IMAGE: 9003,
            ResultKind.PDF: 9004,
            ResultKind.SIGNED_SR: 9005,
        }[self]

    @property
    def series_description(self) -> str:
        """What the series is called in a PACS."""
        return {
            ResultKind.SEG: "csfd vertebrae C1-C7 (AI, not verified)",
            ResultKind.SR: "csfd fracture findings (AI, not verified)",
            ResultKind.KEY_IMAGE: "csfd key images (AI, not verified)",
            ResultKind.PDF: "csfd summary (AI, not verified)",
            ResultKind.SIGNED_SR: "csfd signed reading",
        }[self]


MADE_BY_MODEL: Final = (
    ResultKind.SEG,
    ResultKind.SR,
    ResultKind.KEY_IMAGE,
    ResultKind.PDF,
)


def result_set(prediction: Mapping[str, Any]) -> str:
    """Return what identifies the objects that tell of a prediction, hexadecimal.

    It does not depend on the study's UID: a study under another identity has the same
    set.
    """
    facts = {name: prediction.get(name) for name in _IDENTITY}
    text = json.dumps([_FORMAT, facts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_IDENTITY_DIGITS]


def uid_of(study_uid: str, *parts: str | int) -> str:
    """Return the UID of a part of a study's results (PS3.5 section B.2)."""
    text = "\0".join(["csfd result", study_uid, *map(str, parts)])
    digest = hashlib.sha256(text.encode()).digest()[:_UID_BYTES]
    return f"{OWN_ROOT}{int.from_bytes(digest, 'big')}"


def series_uid_of(study_uid: str, result_set: str, kind: ResultKind) -> str:
    """Return the SeriesInstanceUID of objects of one kind."""
    return uid_of(study_uid, result_set, kind, "series")


def sop_uid_of(
    study_uid: str, result_set: str, kind: ResultKind, number: str | int = 1
) -> str:
    """Return the SOPInstanceUID of an object."""
    return uid_of(study_uid, result_set, kind, number)


def tracking_uid_of(study_uid: str, result_set: str, what: str) -> str:
    """Return what a finding is followed by, from SEG to SR: of a level, for example."""
    return uid_of(study_uid, result_set, "tracking", what)
