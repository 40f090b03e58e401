"""Studies as a source of the RSNA layout that names nobody, for another csfd.

::

    OUT/train.csv, train_bounding_boxes.csv
    OUT/train_images/<StudyInstanceUID>/<instance number>.dcm
    OUT/segmentations/<StudyInstanceUID>.nii.gz
    OUT/phantom.json              of phantoms alone
    OUT/export.json               says that csfd has written it
    OUT/export/<StudyInstanceUID>.json   one record per finished study

What csfd has de-identified already is copied; everything else is de-identified on the
way. Patients are told by keyed digests, so that their studies stay together, in the
same fold, and nobody can be guessed. Who has labelled a study, and when, is left out.
"""

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from pydicom import dcmread

from csfd_core.deid.deidentify import EMPTY, WRITTEN, deidentify, quiet
from csfd_core.deid.identities import keyed_uid
from csfd_core.deid.refusals import Reason, RefusedError
from csfd_core.dicom import tags
from csfd_core.dicom.headers import KEYED_PATIENT, read_slice_header
from csfd_core.dicom.nifti import nifti_content
from csfd_core.errors import DicomError, SettingsError
from csfd_core.ingest.files import BEGINNING_BYTES, is_hidden
from csfd_core.ingest.patients import read_secret
from csfd_core.settings import Settings
from csfd_core.store.labels import STUDY_COLUMN
from csfd_core.store.layout import (
    BOXES_FILE,
    IMAGES_FOLDER,
    LABELS_FILE,
    MASKS_FOLDER,
    PHANTOM_FILE,
)
from csfd_core.store.locations import Location
from csfd_core.store.notes import GivenMaskNote, PredictedMaskNote
from csfd_core.store.source import StudyFolder
from csfd_core.store.stamp import stamp
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LABEL_COLUMNS

MARK: Final = "export.json"
RECORDS: Final = "export"
_FORMAT: Final = 1
_PREAMBLE_BYTES: Final = 128
_META: Final = frozenset(  # of what is written: nothing else stands before the data set
    0x0002_0000 + element for element in (0x00, 0x01, 0x02, 0x03, 0x10, 0x12, 0x13)
)
_WRITTEN: Final = WRITTEN | {tags.PIXEL_DATA}
_BOX_COLUMNS: Final = ("x", "y", "width", "height", "slice_number")


class MaskChoice(StrEnum):
    """Which masks are exported."""

    ANY = "any"  # that which came with the study, else that which a model predicted
    GIVEN = "given"
    NONE = "none"


class MaskKind(StrEnum):
    """Where the mask of an exported study comes from."""

    GIVEN = "given"
    PREDICTED = "predicted"
    NONE = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportTask:
    """One study to export.

    Attributes:
        folder: Its files.
        stores: Where its masks are.
        out: Where it goes.
        masks: Which of its masks.
        labels: 0, 1 or ``None`` by the columns of ``train.csv``; {}: it has none.
        boxes: ``x, y, width, height`` in pixels and ``slice_number`` of each.
    """

    folder: StudyFolder
    stores: Stores
    out: Location
    masks: MaskChoice = MaskChoice.GIVEN
    labels: Mapping[str, int | None] = field(default_factory=dict)
    boxes: Sequence[Sequence[float]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedStudy:
    """What became of one study.

    Attributes:
        study_uid: As it is exported; empty: it was left out.
        images: How many.
        size_bytes: Of the images.
        mask: Where its mask comes from.
        passed_over: How many files were not taken, by what they are.
        is_new: It was written; else it was there already.
    """

    study_uid: str
    images: int
    size_bytes: int
    mask: MaskKind
    passed_over: Mapping[Reason, int]
    is_new: bool

    @property
    def is_left_out(self) -> bool:
        """Whether slices could not be taken, so that the study would lack them."""
        return not self.study_uid


def claim(out: Location, phantom: bytes | None) -> None:
    """Make a place one of exports.

    Args:
        out: A new or empty folder, or one that an earlier export has written.
        phantom: What says that the studies are synthetic; ``None``: they are not.

    Raises:
        SettingsError: If something else lies there; nothing is written then.
    """
    text = _json({"format": _FORMAT, "is_synthetic": phantom is not None})
    there = out.read_if_there(MARK)
    if there is not None:
        if there != text:
            raise SettingsError(
                f"{out} holds an export of {'real' if phantom else 'synthetic'} "
                "studies, or of another version of csfd. Name another folder."
            )
    elif out.entries() or out.folders():
        raise SettingsError(
            f"{out} is not empty and holds no {MARK}, so no export has written it. "
            "Name a new or an empty folder; nothing was written."
        )
    out.write(MARK, text)
    if phantom is not None:
        out.write(PHANTOM_FILE, phantom)


def export_study(task: ExportTask) -> ExportedStudy:
    """Write one study, unless it is there as it is now; its record comes last.

    Raises:
        SourceError: If something cannot be read or written.
    """
    secret = read_secret(Settings.read().key_file)
    uid = _exported_uid(task.folder, secret)
    path = f"{RECORDS}/{uid}.json"
    facts = json.loads(task.out.read_if_there(path) or b"{}")
    kind, note = _mask_of(task)
    made_from = stamp(
        [task.folder.fingerprint, kind, note and note.to_json(), task.masks]
    )
    is_new = facts.get("made_from") != made_from
    if is_new:
        facts = _write_study(task, uid, secret)
        if not facts["images"]:
            _drop(task.out, uid)
            return ExportedStudy(
                study_uid="",
                images=0,
                size_bytes=0,
                mask=MaskKind.NONE,
                passed_over=_reasons(facts),
                is_new=False,
            )
        _write_mask(task, uid, kind, note)
    record = {
        **facts,
        "study_uid": uid,
        "made_from": made_from,
        "mask": kind,
        "labels": dict(task.labels),
        "boxes": [list(box) for box in task.boxes],
    }
    task.out.write(path, _json(record))
    return ExportedStudy(
        study_uid=uid,
        images=record["images"],
        size_bytes=record["size_bytes"],
        mask=kind,
        passed_over=_reasons(record),
        is_new=is_new,
    )


def write_tables(out: Location) -> None:
    """Write the labels and boxes of all studies that were ever exported there."""
    entries = [e for e in out.entries(RECORDS) if e.name.endswith(".json")]
    records = [json.loads(out.read(entry.path)) for entry in entries]
    labels = [[STUDY_COLUMN, *LABEL_COLUMNS]]
    boxes = [[STUDY_COLUMN, *_BOX_COLUMNS]]
    for record in sorted(records, key=lambda record: str(record["study_uid"])):
        uid, study_labels = record["study_uid"], record["labels"]
        if study_labels:
            values = [study_labels.get(name) for name in LABEL_COLUMNS]
            labels.append([uid, *("" if v is None else str(v) for v in values)])
        boxes += [[uid, *(f"{v:g}" for v in box)] for box in record["boxes"]]
    for name, table in ((LABELS_FILE, labels), (BOXES_FILE, boxes)):
        out.write(name, "".join(",".join(row) + "\n" for row in table).encode())


def drop_studies(out: Location, study_uids: Iterable[str]) -> int:
    """Take studies out that were exported before; return how many were there.

    Args:
        out: The export.
        study_uids: As they are called here.
    """
    secret, dropped = read_secret(Settings.read().key_file), 0
    for study_uid in study_uids:
        for uid in (study_uid, keyed_uid(study_uid, secret)):
            record = f"{RECORDS}/{uid}.json"
            if out.exists(record):
                dropped += 1
                _drop(out, uid)
    return dropped


def _drop(out: Location, uid: str) -> None:
    """Remove all of a study; its record first, so that it counts as unfinished."""
    folder = f"{IMAGES_FOLDER}/{uid}"
    out.remove(f"{RECORDS}/{uid}.json")
    out.remove(f"{MASKS_FOLDER}/{uid}.nii.gz")
    for entry in out.entries(folder):
        out.remove(entry.path)
    if out.is_local:  # an empty folder would be a study without images
        with suppress(OSError):
            Path(out.url, folder).rmdir()


def _exported_uid(folder: StudyFolder, secret: bytes) -> str:
    """Return what a study is called: keyed, unless its files are de-identified."""
    paths = [entry.path for entry in folder.files if entry.size_bytes]
    for path, raw in folder.source.read_beginnings(paths, BEGINNING_BYTES):
        if is_own(raw) and is_own(folder.source.read(path), is_whole=True):
            return folder.name
    return keyed_uid(folder.name, secret)


def is_own(raw: bytes, *, is_whole: bool = False) -> bool:
    """Say whether csfd has de-identified a file, and nothing was added to it since.

    Args:
        raw: All of it, or its beginning.
        is_whole: It is all of it: nothing may follow the pixels.
    """
    try:
        header = read_slice_header(raw, "")
    except DicomError:
        return False
    if header is None or not (header.patient_key or "").startswith(KEYED_PATIENT):
        return False
    try:
        with quiet():
            dataset = dcmread(io.BytesIO(raw), stop_before_pixels=not is_whole)
    except Exception:  # noqa: BLE001 - damaged bytes fail in many ways
        return False
    meta = {int(tag) for tag in dataset.file_meta.keys()}  # noqa: SIM118 - see below
    if any(raw[:_PREAMBLE_BYTES]) or not meta <= _META:
        return False
    removed = dataset.get_item(tags.PATIENT_IDENTITY_REMOVED)
    is_removed = removed is not None and bytes(removed.value).strip(b" \0") == b"YES"
    return is_removed and all(
        int(tag) in _WRITTEN or (int(tag) in EMPTY and not dataset.get_item(tag).value)
        for tag in dataset.keys()  # noqa: SIM118 - iterating decodes the elements
    )


def _write_study(task: ExportTask, uid: str, secret: bytes) -> dict[str, Any]:
    """Write the images of a study; none where one that should be a slice is refused."""
    folder, out = f"{IMAGES_FOLDER}/{uid}", task.out
    passed_over: Counter[Reason] = Counter()
    written: dict[str, int] = {}
    names = _names_of(task.folder)
    for path, name in names.items():
        raw = task.folder.source.read(path)
        try:
            is_plain = is_own(raw, is_whole=True)
            content = raw if is_plain else _deidentified(raw, uid, secret)
        except RefusedError as error:
            passed_over[error.reason] += 1
            if not error.reason.is_passed_over:
                break
            continue
        out.write(f"{folder}/{name}", content)
        written[name] = len(content)
    is_whole = all(reason.is_passed_over for reason in passed_over)
    for entry in out.entries(folder):
        if entry.name not in written:
            out.remove(entry.path)
    return {
        "images": len(written) if is_whole else 0,
        "size_bytes": sum(written.values()),
        "passed_over": {str(reason): n for reason, n in passed_over.items()},
    }


def _deidentified(raw: bytes, uid: str, secret: bytes) -> bytes:
    result = deidentify(raw, secret)
    if result.study_uid != uid:
        raise RefusedError(Reason.NO_STUDY)
    return result.content


def _names_of(folder: StudyFolder) -> dict[str, str]:
    """Return how files are called, by their paths.

    By instance number, as RSNA has it; by their place where several series have the
    same numbers.
    """
    entries = [
        entry
        for entry in folder.files
        if entry.size_bytes
        and not is_hidden(entry.path.removeprefix(f"{folder.path}/"))
    ]
    paths = [entry.path for entry in entries]
    numbers: dict[str, int | None] = {}
    for path, raw in folder.source.read_beginnings(paths, BEGINNING_BYTES):
        try:
            header = read_slice_header(raw, "")
        except DicomError:
            header = None
        numbers[path] = None if header is None else header.instance_number
    is_told_apart = len(set(numbers.values())) == len(numbers)
    if is_told_apart and None not in numbers.values():
        return {path: f"{number}.dcm" for path, number in numbers.items()}
    return {path: f"{position}.dcm" for position, path in enumerate(sorted(paths), 1)}


def _mask_of(
    task: ExportTask,
) -> tuple[MaskKind, GivenMaskNote | PredictedMaskNote | None]:
    """Return which mask fits the slices that the study has now."""
    uid, stores = task.folder.name, task.stores
    record = stores.metadata.read_record(uid)
    if record is None or task.masks is MaskChoice.NONE:
        return MaskKind.NONE, None
    given = stores.masks.read_note(uid)
    if given is not None and given.content_hash == record.content_hash:
        return MaskKind.GIVEN, given
    predicted = stores.predicted_masks.read_note(uid)
    is_wanted = task.masks is MaskChoice.ANY
    if is_wanted and predicted and predicted.content_hash == record.content_hash:
        return MaskKind.PREDICTED, predicted
    return MaskKind.NONE, None


def _write_mask(
    task: ExportTask,
    uid: str,
    kind: MaskKind,
    note: GivenMaskNote | PredictedMaskNote | None,
) -> None:
    path = f"{MASKS_FOLDER}/{uid}.nii.gz"
    if note is None:
        task.out.remove(path)
        return
    is_given = kind is MaskKind.GIVEN
    store = task.stores.masks if is_given else task.stores.predicted_masks
    labels = store.read_volume(task.folder.name)
    # Written anew: the header of a file from outside could hold a name.
    task.out.write(path, nifti_content(labels, note.geometry))


def _reasons(record: Mapping[str, Any]) -> dict[Reason, int]:
    return {Reason(reason): n for reason, n in record["passed_over"].items()}


def _json(note: Mapping[str, Any]) -> bytes:
    return (json.dumps(note, indent=1, sort_keys=True) + "\n").encode()
