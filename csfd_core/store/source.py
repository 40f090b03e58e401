"""A source of studies: the RSNA layout, or any folder of DICOM files.

RSNA layout: ``train.csv``, ``train_bounding_boxes.csv``,
``train_images/<study>/<n>.dcm`` and ``segmentations/<study>.nii[.gz]``; all but the
images optional. Where there is no ``train_images``, every folder that holds files is
taken as one study, wherever it lies.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from csfd_core.data_kind import DataKind
from csfd_core.errors import SourceError
from csfd_core.store.layout import (
    BOXES_FILE,
    IMAGES_FOLDER,
    LABELS_FILE,
    LABELS_FOLDER,
    MASKS_FOLDER,
    PHANTOM_FILE,
)
from csfd_core.store.locations import FileEntry, Location
from csfd_core.store.stamp import stamp
from csfd_core.text import count, safe_name
from csfd_core.vocabulary import OWN_ROOT, is_uid, own_uid

_MASK_SUFFIXES: Final = (".nii.gz", ".nii")  # in capitals, too
_NAMED: Final = 3  # files, as examples


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFolder:
    """The files of one study as they lie in the source; nothing is opened yet."""

    source: Location
    path: str  # of the folder, relative to the source
    files: tuple[FileEntry, ...]
    mask: FileEntry | None = None
    must_match_uid: bool = True  # the folder is named by the StudyInstanceUID
    study_uid: str | None = None  # what the files name, where they were gathered by it
    chosen_slice: str | None = None  # of the volume that a reader has chosen

    @property
    def name(self) -> str:
        """StudyInstanceUID, as far as folder or files tell; else the folder's name.

        One that is not quite valid is stood for by another (``own_uid``).
        """
        return self.study_uid or own_uid(self.path.rsplit("/", 1)[-1])

    def file_name(self, entry: FileEntry) -> str:
        """Return the path of a file below the folder, as it may be shown and kept."""
        below = entry.path.removeprefix(f"{self.path}/")
        return "/".join(safe_name(part) for part in below.split("/"))

    def paths(self) -> dict[str, str]:
        """Return the paths of all files below the source by their ``file_name``."""
        return {self.file_name(entry): entry.path for entry in self.files}

    @property
    def size_bytes(self) -> int:
        """Bytes of all slice files."""
        return sum(entry.size_bytes for entry in self.files)

    @property
    def fingerprint(self) -> str:
        """Digest of the listing and of what was chosen of it.

        Equal as long as no file was touched and no other volume was chosen.
        """
        listed = _digest_entries(self.files)
        return (
            listed if self.chosen_slice is None else stamp([listed, self.chosen_slice])
        )

    @property
    def mask_fingerprint(self) -> str | None:
        """The same for the mask, ``None`` where there is none."""
        return None if self.mask is None else _digest_entries([self.mask])


class Source:
    """Studies, labels and masks under one location. Opens nothing until used."""

    def __init__(self, location: Location | str | Path) -> None:
        """Take a folder or an ``s3://`` URL."""
        if not isinstance(location, Location):
            location = Location(location)
        self.location: Location = location
        self._masks: dict[str, FileEntry] | None = None
        self._other_masks: list[FileEntry] = []

    def require(self) -> "Source":
        """Return this source if it is there.

        Raises:
            SourceError: If it is not.
        """
        if not self.location.exists():
            raise SourceError(
                f"There is no source at {self.location}. Give a folder or s3:// URL "
                f"that holds {IMAGES_FOLDER}/, or make a phantom: "
                "csfd phantom OUT --studies 12."
            )
        return self

    def has_labels(self) -> bool:
        """Say whether there is a table of labels, with images or without."""
        return self.location.exists(LABELS_FILE)

    def studies(self) -> list[StudyFolder]:
        """List every study folder, sorted by name."""
        files, folders = self.location.find(IMAGES_FOLDER)
        if files or folders:
            return self._rsna_studies(files, folders)
        files, _ = self.location.find()
        return self._plain_studies(files)

    def study(self, study_uid: str) -> StudyFolder | None:
        """List one study of the RSNA layout, ``None`` where it has no images."""
        path = f"{IMAGES_FOLDER}/{study_uid}"
        files, _ = self.location.find(path)
        if not files and study_uid.startswith(OWN_ROOT):
            names = self.location.folders(IMAGES_FOLDER)
            name = next((n for n in names if own_uid(n) == study_uid), study_uid)
            path = f"{IMAGES_FOLDER}/{name}"
            files, _ = self.location.find(path)
        if not files:
            return None
        return StudyFolder(
            source=self.location,
            path=path,
            files=tuple(files),
            mask=self.masks().get(study_uid),
        )

    def badly_named(self) -> list[StudyFolder]:
        """Return the study folders of the RSNA layout that are not named by a UID."""
        return [
            StudyFolder(source=self.location, path=f"{IMAGES_FOLDER}/{name}", files=())
            for name in self.location.folders(IMAGES_FOLDER)
            if not is_uid(own_uid(name))
        ]

    def _rsna_studies(
        self, files: Sequence[FileEntry], folders: Sequence[str]
    ) -> list[StudyFolder]:
        groups: dict[str, list[FileEntry]] = defaultdict(list)
        for folder in folders:
            if folder.count("/") == 1:
                groups[folder] = []
        for entry in files:
            parts = entry.path.split("/")
            if len(parts) > 2:  # what lies beside the study folders is no study
                groups["/".join(parts[:2])].append(entry)
        masks = self.masks()
        return [
            StudyFolder(
                source=self.location,
                path=path,
                files=tuple(entries),
                mask=masks.get(own_uid(path.rsplit("/", 1)[-1])),
            )
            for path, entries in sorted(groups.items())
        ]

    def _plain_studies(self, files: Sequence[FileEntry]) -> list[StudyFolder]:
        groups: dict[str, list[FileEntry]] = defaultdict(list)
        for entry in files:
            if not _is_beside_studies(entry):
                groups[entry.path.rpartition("/")[0]].append(entry)
        return [
            StudyFolder(
                source=self.location,
                path=path,
                files=tuple(entries),
                must_match_uid=False,
            )
            for path, entries in sorted(groups.items())
        ]

    def masks(self) -> dict[str, FileEntry]:
        """List the masks by the study they belong to; listed once per object."""
        if self._masks is None:
            self._masks, self._other_masks = self._list_masks()
        return self._masks

    def mask_notes(self) -> list[str]:
        """Name what lies beside the masks and is not taken for one."""
        self.masks()
        if not self._other_masks:
            return []
        named = [safe_name(entry.name) for entry in self._other_masks[:_NAMED]]
        more = ", ..." if self._other_masks[_NAMED:] else ""
        told = count(len(self._other_masks), "file", "is", "are")
        return [
            f"{MASKS_FOLDER}: {told} not taken for a mask ({', '.join(named)}{more}). "
            "A mask is called <StudyInstanceUID>.nii or .nii.gz, and a study has one."
        ]

    def _list_masks(self) -> tuple[dict[str, FileEntry], list[FileEntry]]:
        masks: dict[str, FileEntry] = {}
        others = []
        for entry in self.location.entries(MASKS_FOLDER):
            uid = _study_of_mask(entry.name)
            if uid is not None and uid not in masks:
                masks[uid] = entry
            elif not entry.name.startswith("."):
                others.append(entry)
        return masks, others


class Sources:
    """Several sources as one: the main one, then the inbox; the first one wins."""

    def __init__(self, sources: Sequence[Source]) -> None:
        """Take the sources in order of precedence; those that are absent are empty."""
        self._sources = tuple(sources)

    @property
    def locations(self) -> tuple[Location, ...]:
        """Where the sources are, in order of precedence."""
        return tuple(source.location for source in self._sources)

    def studies(self) -> list[StudyFolder]:
        """List every study folder, sorted by name."""
        by_name = self.by_name()
        return [by_name[name][0] for name in sorted(by_name)]

    def by_name(self) -> dict[str, list[StudyFolder]]:
        """List the folders of every study, that of the source which counts first.

        An empty folder counts only where no source has files of the study.
        """
        by_study: dict[str, dict[str, StudyFolder]] = defaultdict(dict)
        for source in self._sources:
            for folder in source.studies():
                by_study[folder.name].setdefault(str(source.location), folder)
        return {
            name: [f for f in folders.values() if f.files] or list(folders.values())[:1]
            for name, folders in by_study.items()
        }

    def study(self, study_uid: str) -> StudyFolder | None:
        """List one study, ``None`` where no source has images of it."""
        folders = (source.study(study_uid) for source in self._sources)
        return next((folder for folder in folders if folder is not None), None)

    def paths_of(self, study_uid: str) -> list[str]:
        """Return where files of a study lie, in every source: images, mask."""
        listed = []
        for source in self._sources:
            folders = [f for f in source.studies() if f.name == study_uid]
            listed += [f"{source.location}/{folder.path}" for folder in folders]
            mask = source.masks().get(study_uid)
            listed += [f"{source.location}/{mask.path}"] if mask else []
        return listed

    def mask_notes(self) -> list[str]:
        """Name what lies beside the masks of all sources and is not taken for one."""
        return [note for source in self._sources for note in source.mask_notes()]

    def badly_named(self) -> list[StudyFolder]:
        """Return the study folders that are not named by a UID."""
        return [folder for source in self._sources for folder in source.badly_named()]


def data_kind(locations: Sequence[Location]) -> DataKind:
    """Say whether sources are synthetic; those that hold nothing do not count."""
    kinds = set()
    for location in locations:
        if location.exists(PHANTOM_FILE):
            kinds.add(DataKind.PHANTOM)
        elif location.exists(LABELS_FILE) or location.exists(IMAGES_FOLDER):
            kinds.add(DataKind.REAL)
    return DataKind.joined(kinds or {DataKind.REAL})


def _study_of_mask(name: str) -> str | None:
    for suffix in _MASK_SUFFIXES:
        if name.lower().endswith(suffix):
            uid = own_uid(name[: -len(suffix)])
            return uid if is_uid(uid) else None
    return None


def _is_beside_studies(entry: FileEntry) -> bool:
    """Say whether a file is of the layout but no image; an inbox may have no others."""
    folder = entry.path.rpartition("/")[0]
    if folder == LABELS_FOLDER:
        return entry.name.endswith(".json")
    if folder == MASKS_FOLDER:
        return entry.name.lower().endswith(_MASK_SUFFIXES)
    return entry.path in (LABELS_FILE, BOXES_FILE, PHANTOM_FILE)


def _digest_entries(entries: Sequence[FileEntry]) -> str:
    digest = hashlib.sha256()
    for entry in sorted(entries, key=lambda entry: entry.path):
        digest.update(f"{entry.name}\0{entry.size_bytes}\0{entry.token}\n".encode())
    return digest.hexdigest()
