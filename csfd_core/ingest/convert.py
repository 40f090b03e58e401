"""Conversion of studies into the stores: what is done to one study, and to many.

Three steps, each an asset in the graph: headers (``scan_headers``), slices
(``convert_slices``) and the mask (``convert_mask``). ``convert_study`` does all three
in one pass over the files. Every step leaves alone what is up to date: the files have
not been touched, or their content and the conversion settings are those of the stored
result.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final

from csfd_core.dicom.headers import SliceHeader
from csfd_core.dicom.nifti import align_mask
from csfd_core.dicom.pixels import DecodedSlice
from csfd_core.errors import PixelDataError, SourceError, WorkerDiedError
from csfd_core.ingest.files import OnSlice
from csfd_core.ingest.outcomes import Outcome, StudyOutcome, failure
from csfd_core.ingest.patients import private_headers
from csfd_core.ingest.scan import (
    StudyScan,
    mask_of,
    quarantined,
    record_of,
    scan_study,
)
from csfd_core.ingest.stored import Stored
from csfd_core.runtime.executors import completed
from csfd_core.store import masks as mask_store
from csfd_core.store import slices as slice_store
from csfd_core.store.metadata import StudyRecord
from csfd_core.store.notes import GivenMaskNote, SliceNote
from csfd_core.store.slices import ConversionSettings, encode_slice
from csfd_core.store.source import StudyFolder
from csfd_core.store.stamp import is_current
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import is_uid

_READERS: Final = 16  # comparing studies with the store waits for disk or network


@dataclass(frozen=True, slots=True)
class StudyTask:
    """One study to work on; travels to another process."""

    folder: StudyFolder
    stores: Stores
    settings: ConversionSettings = field(default_factory=ConversionSettings)


Step = Callable[[StudyTask], StudyOutcome]


def study_tasks(
    folders: Iterable[StudyFolder],
    stores: Stores,
    settings: ConversionSettings | None = None,
) -> list[StudyTask]:
    """Return the work on studies, without those that were withdrawn.

    A stored study whose folder is empty by now is left out, too, and so kept. Of a
    study of which readers have chosen a volume, that is read.

    All that takes up studies gets its tasks here. A folder need not be named by its
    study; so the steps look again once they know whose files they have read.
    """
    withdrawn = stores.withdrawn.study_uids()
    newest = stores.volume_choices.newest()
    chosen = {uid: choice.slice_uid for uid, choice in newest.items()}
    settings = settings or ConversionSettings()
    return [
        StudyTask(
            replace(folder, chosen_slice=chosen.get(folder.name)), stores, settings
        )
        for folder in folders
        if folder.name not in withdrawn
        and (folder.files or not _has_slices(stores, folder.name))
    ]


def scan_headers(task: StudyTask) -> StudyOutcome:
    """Read, check and store the headers of a study.

    Raises:
        SourceError: If the source cannot be read or the store not be written.
    """
    old = _current_record(task)
    if old is not None:
        return _outcome(old, Outcome.UNCHANGED)
    scan = _only_scan(task)
    record = record_of(scan)
    if _is_withdrawn(task, record.study_uid):
        return _left_out(record)
    outcome = _outcome(record, _keep_headers(task, scan, record))
    return _unless_withdrawn(task, outcome)


def convert_slices(task: StudyTask) -> StudyOutcome:
    """Convert the slices of a study whose headers are stored.

    Raises:
        SourceError: If the source has changed since its headers were read.
    """
    record, headers = _stored_headers(task)
    if record.is_quarantined:
        return _outcome(record, Outcome.QUARANTINED)
    if _slices_are_current(task, record, _slices_of(task, record)):
        return _outcome(record, Outcome.UNCHANGED)
    paths = task.folder.paths()
    ordered = [paths[header.file_name] for header in headers]
    files = task.folder.source.read_beginnings(ordered)
    jpegs = [
        encode_slice(DecodedSlice(raw, header), task.settings)
        for header, (_, raw) in zip(headers, files, strict=True)
    ]
    return _write_slices(task, record, headers, jpegs)


def convert_mask(task: StudyTask) -> StudyOutcome:
    """Align and store the mask of a study whose headers are stored.

    Raises:
        SourceError: If the source has changed since its headers were read.
    """
    record, _ = _stored_headers(task)
    if record.is_quarantined:
        return _outcome(record, Outcome.QUARANTINED)
    return _write_mask(task, record)


def convert_study(task: StudyTask) -> StudyOutcome:
    """Do all three steps in one pass over the files of a study."""
    record = _current_record(task)
    if record is not None:
        return _complete(task, record)
    jpegs: dict[str, bytes] = {}

    def encode(decoded: DecodedSlice) -> None:
        name = decoded.header.file_name
        jpegs[name] = encode_slice(decoded, task.settings)

    scan = _only_scan(task, encode)
    record = record_of(scan)
    if _is_withdrawn(task, record.study_uid):
        return _left_out(record)
    outcome = _outcome(record, Outcome.QUARANTINED)
    if not record.is_quarantined:
        ordered = [jpegs[header.file_name] for header in scan.headers]
        if _slices_are_current(task, record, _slices_of(task, record)):
            outcome = _outcome(record, Outcome.UNCHANGED)
        else:
            outcome = _write_slices(task, record, scan.headers, ordered)
        _write_mask(task, record)
    # Last: a study whose headers are stored is complete.
    if is_uid(record.study_uid):
        _keep_headers(task, scan, record)
    return _unless_withdrawn(task, outcome)


def verify_slices(task: StudyTask) -> StudyOutcome:
    """Decode every stored slice of a study; one that does not decode is a failure."""
    study_uid = task.folder.name
    shape = task.stores.slices.verify(study_uid)
    return StudyOutcome(
        study_uid=study_uid, action=Outcome.UNCHANGED, slice_count=shape[0]
    )


def needs_work(task: StudyTask, stored: Stored | None = None) -> bool:
    """Say whether any of the three steps has something to do for a study.

    Args:
        task: The study.
        stored: What the store has of it, and of others, where that was read already.
    """
    uid = task.folder.name
    if not is_uid(uid):
        return True
    stored = stored or Stored.of_study(task.stores, uid)
    record = stored.records.get(uid)
    if record is None or not _stands_for(task, record):
        return True
    if record.is_quarantined:
        return False
    if not _slices_are_current(task, record, stored.slices.get(uid)):
        return True
    has_mask = record.mask_hash is not None
    return has_mask and not _mask_is_current(record, stored.masks.get(uid))


def convert_studies(
    tasks: Sequence[StudyTask], executor: Executor
) -> Iterator[StudyOutcome]:
    """Convert every study; yield each outcome as it comes.

    Studies that are up to date are found by threads of this process: starting a pool
    of processes for them would take longer than all of them together.
    """
    with ThreadPoolExecutor(_READERS) as readers:
        outcomes = list(readers.map(_if_current, tasks))
    yield from (outcome for outcome in outcomes if outcome is not None)
    rest = [task for task, done in zip(tasks, outcomes, strict=True) if done is None]
    yield from run_studies(convert_study, rest, executor)


def run_studies(
    step: Step, tasks: Sequence[StudyTask], executor: Executor
) -> Iterator[StudyOutcome]:
    """Do one step to many studies; yield each outcome as it comes.

    A study that fails is an outcome; the others go on.
    """
    for task, future in completed(executor, step, tasks):
        yield _result(future, task)


def _result(future: Future[StudyOutcome], task: StudyTask) -> StudyOutcome:
    error = future.exception()
    if isinstance(error, WorkerDiedError) and is_uid(task.folder.name):
        # Not to be tried again at every run, until its files are others.
        record = record_of(quarantined(task.folder, "undecodable_pixels", str(error)))
        task.stores.metadata.write_headers(record, [])
        return _unless_withdrawn(task, _outcome(record, Outcome.QUARANTINED))
    return failure(task.folder.name, error) if error else future.result()


def _if_current(task: StudyTask) -> StudyOutcome | None:
    """Return the outcome of a study that needs no work, else ``None``."""
    try:
        return None if needs_work(task) else convert_study(task)
    except Exception:  # noqa: BLE001 - it will fail again, where that is an outcome
        return None


def _only_scan(task: StudyTask, on_slice: OnSlice | None = None) -> StudyScan:
    scans = scan_study(task.folder, on_slice=on_slice)
    if len(scans) > 1:
        raise SourceError(
            f"A folder holds {len(scans)} studies. Give each study a folder of its own "
            "that is named by its StudyInstanceUID."
        )
    return replace(scans[0], headers=private_headers(scans[0].headers))


def _current_record(task: StudyTask) -> StudyRecord | None:
    """Return the stored record if the study's files were not touched since."""
    if not is_uid(task.folder.name):
        return None
    record = task.stores.metadata.read_record(task.folder.name)
    return record if record is not None and _stands_for(task, record) else None


def _stands_for(task: StudyTask, record: StudyRecord) -> bool:
    listing = (task.folder.fingerprint, task.folder.mask_fingerprint)
    return task.stores.metadata.stands_for(record, listing)


def _keep_headers(task: StudyTask, scan: StudyScan, record: StudyRecord) -> Outcome:
    """Store what was read, or only the new listing where nothing else has changed."""
    metadata = task.stores.metadata
    if metadata.holds(record, scan.headers):
        metadata.write_listing(record)
        return Outcome.UNCHANGED
    metadata.write_headers(record, scan.headers)
    return Outcome.WRITTEN


def _stored_headers(task: StudyTask) -> tuple[StudyRecord, list[SliceHeader]]:
    if _current_record(task) is None:
        raise SourceError(
            f"Study {task.folder.name} has no headers in the store, or its files have "
            "changed since they were read. Materialize study_headers first."
        )
    return task.stores.metadata.read_headers(task.folder.name)


def _complete(task: StudyTask, record: StudyRecord) -> StudyOutcome:
    """Make what is missing or outdated of a study whose headers are current."""
    if record.is_quarantined:
        return _outcome(record, Outcome.QUARANTINED)
    outcome = convert_slices(task)
    _write_mask(task, record)
    return outcome


def _slices_of(task: StudyTask, record: StudyRecord) -> SliceNote | None:
    return task.stores.slices.read_note(record.study_uid)


def _slices_are_current(
    task: StudyTask, record: StudyRecord, note: SliceNote | None
) -> bool:
    return is_current(
        note,
        content_hash=record.content_hash,
        conversion=task.settings.to_note(),
    )


def _mask_is_current(record: StudyRecord, note: GivenMaskNote | None) -> bool:
    return is_current(
        note,
        format=mask_store.FORMAT,
        content_hash=record.content_hash,
        mask_hash=record.mask_hash,
    )


def _write_slices(
    task: StudyTask,
    record: StudyRecord,
    headers: Sequence[SliceHeader],
    jpegs: Sequence[bytes],
) -> StudyOutcome:
    geometry = record.volume_geometry()
    if geometry is None:
        raise PixelDataError(f"Study {record.study_uid} has no geometry.")
    if _is_withdrawn(task, record.study_uid):  # while it was converted
        return _left_out(record)
    note = slice_store.build_note(
        record.study_uid, geometry, task.settings, record.content_hash
    )
    size = task.stores.slices.write(record.study_uid, headers, jpegs, note)
    outcome = _outcome(record, Outcome.WRITTEN, stored_bytes=size)
    return _unless_withdrawn(task, outcome)


def _write_mask(task: StudyTask, record: StudyRecord) -> StudyOutcome:
    geometry = record.volume_geometry()
    if record.mask_hash is None or geometry is None:
        _drop_mask_of_others(task, record)
        return _outcome(record, Outcome.UNCHANGED)
    if _mask_is_current(record, task.stores.masks.read_note(record.study_uid)):
        return _outcome(record, Outcome.UNCHANGED)
    mask, _ = mask_of(task.folder, geometry)
    if mask is None:
        raise SourceError(f"The mask of study {record.study_uid} is gone.")
    if _is_withdrawn(task, record.study_uid):
        return _left_out(record)
    note = mask_store.build_note(
        record.study_uid, geometry, record.content_hash, record.mask_hash
    )
    aligned = align_mask(mask, geometry)
    size = task.stores.masks.write(record.study_uid, aligned, note)
    outcome = _outcome(record, Outcome.WRITTEN, stored_bytes=size)
    return _unless_withdrawn(task, outcome)


def _drop_mask_of_others(task: StudyTask, record: StudyRecord) -> None:
    """Remove a mask of other slices, as when another volume was chosen."""
    masks = task.stores.masks
    note = masks.read_note(record.study_uid)
    if note is not None and note.content_hash != record.content_hash:
        task.stores.root.remove(masks.path(record.study_uid))


def _has_slices(stores: Stores, name: str) -> bool:
    record = stores.metadata.read_record(name) if is_uid(name) else None
    return record is not None and record.slice_count > 0


def _is_withdrawn(task: StudyTask, study_uid: str) -> bool:
    return is_uid(study_uid) and task.stores.withdrawn.has(study_uid)


def _unless_withdrawn(task: StudyTask, outcome: StudyOutcome) -> StudyOutcome:
    """Return an outcome, unless the study was withdrawn while it was written.

    A withdrawal looks for files once it is noted; so what it has not seen is removed
    here.
    """
    uid, stores = outcome.study_uid, task.stores
    if not _is_withdrawn(task, uid):
        return outcome
    metadata = stores.metadata
    pixels = [stores.slices.path(uid), stores.masks.path(uid)]
    for path in [*pixels, metadata.listing_path(uid), metadata.path(uid)]:
        stores.root.remove(path)
    return StudyOutcome(study_uid=uid, action=Outcome.WITHDRAWN)


def _left_out(record: StudyRecord) -> StudyOutcome:
    return StudyOutcome(study_uid=record.study_uid, action=Outcome.WITHDRAWN)


def _outcome(
    record: StudyRecord, action: Outcome, stored_bytes: int = 0
) -> StudyOutcome:
    return StudyOutcome(
        study_uid=record.study_uid,
        action=action,
        slice_count=record.slice_count,
        source_bytes=record.source_bytes,
        stored_bytes=stored_bytes,
        codes=tuple(record.codes),
        content_hash=record.content_hash,
    )
