"""Studies of an input in whatever folders its files lie.

An export spreads one study over folders, puts several into one, and adds a viewer. So
where folders are not named by their studies, files are gathered by the StudyInstanceUID
that they name. Folders without any DICOM file are told in one note; they are no studies
that are lost.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from csfd_core.dicom.limits import limits
from csfd_core.errors import SourceError
from csfd_core.ingest.files import (
    BEGINNING_BYTES,
    is_bystander,
    is_hidden,
    read_header,
)
from csfd_core.store.locations import FileEntry
from csfd_core.store.source import Source, StudyFolder
from csfd_core.text import count
from csfd_core.vocabulary import is_uid


@dataclass(slots=True)
class _Folder:
    """The files of one folder: those of each study, and those of none."""

    studies: dict[str, list[FileEntry]] = field(default_factory=dict)
    others: list[FileEntry] = field(default_factory=list)


def gather_studies(source: Source) -> tuple[list[StudyFolder], list[str]]:
    """List the studies of a source, each with all files that name it.

    A file that names none goes with the study of its folder, which has to account for
    it; in a folder of several studies, with the first.

    Returns:
        The studies, sorted by their path, and a note on what belongs to none.

    Raises:
        SourceError: If the source cannot be read.
    """
    listed = source.studies()
    if any(folder.must_match_uid for folder in listed):
        return listed, []
    studies: dict[str, list[FileEntry]] = defaultdict(list)
    lost: list[StudyFolder] = []
    bystanders = 0
    for folder in listed:
        try:
            sorted_out = _sort_out(folder)
        except SourceError:  # its own scan will say so; the others go on
            lost.append(folder)
            continue
        if sorted_out.studies:
            first, *_ = sorted_out.studies
            sorted_out.studies[first] += sorted_out.others
            for uid, entries in sorted_out.studies.items():
                studies[uid] += entries
        elif any(_may_be_lost(folder, entry) for entry in sorted_out.others):
            lost.append(folder)
        else:
            bystanders += len(sorted_out.others)
    gathered = [_study_of(source, uid, entries) for uid, entries in studies.items()]
    notes = []
    if bystanders:
        told = count(bystanders, "file")
        notes.append(f"{told} in folders without DICOM passed over.")
    return sorted([*gathered, *lost], key=lambda folder: folder.path), notes


def require_some(folders: Sequence[StudyFolder], source: Source) -> None:
    """Require that there is a study.

    Raises:
        SourceError: If there is none.
    """
    if folders:
        return
    files, _ = source.location.find()
    if not files:
        raise SourceError(f"There are no files in {source.location}.")
    told = f"There is no DICOM file among {count(len(files), 'file')} in "
    packed = sum(entry.name.lower().endswith(".zip") for entry in files)
    remedy = " Unpack the zip files among them first." if packed else ""
    raise SourceError(f"{told}{source.location}.{remedy}")


def _sort_out(folder: StudyFolder) -> _Folder:
    contents = _Folder()
    entries = {entry.path: entry for entry in folder.files}
    to_read = [
        entry.path
        for entry in folder.files
        if 0 < entry.size_bytes <= limits().file_bytes and not is_hidden(entry.path)
    ]
    for path, raw in folder.source.read_beginnings(to_read, BEGINNING_BYTES):
        entry = entries.pop(path)
        uid = _study_named_by(folder, entry, raw)
        if uid is None:
            contents.others.append(entry)
        else:
            contents.studies.setdefault(uid, []).append(entry)
    contents.others += entries.values()
    return contents


def _study_named_by(folder: StudyFolder, entry: FileEntry, raw: bytes) -> str | None:
    try:
        header, _ = read_header(folder, entry, raw)
    except SourceError:
        raise
    except Exception:  # noqa: BLE001 - the scan says what is wrong
        return None
    return header.study_uid


def _may_be_lost(folder: StudyFolder, entry: FileEntry) -> bool:
    """Say whether a file that is no DICOM file should perhaps have been one."""
    return not is_hidden(entry.path) and not is_bystander(entry.name)


def _study_of(source: Source, uid: str, entries: list[FileEntry]) -> StudyFolder:
    """Make the folder of a study: the deepest one that holds all of its files."""
    parts = [entry.path.split("/")[:-1] for entry in entries]
    shared = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return StudyFolder(
        source=source.location,
        path="/".join(shared),
        files=tuple(entries),
        must_match_uid=False,
        study_uid=uid if is_uid(uid) else None,
    )
