"""Who changed an alias, when, why, from what to what: a record that only grows.

``models/champion/history`` has one file per change, named by its place in the order, so
that two who change at once lose none. The same change is recorded once, however often
it is asked for.
"""

import getpass
import json
import os
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final

import pydantic

from csfd_core.registry.decision import DecisionNote
from csfd_core.store import paths
from csfd_core.store.locations import Location
from csfd_core.store.notes import Note, named

_READERS: Final = 16  # reading small files waits for the disk or the network


class Alias(StrEnum):
    """What a version can be."""

    CHAMPION = "champion"  # serves
    CHALLENGER = "challenger"  # the newest candidate that was considered


class ChangeKind(StrEnum):
    """Why an alias was moved."""

    DECISION = "decision"  # by comparison with the champion
    BY_HAND = "by hand"  # by a person, with csfd champion
    OUTSIDE = "outside"  # by other means than csfd, as in MLflow's UI


class Action(StrEnum):
    """What was done with an alias."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"
    CONSIDER = "consider"


class Change(Note):
    """One change of an alias: a line of the record.

    Attributes:
        after: The version that has it now; ``None``: none any more.
        before: The version that had it.
        model: Classifier of the version that has it now.
        decision: What was compared, where anything was.
    """

    alias: Alias
    after: Annotated[int | None, named("to")]
    action: Action
    kind: ChangeKind
    by: Annotated[str, named("who")]
    reason: Annotated[str, named("why")]
    before: Annotated[int | None, named("from")] = None
    model: str = ""
    decision: DecisionNote | None = None
    at: Annotated[str, named("when")] = pydantic.Field(
        default_factory=lambda: datetime.now(UTC).isoformat("T", "seconds")
    )
    id: str = pydantic.Field(default_factory=lambda: uuid.uuid4().hex)

    def since(self, before: int | None) -> "Change":
        """Return the change with the version that had the alias."""
        return self.model_copy(update={"before": before})


def this_user() -> str:
    """Return who runs this process, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may have no such user
        return f"user {os.getuid()}"


def read_history(root: Location) -> list[Change]:
    """Return all recorded changes, the oldest first."""
    old = root.read_if_there(paths.OLD_CHAMPION_HISTORY) or b""
    told: list[Any] = [json.loads(line) for line in old.splitlines() if line]
    files = [entry.path for entry in root.entries(paths.CHAMPION_HISTORY)]
    with ThreadPoolExecutor(_READERS) as pool:
        told += map(json.loads, pool.map(root.read, files))
    changes = (Change.read(note, paths.CHAMPION_HISTORY) for note in told)
    return list({change.id: change for change in changes}.values())


def history_path(stamp: int, change: Change) -> str:
    """Return where a change is recorded.

    Args:
        stamp: As ``next_stamp`` has given it.
        change: The change.
    """
    return f"{paths.CHAMPION_HISTORY}/{stamp:020d}-{change.id}.json"


def next_stamp(root: Location) -> int:
    """Return the time in nanoseconds, or later: after all that is recorded."""
    names = [entry.name for entry in root.entries(paths.CHAMPION_HISTORY)]
    stamps = [int(name.partition("-")[0]) for name in names]
    return max(time.time_ns(), max(stamps, default=0) + 1)


def append_change(root: Location, change: Change, stamp: int | None = None) -> None:
    """Record a change, unless it is recorded.

    Args:
        root: Of the store.
        change: The change.
        stamp: Its place in the order; ``None``: after all others.
    """
    if change.id not in {old.id for old in read_history(root)}:
        stamp = next_stamp(root) if stamp is None else stamp
        root.write(history_path(stamp, change), change.to_bytes())


def changes_of(history: Sequence[Change], alias: Alias) -> list[Change]:
    """Return the changes of an alias since nobody held it, the oldest first."""
    changes = [change for change in history if change.alias == alias]
    ends = [index for index, change in enumerate(changes) if change.after is None]
    return changes[ends[-1] + 1 :] if ends else changes


def predecessor(history: Sequence[Change]) -> int | None:
    """Return the champion before the present one; a rollback takes one step back."""
    line: list[int] = []
    for change in changes_of(history, Alias.CHAMPION):
        if change.after is None:
            continue
        if change.action is Action.ROLLBACK and change.after in line:
            del line[line.index(change.after) + 1 :]
        else:
            line.append(change.after)
    return line[-2] if len(line) > 1 else None


def taken_back(history: Sequence[Change], version: int) -> Change | None:
    """Return the change by which a person took the title from a version, if any did."""
    for change in reversed(changes_of(history, Alias.CHAMPION)):
        if version in (change.before, change.after):
            is_by_hand = change.kind is ChangeKind.BY_HAND and change.before == version
            return change if is_by_hand else None
    return None


def tell_holder(history: Sequence[Change], alias: Alias, number: int | None) -> str:
    """Say who has an alias by now, to whoever wanted to change it from another."""
    last = changes_of(history, alias)[-1:]
    by = f" by {last[0].by} at {last[0].at}" if last else ""
    now = "nobody" if number is None else f"version {number}"
    return (
        f"The {alias} has changed meanwhile: it is {now}{by}. Nothing was done. Look "
        "at csfd champion show, then repeat the command."
    )
