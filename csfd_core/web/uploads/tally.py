"""What came in an upload, and what of it was not taken: numbers, no names."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from csfd_core.deid.refusals import Reason, tell
from csfd_core.text import agree, count

_MOST_SENTENCES: Final = 20  # of archives; a reader reads no more
_MOST_REFERENCES: Final = 20  # of one study


class Trouble(StrEnum):
    """Why a file is not even looked at as DICOM."""

    ARCHIVE = "archive"
    NESTED_ZIP = "nested-zip"
    TWICE = "twice"


_TOLD: Final = {
    Trouble.ARCHIVE: (
        "is an archive, but no zip file",
        "are archives, but no zip files",
        "Unpack it, and upload its folder",
    ),
    Trouble.NESTED_ZIP: (
        "is a zip file inside of a zip file",
        "are zip files inside of a zip file",
        "Unpack the outer one, and upload its folder",
    ),
    Trouble.TWICE: (
        "carries the SOPInstanceUID of another image",
        "carry the SOPInstanceUIDs of other images",
        "Export the study from the archive again",
    ),
}


@dataclass(slots=True)
class Tally:
    """What the parts of an upload held.

    Attributes:
        images: Slices that were taken.
        not_taken: How many files, by ``Reason`` or ``Trouble``.
        archives: A sentence for each archive that was refused.
        references: What each study may be searched by: keyed digests.
        joined: Numbers of the files that came in pieces and were taken.
    """

    images: int = 0
    not_taken: Counter[str] = field(default_factory=Counter)
    archives: list[str] = field(default_factory=list)
    references: dict[str, set[str]] = field(default_factory=dict)
    joined: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, note: dict[str, Any]) -> "Tally":
        """Read it from the note of an upload."""
        references = note.get("references", {})
        return cls(
            images=note.get("images", 0),
            not_taken=Counter(note.get("not_taken", {})),
            archives=list(note.get("archives", [])),
            references={uid: set(digests) for uid, digests in references.items()},
            joined=set(note.get("joined", [])),
        )

    def to_note(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "images": self.images,
            "not_taken": dict(self.not_taken),
            "archives": self.archives[:_MOST_SENTENCES],
            "references": {
                uid: sorted(digests)[:_MOST_REFERENCES]
                for uid, digests in self.references.items()
            },
            "joined": sorted(self.joined),
        }

    def add(self, other: "Tally") -> None:
        """Add what another part held."""
        self.images += other.images
        self.not_taken += other.not_taken
        self.archives += other.archives
        self.joined |= other.joined
        for uid, digests in other.references.items():
            self.references.setdefault(uid, set()).update(digests)

    def sentences(self) -> tuple[list[str], list[str]]:
        """Say what was passed over, and what was refused."""
        passed: list[str] = []
        refused = [*self.archives]
        for code, number in sorted(self.not_taken.items()):
            if code in set(Trouble):
                one, many, remedy = _TOLD[Trouble(code)]
                told = f"{count(number, 'file')} {agree(number, one, many)}. {remedy}."
                refused.append(told)
            else:
                reason = Reason(code)
                group = passed if reason.is_passed_over else refused
                group.append(tell(reason, number))
        return passed, refused
