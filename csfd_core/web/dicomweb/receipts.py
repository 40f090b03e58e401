"""What became of the images of one body, as STOW-RS tells it (PS3.18 10.5.3)."""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from csfd_core.deid.refusals import Reason, tell
from csfd_core.dicom import tags
from csfd_core.dicom.elements import read_elements
from csfd_core.errors import DicomError

LIKE_A_UID: Final = re.compile(r"[0-9.]{1,128}", re.ASCII)

# PS3.18 section I.2.2, and of PS3.7 annex C what these stand for.
NO_ROOM: Final = 0xA700
MISMATCH: Final = 0xA900
CANNOT_UNDERSTAND: Final = 0xC000
FAILED: Final = 0x0110
DUPLICATE: Final = 0x0111
SOP_CLASS: Final = 0x0122
NOT_AUTHORIZED: Final = 0x0124
_OF_REASON: Final = {
    Reason.OTHER_MODALITY: SOP_CLASS,
    Reason.NO_IMAGE: SOP_CLASS,
    Reason.SCREENSHOT: SOP_CLASS,
    Reason.MULTI_FRAME: SOP_CLASS,
    Reason.NO_STUDY: MISMATCH,
    Reason.LOCALIZER: MISMATCH,
    Reason.BURNED_IN: MISMATCH,
    Reason.OVERLAY: MISMATCH,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """How a sender calls an image; empty where it cannot be read."""

    sop_class_uid: str = ""
    sop_uid: str = ""
    study_uid: str = ""

    @classmethod
    def of(cls, raw: bytes) -> "Named":
        """Read the identifiers of a file as they stand in it."""
        try:
            values = read_elements(raw).values
        except DicomError:
            return cls()

        def text(tag: int) -> str:
            uid = values.get(tag, b"").decode("latin-1").strip(" \0")
            return uid if LIKE_A_UID.fullmatch(uid) else ""

        return cls(
            sop_class_uid=text(tags.SOP_CLASS_UID),
            sop_uid=text(tags.SOP_INSTANCE_UID),
            study_uid=text(tags.STUDY_INSTANCE_UID),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the reference to the image."""
        return {
            "00081150": _uid_element(self.sop_class_uid),
            "00081155": _uid_element(self.sop_uid),
        }


@dataclass(slots=True)
class Receipt:
    """What became of the images of one body.

    Attributes:
        stored: Images that are on the disk.
        failed: Images that are not, and the reason's code.
        others: Codes of parts that name no image.
        refused: How many files were not taken, by what they are.
        told: Further sentences.
        study_uids: Keyed, of what was kept.
        is_malformed: The body was not of its form, or holds nothing.
    """

    stored: list[Named] = field(default_factory=list)
    failed: list[tuple[Named, int]] = field(default_factory=list)
    others: list[int] = field(default_factory=list)
    refused: Counter[Reason] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)
    study_uids: set[str] = field(default_factory=set)
    is_malformed: bool = False

    def fail(self, named: Named, code: int, told: str = "") -> None:
        """Note an image that was not kept.

        Args:
            named: The image.
            code: Of the reason.
            told: A sentence.
        """
        if named.sop_uid:
            self.failed.append((named, code))
        else:
            self.others.append(code)
        if told and told not in self.told:
            self.told.append(told)

    def refuse(self, named: Named, reason: Reason) -> None:
        """Note a file that is no slice of a CT."""
        self.refused[reason] += 1
        self.fail(named, _OF_REASON.get(reason, CANNOT_UNDERSTAND))

    def spoil(self, told: str) -> None:
        """Note that the body is not of its form, from some place on."""
        self.is_malformed = True
        self.fail(Named(), CANNOT_UNDERSTAND, told)

    def status(self) -> int:
        """Return the HTTP status (PS3.18 table 10.5.3-1)."""
        codes = {code for _, code in self.failed} | set(self.others)
        if not codes:
            return 200
        if self.stored:
            return 202
        if codes == {NO_ROOM}:
            return 507
        return 400 if self.is_malformed and not self.failed else 409

    def to_json(self, retrieve_url: str) -> dict[str, Any]:
        """Return the answer.

        Args:
            retrieve_url: Where the study can be retrieved; empty: not told.
        """
        body: dict[str, Any] = {}
        if retrieve_url:
            body["00081190"] = {"vr": "UR", "Value": [retrieve_url]}
        if self.failed:
            body["00081198"] = _sequence(
                [named.to_json() | _reason(code) for named, code in self.failed]
            )
        if self.stored:
            body["00081199"] = _sequence([named.to_json() for named in self.stored])
        if self.others:
            body["0008119A"] = _sequence([_reason(code) for code in self.others])
        return body

    def sentences(self) -> list[str]:
        """Say why images were not kept, and what to do."""
        return [tell(reason, n) for reason, n in self.refused.items()] + self.told


def _uid_element(uid: str) -> dict[str, Any]:
    return {"vr": "UI", "Value": [uid]} if uid else {"vr": "UI"}


def _reason(code: int) -> dict[str, Any]:
    return {"00081197": {"vr": "US", "Value": [code]}}


def _sequence(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"vr": "SQ", "Value": items}
