"""What to take up of the sources: what is new, changed, complete, withdrawn.

``survey`` reads how things stand, ``plan_arrivals`` decides; it reads nothing. Whoever
takes up studies, the sensor or ``csfd run``, does what the plan says.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from csfd_core.ingest.completeness import (
    Incomplete,
    count_files,
    read_notes,
    wanted_files,
)
from csfd_core.ingest.convert import StudyTask, needs_work, study_tasks
from csfd_core.ingest.stored import Stored
from csfd_core.ingest.studies_table import label_inputs
from csfd_core.store import paths
from csfd_core.store.label_notes import LabelNote, label_entries
from csfd_core.store.labels import digest_labels, read_all_boxes
from csfd_core.store.layout import BOXES_FILE, LABELS_FILE
from csfd_core.store.slices import ConversionSettings
from csfd_core.store.source import Sources
from csfd_core.store.stamp import stamp
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import is_uid

_NO_LABELS: Final = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyState:
    """A study as it lies in the sources, beside what the store has made of it.

    Attributes:
        version: Identity of its files, its mask, its labels and boxes.
        file_count: Files that are not empty or hidden.
        is_due: The store holds something else, or not all of it.
    """

    version: str
    file_count: int
    is_due: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """How the sources stand beside the store.

    Attributes:
        studies: By StudyInstanceUID; without those that were withdrawn.
        wanted_files: Files of complete studies, where a label file says so.
        withdrawn: Studies of which nothing may be kept.
        labels_version: Identity of all label tables, label files and withdrawals.
    """

    studies: Mapping[str, StudyState]
    wanted_files: Mapping[str, int]
    withdrawn: frozenset[str]
    labels_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do about the studies of the sources.

    Attributes:
        take_up: New and changed studies with their versions, in the order of their UID.
        new: Those of them that had no partition.
        unsettled: Studies with their versions that first have to stay as they are.
        incomplete: Studies that lack files.
        withdrawn: Partitions to delete.
    """

    take_up: Mapping[str, str]
    new: tuple[str, ...]
    unsettled: Mapping[str, str]
    incomplete: tuple[Incomplete, ...]
    withdrawn: tuple[str, ...]


def survey(
    stores: Stores,
    sources: Sources,
    conversion: ConversionSettings,
    notes: Collection[LabelNote] | None = None,
) -> Survey:
    """Compare every study of the sources with the store.

    Args:
        stores: What was made.
        sources: What it is made from.
        conversion: How slices are to be stored.
        notes: Label files of all sources, where they were read already.

    Raises:
        SourceError: If a source, or a label table in it, cannot be read.
    """
    notes = read_notes(sources) if notes is None else notes
    withdrawn = stores.withdrawn.study_uids()
    folders = [f for f in sources.studies() if is_uid(f.name) and f.files]
    tasks = study_tasks(folders, stores, conversion)
    labels = stores.label_history.read_labels(sources.locations, withdrawn)
    boxes = read_all_boxes(sources.locations, withdrawn)
    digests = digest_labels(labels.table, boxes.table)
    learnt = stores.metadata.read_label_digests()
    stored = Stored.of_all(stores)
    is_due = [needs_work(task, stored) for task in tasks]
    unfinished = _unfinished(stores)
    studies = {}
    for task, lacks in zip(tasks, is_due, strict=True):
        uid = task.folder.name
        digest = digests.get(uid, _NO_LABELS)
        is_relabelled = uid in learnt and learnt[uid] != digest
        studies[uid] = StudyState(
            version=_version_of(task, digest),
            file_count=count_files(task.folder),
            is_due=lacks or is_relabelled or uid in unfinished,
        )
    return Survey(
        studies=studies,
        wanted_files=wanted_files(notes),
        withdrawn=withdrawn,
        labels_version=label_inputs(stores, sources),
    )


def plan_arrivals(
    surveyed: Survey,
    partitions: Collection[str],
    *,
    before: Mapping[str, str] | None = None,
    asked: Mapping[str, str] | None = None,
    most: int | None = None,
) -> Plan:
    """Decide what is taken up now.

    Args:
        surveyed: How the sources stand.
        partitions: Studies that Dagster knows.
        before: Versions at an earlier look. A study is taken up once it has stayed as
            it is since then, so that one which is still being copied is left alone;
            ``None``: all are taken up as they are.
        asked: Versions that were taken up already, and are not asked for again.
        most: As many are taken up, and others stay unsettled; ``None``: all.
    """
    partitioned, done = set(partitions), asked or {}
    take_up: dict[str, str] = {}
    unsettled: dict[str, str] = {}
    incomplete: list[Incomplete] = []
    for uid, study in sorted(surveyed.studies.items()):
        if not study.is_due and uid in partitioned:
            continue
        wanted = surveyed.wanted_files.get(uid, 1)
        if study.file_count < wanted:
            incomplete.append(Incomplete(uid, study.file_count, wanted))
        elif done.get(uid) == study.version and uid in partitioned:
            continue
        elif (before is None or before.get(uid) == study.version) and (
            most is None or len(take_up) < most
        ):
            take_up[uid] = study.version
        else:
            unsettled[uid] = study.version
    return Plan(
        take_up=take_up,
        new=tuple(uid for uid in take_up if uid not in partitioned),
        unsettled=unsettled,
        incomplete=tuple(incomplete),
        withdrawn=tuple(sorted(partitioned & surveyed.withdrawn)),
    )


def listing_digest(stores: Stores, sources: Sources) -> str:
    """Identify what lies in the sources, was withdrawn or chosen; opens no file."""
    files = [
        [str(location), entry.name, entry.size_bytes, entry.token]
        for location in sources.locations
        for entry in (*location.entries(), *label_entries(location))
        if entry.name in (LABELS_FILE, BOXES_FILE) or entry.path != entry.name
    ]
    listings = {
        folder.name: [folder.fingerprint, folder.mask_fingerprint]
        for folder in sources.studies()
        if folder.files
    }
    gone = sorted(stores.withdrawn.study_uids())
    return stamp([listings, files, gone, stores.volume_choices.names()])


def _unfinished(stores: Stores) -> set[str]:
    """Return the studies that have slices, and no mask or crops made of them.

    A later step has failed, or was not come to yet; what is being made now is asked for
    once, as its version stays what it is.
    """
    sliced, masked, cropped = (
        {entry.name.removesuffix(".parquet") for entry in stores.root.entries(folder)}
        for folder in (paths.SLICES, paths.PREDICTED_MASKS, paths.CROPS)
    )
    return sliced - (masked & cropped)


def _version_of(task: StudyTask, labels_digest: str) -> str:
    folder = task.folder
    parts = [folder.fingerprint, folder.mask_fingerprint, labels_digest]
    return stamp(parts)[:16]
