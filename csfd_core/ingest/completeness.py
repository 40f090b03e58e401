"""Studies that are still being copied, as far as their label files tell.

A label file may say with how many files its study is complete. What lacks some of them
is left alone, whatever takes up studies by itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from csfd_core.ingest.convert import StudyTask
from csfd_core.store.label_notes import LabelNote, read_label_notes
from csfd_core.store.source import Sources, StudyFolder
from csfd_core.text import count

_NAMED: Final = 3  # studies, as examples


@dataclass(frozen=True, slots=True)
class Incomplete:
    """A study that lacks files: ``there`` of ``wanted``."""

    study_uid: str
    there: int
    wanted: int


def read_notes(sources: Sources) -> list[LabelNote]:
    """Read the label files of all sources; those that cannot be used are left out.

    Raises:
        SourceError: If a source cannot be read.
    """
    return [
        note
        for location in sources.locations
        for note in read_label_notes(location).notes.values()
    ]


def wanted_files(notes: Iterable[LabelNote]) -> dict[str, int]:
    """Return how many files each study has when it is complete, where that is said.

    Of several label files of one study, the newest one that says it counts.
    """
    newest: dict[str, LabelNote] = {}
    for note in notes:
        latest = newest.get(note.study_uid)
        if note.slices and (latest is None or note.moment > latest.moment):
            newest[note.study_uid] = note
    return {uid: note.slices for uid, note in newest.items() if note.slices}


def count_files(folder: StudyFolder) -> int:
    """Count the files of a study, without hidden and empty ones."""
    return sum(e.size_bytes > 0 and e.name[:1] != "." for e in folder.files)


def split_incomplete(
    tasks: Sequence[StudyTask], wanted: Mapping[str, int]
) -> tuple[list[StudyTask], list[Incomplete]]:
    """Separate the studies that can be taken up from those that lack files.

    Args:
        tasks: Studies of the sources.
        wanted: Files of complete studies, as ``wanted_files`` returns; a study that is
            not there lacks files only if it has none.
    """
    complete, lacking = [], []
    for task in tasks:
        name = task.folder.name
        there, least = count_files(task.folder), wanted.get(name, 1)
        if there < least:
            lacking.append(Incomplete(name, there, least))
        else:
            complete.append(task)
    return complete, lacking


def tell_incomplete(lacking: Sequence[Incomplete]) -> str:
    """Say how many studies wait, and for what; nothing where none does."""
    if not lacking:
        return ""
    told = [
        f"{one.study_uid} has {one.there} of {one.wanted}" for one in lacking[:_NAMED]
    ]
    more = f", and {len(lacking) - _NAMED} more" if lacking[_NAMED:] else ""
    waiting = count(len(lacking), "study", "waits", "wait")
    return f"{waiting} for files: {', '.join(told)}{more}."
