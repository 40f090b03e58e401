"""Who changed an alias, when, why, from what to what: a record that only grows.

``models/champion/history.jsonl`` has one line per change and is written as a whole, so
that a reader sees it with the change or without. The same change is recorded once,
however often it is asked for.
"""

import getpass
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from csfd_core.store import paths
from csfd_core.store.locations import Location

CHAMPION: Final = "champion"  # serves
CHALLENGER: Final = "challenger"  # the newest candidate that was considered
ALIASES: Final = (CHAMPION, CHALLENGER)

DECISION: Final = "decision"  # by comparison with the champion
BY_HAND: Final = "by hand"  # by a person, with csfd champion
OUTSIDE: Final = "outside"  # by other means than csfd, as in MLflow's UI

PROMOTE: Final = "promote"
ROLLBACK: Final = "rollback"
CONSIDER: Final = "consider"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of an alias."""

    alias: str  # CHAMPION or CHALLENGER
    after: int | None  # the version that has it now; None: none any more
    action: str  # PROMOTE, ROLLBACK or CONSIDER
    kind: str  # DECISION, BY_HAND or OUTSIDE
    by: str
    reason: str
    before: int | None = None  # the version that had it
    model: str = ""  # classifier of the version that has it now
    decision: Mapping[str, Any] | None = None  # what was compared, where anything was
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat("T", "seconds"))
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def to_note(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        note: dict[str, Any] = {
            "id": self.id,
            "when": self.at,
            "who": self.by,
            "why": self.reason,
            "alias": self.alias,
            "action": self.action,
            "kind": self.kind,
            "from": self.before,
            "to": self.after,
            "model": self.model,
        }
        if self.decision is not None:
            note["decision"] = dict(self.decision)
        return note

    @classmethod
    def from_note(cls, note: Mapping[str, Any]) -> "Change":
        """Return the change that ``to_note`` gave."""
        return cls(
            id=note["id"],
            at=note["when"],
            by=note["who"],
            reason=note["why"],
            alias=note["alias"],
            action=note["action"],
            kind=note["kind"],
            before=note["from"],
            after=note["to"],
            model=note["model"],
            decision=note.get("decision"),
        )

    def since(self, before: int | None) -> "Change":
        """Return the change with the version that had the alias."""
        return replace(self, before=before)


def this_user() -> str:
    """Return who runs this process, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may have no such user
        return f"user {os.getuid()}"


def read_history(root: Location) -> list[Change]:
    """Return all recorded changes, the oldest first."""
    if not root.exists(paths.CHAMPION_HISTORY):
        return []
    lines = root.read(paths.CHAMPION_HISTORY).decode().splitlines()
    return [Change.from_note(json.loads(line)) for line in lines if line]


def append_change(root: Location, change: Change) -> None:
    """Record a change, unless it is recorded."""
    known = read_history(root)
    if change.id in {old.id for old in known}:
        return
    lines = [json.dumps(c.to_note(), sort_keys=True) for c in [*known, change]]
    root.write(paths.CHAMPION_HISTORY, ("\n".join(lines) + "\n").encode())


def changes_of(history: Sequence[Change], alias: str) -> list[Change]:
    """Return the changes of an alias since nobody held it, the oldest first."""
    own = [change for change in history if change.alias == alias]
    ends = [place for place, change in enumerate(own) if change.after is None]
    return own[ends[-1] + 1 :] if ends else own


def predecessor(history: Sequence[Change]) -> int | None:
    """Return the champion before the present one; a rollback takes one step back."""
    line: list[int] = []
    for change in changes_of(history, CHAMPION):
        if change.after is None:
            continue
        if change.action == ROLLBACK and change.after in line:
            del line[line.index(change.after) + 1 :]
        else:
            line.append(change.after)
    return line[-2] if len(line) > 1 else None


def taken_back(history: Sequence[Change], version: int) -> Change | None:
    """Return the change by which a person took the title from a version, if any did."""
    for change in reversed(changes_of(history, CHAMPION)):
        if version in (change.before, change.after):
            is_by_hand = change.kind == BY_HAND and change.before == version
            return change if is_by_hand else None
    return None
