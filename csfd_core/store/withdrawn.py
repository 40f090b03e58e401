"""Studies that were withdrawn, as when a patient takes back consent.

``withdrawn/<study_uid>.json`` says who withdrew a study, when and why. Such files are
only ever added, one per study: two processes that withdraw at once cannot lose each
other's record. ``<study_uid>.done`` beside it says that nothing else of the study is
left. Nothing of the patient stands in them.
"""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from csfd_core.store import paths
from csfd_core.store.locations import Location
from csfd_core.vocabulary import is_uid

_SUFFIX: Final = ".json"
_DONE: Final = ".done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """One withdrawn study."""

    study_uid: str
    reason: str
    by: str
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat("T", "seconds"))

    def to_note(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {
            "study_uid": self.study_uid,
            "when": self.at,
            "who": self.by,
            "why": self.reason,
        }


@dataclass(frozen=True, slots=True)
class WithdrawnStore:
    """Withdrawn studies of one store location."""

    location: Location

    def path(self, study_uid: str) -> str:
        """Return the path of a study's record, relative to the store.

        Raises:
            IdentifierError: If ``study_uid`` is no valid UID.
        """
        return paths.of_study(paths.WITHDRAWN, study_uid, _SUFFIX)

    def study_uids(self) -> frozenset[str]:
        """Return all withdrawn studies: one listing, no file is read."""
        return self._named(_SUFFIX)

    def unfinished(self) -> frozenset[str]:
        """Return the studies whose withdrawal was cut off."""
        return self._named(_SUFFIX) - self._named(_DONE)

    def finish(self, study_uid: str) -> None:
        """Record that nothing of a study is left."""
        path = paths.of_study(paths.WITHDRAWN, study_uid, _DONE)
        if not self.location.exists(path):
            self.location.write(path, b"")

    def _named(self, suffix: str) -> frozenset[str]:
        entries = self.location.entries(paths.WITHDRAWN)
        names = (
            e.name.removesuffix(suffix) for e in entries if e.name.endswith(suffix)
        )
        return frozenset(name for name in names if is_uid(name))

    def has(self, study_uid: str) -> bool:
        """Say whether a study was withdrawn."""
        return self.location.exists(self.path(study_uid))

    def remove_if_withdrawn(self, study_uid: str, path: str) -> None:
        """Remove a file of a study that was withdrawn while it was written.

        A withdrawal looks for files once it is noted; this one came too late for it.
        """
        if self.has(study_uid):
            self.location.remove(path)

    def read(self, study_uid: str) -> Withdrawal | None:
        """Return the record of a study, ``None`` where it was not withdrawn."""
        path = self.path(study_uid)
        content = self.location.read_if_there(path)
        if content is None:
            return None
        note = json.loads(content)
        return Withdrawal(
            study_uid=note["study_uid"],
            at=note["when"],
            by=note["who"],
            reason=note["why"],
        )

    def add(self, withdrawal: Withdrawal) -> Withdrawal:
        """Record a withdrawal; return the record that counts: the first one."""
        earlier = self.read(withdrawal.study_uid)
        if earlier is not None:
            return earlier
        text = json.dumps(withdrawal.to_note(), indent=2) + "\n"
        path = self.path(withdrawal.study_uid)
        if self.location.write_new(path, text.encode()):
            return withdrawal
        return self.read(withdrawal.study_uid) or withdrawal  # of another, meanwhile
