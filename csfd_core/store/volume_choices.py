"""Which of a study's axial volumes readers have chosen to be read.

``volume_choices/<study_uid>/`` has a file for each choice. Such files are only ever
added, and the newest counts; they are numbered, and of two who choose at once one alone
gets the next number. A volume is named by the SOPInstanceUID of one of its slices, as
one series may hold several volumes. Nothing of the patient stands in them.
"""

import functools
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Final

from csfd_core.errors import SourceError
from csfd_core.store import paths
from csfd_core.store.locations import FileEntry, Location
from csfd_core.store.withdrawn import WithdrawnStore
from csfd_core.vocabulary import is_uid, require_uid

_SUFFIX: Final = ".json"
_DIGITS: Final = 6  # so that names sort as the choices were made
_REMEMBERED: Final = 4096  # choices; each is read once


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeChoice:
    """One choice.

    Attributes:
        study_uid: Of the study.
        slice_uid: SOPInstanceUID of a slice of the volume.
        told: The volume in words.
        by: Who has chosen.
        version: Of the study on the reader's page, from this choice on.
        at: When, UTC, ISO 8601.
    """

    study_uid: str
    slice_uid: str
    told: str
    by: str
    version: int
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat("T", "seconds"))

    def to_note(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {
            "study_uid": self.study_uid,
            "slice_uid": self.slice_uid,
            "volume": self.told,
            "when": self.at,
            "who": self.by,
            "version": self.version,
        }


@dataclass(frozen=True, slots=True)
class VolumeChoices:
    """The choices of one store location."""

    location: Location

    def add(self, choice: VolumeChoice) -> bool:
        """Record a choice; say whether it is the newest, or another has come before it.

        Of a study that was withdrawn meanwhile nothing is kept.

        Raises:
            IdentifierError: If the study or the slice has no valid UID.
            SourceError: If it cannot be written.
        """
        require_uid(choice.slice_uid)
        number = len(self.of_study(choice.study_uid)) + 1
        path = f"{_folder(choice.study_uid)}/{number:0{_DIGITS}d}{_SUFFIX}"
        content = json.dumps(choice.to_note(), indent=2) + "\n"
        is_newest = self.location.write_new(path, content.encode())
        WithdrawnStore(self.location).remove_if_withdrawn(choice.study_uid, path)
        return is_newest

    def of_study(self, study_uid: str) -> list[VolumeChoice]:
        """Return the choices of a study, the oldest first.

        Raises:
            IdentifierError: If ``study_uid`` is no valid UID.
        """
        entries = self.location.entries(_folder(study_uid))
        return [_read(self.location.url, e.path) for e in entries if _is_choice(e)]

    def newest(self) -> dict[str, VolumeChoice]:
        """Return the newest choice of each study of which there is one."""
        last = {PurePosixPath(path).parent.name: path for path in self.names()}
        choices = {}
        for uid, path in last.items():
            try:
                choices[uid] = _read(self.location.url, path)
            except SourceError:  # withdrawn meanwhile?
                if self.location.exists(path):
                    raise
        return choices

    def names(self) -> list[str]:
        """Name all choices, by study and as they were made; no file is read."""
        files, _ = self.location.find(paths.VOLUME_CHOICES)
        return [entry.path for entry in files if _is_choice(entry)]


@functools.lru_cache(maxsize=_REMEMBERED)  # such a file is never changed
def _read(url: str, path: str) -> VolumeChoice:
    note = json.loads(Location(url).read(path))
    return VolumeChoice(
        study_uid=note["study_uid"],
        slice_uid=note["slice_uid"],
        told=note["volume"],
        by=note["who"],
        version=note["version"],
        at=note["when"],
    )


def _folder(study_uid: str) -> str:
    return f"{paths.VOLUME_CHOICES}/{require_uid(study_uid)}"


def _is_choice(entry: FileEntry) -> bool:
    folder = PurePosixPath(entry.path).parent.name
    return entry.name.endswith(_SUFFIX) and is_uid(folder)
