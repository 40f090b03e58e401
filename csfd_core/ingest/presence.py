"""Studies that lie in two sources, and stored ones that lie in none any more.

Of a study in several sources the first counts. One whose images are gone from every
source stays in the store, with all that was made of it: nothing but a withdrawal
removes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from csfd_core.ingest.outcomes import Outcome, StudyOutcome
from csfd_core.store.notes import StudyNote
from csfd_core.store.source import Sources, StudyFolder
from csfd_core.store.stamp import is_current
from csfd_core.store.stores import Stores
from csfd_core.text import count
from csfd_core.vocabulary import is_uid

GONE: Final = "Its images are in no source any more; what is stored is kept."
_NAMED: Final = 3  # studies, as examples


@dataclass(frozen=True, slots=True)
class Double:
    """A study in more than one source. ``differs``: in names or sizes of its files."""

    study_uid: str
    differs: bool


def doubles_of(by_name: Mapping[str, Sequence[StudyFolder]]) -> list[Double]:
    """Return the studies that lie in more than one source, sorted.

    Args:
        by_name: As ``Sources.by_name`` returns.
    """
    return [
        Double(name, differs=len({_listing(folder) for folder in folders}) > 1)
        for name, folders in sorted(by_name.items())
        if len(folders) > 1
    ]


def vanished_studies(
    stores: Stores, by_name: Mapping[str, Sequence[StudyFolder]]
) -> list[str]:
    """Return the stored studies that no source has images of any more, sorted.

    None where a source has folders that are not named by their studies: which study
    such a folder holds is not known before it is read.
    """
    folders = [folder for of_study in by_name.values() for folder in of_study]
    if any(not f.must_match_uid and not is_uid(f.name) for f in folders):
        return []
    there = {folder.name for folder in folders if folder.files}
    left_out = stores.withdrawn.study_uids()
    return sorted(set(stores.metadata.study_uids()) - there - left_out)


def presence_notes(stores: Stores, sources: Sources) -> list[str]:
    """Say how many studies lie in two sources, and how many in none any more."""
    by_name = sources.by_name()
    notes = []
    doubles = doubles_of(by_name)
    if same := [double.study_uid for double in doubles if not double.differs]:
        notes.append(
            f"{count(len(same), 'study', 'lies', 'lie')} in more than one source, with "
            "the same files; the first source counts."
        )
    if other := [double.study_uid for double in doubles if double.differs]:
        notes.append(
            f"{count(len(other), 'study', 'lies', 'lie')} in more than one source with "
            f"other files, such as {_examples(other)}; the first source counts. Remove "
            "what is outdated."
        )
    listed = [folder for of_study in by_name.values() for folder in of_study]
    if n := sum(not f.must_match_uid and not is_uid(f.name) for f in listed):
        notes.append(
            f"{count(n, 'folder', 'is', 'are')} not named by a StudyInstanceUID and "
            "not taken up by runs; csfd convert reads them."
        )
    if gone := vanished_studies(stores, by_name):
        notes.append(
            f"No source has images of {count(len(gone), 'study')} of the store any "
            f"more, such as {_examples(gone)}; what the store has is kept."
        )
    return notes


def keep_study(stores: Stores, study_uid: str) -> StudyOutcome | None:
    """Return the outcome of a step for a study whose images are gone.

    ``None`` where its slices or its mask are not stored: then it cannot be done.

    Raises:
        IdentifierError: If ``study_uid`` is no valid UID.
    """
    record = stores.metadata.read_record(study_uid)
    if record is None:
        return None
    action = Outcome.QUARANTINED
    if not record.is_quarantined:
        notes: list[StudyNote | None] = [stores.slices.read_note(study_uid)]
        if record.mask_hash is not None:
            notes.append(stores.masks.read_note(study_uid))
        if not all(is_current(n, content_hash=record.content_hash) for n in notes):
            return None
        action = Outcome.UNCHANGED
    return StudyOutcome(
        study_uid=study_uid,
        action=action,
        slice_count=record.slice_count,
        source_bytes=record.source_bytes,
        codes=tuple(record.codes),
        message=GONE,
        content_hash=record.content_hash,
    )


def _listing(folder: StudyFolder) -> tuple[frozenset[tuple[str, int]], int | None]:
    """Return names and sizes of the slice files, and the size of the mask."""
    files = frozenset((folder.file_name(e), e.size_bytes) for e in folder.files)
    return files, None if folder.mask is None else folder.mask.size_bytes


def _examples(study_uids: Sequence[str]) -> str:
    return ", ".join(study_uids[:_NAMED])
