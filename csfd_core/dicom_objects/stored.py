"""Result objects of studies in a store: made when they are asked for, and kept.

``dicom_results/<study_uid>/<result set>/<kind>.dcm``, with ``-2`` and so on where there
are several of a kind, and ``index.json``, which is written last: a set without it is
not there. A signed report has a note of its own beside it, so that two readers who sign
at once lose nothing. Sets are never replaced; a new prediction has another one.

Nothing of the patient is in them: they are made from the store's own headers.
"""

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from csfd_core.dicom_objects.headers import stored_headers
from csfd_core.dicom_objects.kinds import ResultKind, result_set
from csfd_core.dicom_objects.results import ResultObject, make_results, make_signed
from csfd_core.dicom_objects.source import Plane, ResultSource, SignedReview
from csfd_core.errors import StoreError
from csfd_core.inference.predict import read_prediction
from csfd_core.store.paths import DICOM_RESULTS
from csfd_core.store.source import Sources
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import require_uid

INDEX: Final = "index.json"
_SIGNED: Final = f"{ResultKind.SIGNED_SR}-"
_NOTE: Final = ".json"
_AT_ONCE: Final = 32  # slices decoded together; as many as lie together in a file
_CACHED_CHUNKS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResult:
    """One object in a store.

    Attributes:
        kind: What it is.
        result_set: What it was made together with.
        path: Of its file, relative to the store.
        sop_uid: SOPInstanceUID.
        series_uid: SeriesInstanceUID.
        sop_class_uid: SOPClassUID.
        made_at: UTC.
        previous: The set that its set has taken the place of.
        is_current: It tells of the prediction that the store holds now.
    """

    kind: ResultKind
    result_set: str
    path: str
    sop_uid: str
    series_uid: str
    sop_class_uid: str
    made_at: datetime
    previous: str | None
    is_current: bool

    def read(self, stores: Stores) -> bytes:
        """Return the file.

        Raises:
            SourceError: If it is gone.
        """
        return stores.root.read(self.path)


def read_results(stores: Stores, study_uid: str) -> list[StoredResult]:
    """List the objects of a study that are there, the oldest set first.

    Raises:
        IdentifierError: If ``study_uid`` is no valid UID.
    """
    uid = require_uid(study_uid)
    prediction = read_prediction(stores, uid)
    current = None if prediction is None else result_set(prediction)
    sets = stores.root.folders(_folder(uid))
    noted_sets = [(name, note) for name in sets if (note := _index(stores, uid, name))]
    noted_sets.sort(key=lambda pair: (pair[1]["made_at"], pair[0]))
    return [
        _listed(uid, name, entry, is_current=name == current)
        for name, note in noted_sets
        for entry in (*note["objects"], *_signed_entries(stores, uid, name))
    ]


def has_results(stores: Stores, study_uid: str) -> bool:
    """Say whether nothing is left to be made of the prediction of a study.

    Raises:
        IdentifierError: If ``study_uid`` is no valid UID.
    """
    uid = require_uid(study_uid)
    prediction = read_prediction(stores, uid)
    return prediction is None or bool(_index(stores, uid, result_set(prediction)))


def stored_results(
    stores: Stores, sources: Sources, study_uid: str
) -> list[StoredResult]:
    """List the objects of a study, and make those of its prediction if need be.

    Raises:
        IdentifierError: If ``study_uid`` is no valid UID.
        StoreError: If mask and prediction are not of the same slices: the study is
            being predicted anew.
    """
    uid = require_uid(study_uid)
    prediction = read_prediction(stores, uid)
    is_gone = stores.withdrawn.has(uid)
    if prediction is None or is_gone:
        return [] if is_gone else read_results(stores, uid)
    name = result_set(prediction)
    if _index(stores, uid, name) is None:
        source = result_source(stores, sources, uid)
        _keep_set(stores, uid, name, source, make_results(source))
    return read_results(stores, uid)


def result_source(
    stores: Stores,
    sources: Sources,
    study_uid: str,
    headers: Sequence[Dataset] | None = None,
) -> ResultSource:
    """Return what the objects of a study's prediction are made from.

    Args:
        stores: That hold the study.
        sources: Where its files lie.
        study_uid: The study.
        headers: Of its slices, head to feet, under another identity; without them the
            store's own, which name nobody.

    Raises:
        StoreError: If there is no prediction, or if mask and prediction are not of the
            same slices.
    """
    uid = require_uid(study_uid)
    prediction = read_prediction(stores, uid)
    if prediction is None:
        raise StoreError(f"Study {uid} has no prediction yet. Ask again later.")
    slice_headers = (
        stored_headers(stores, sources, uid) if headers is None else list(headers)
    )
    name = result_set(prediction)
    made_at, previous = _when(stores, uid, name)
    return ResultSource(
        headers=slice_headers,
        mask=_mask(stores, uid, prediction.get("content_hash"), slice_headers),
        prediction=prediction,
        grey=_grey(stores, uid),
        made_at=made_at,
        previous=previous,
    )


def store_signed(
    stores: Stores,
    sources: Sources,
    study_uid: str,
    review: SignedReview,
    earlier: SignedReview | None = None,
) -> StoredResult:
    """Make and keep the report of a signed review, beside what the model has said.

    What is there already is kept as it is.

    Args:
        stores: That hold the study.
        sources: Where its files lie.
        study_uid: The study.
        review: What was signed.
        earlier: What the same reader had signed before.

    Raises:
        StoreError: If there is no prediction, or if mask and prediction are not of the
            same slices.
    """
    uid = require_uid(study_uid)
    stored_results(stores, sources, uid)
    source = result_source(stores, sources, uid)
    made = make_signed(source, review, earlier)
    name = f"{_SIGNED}{made.sop_uid.rpartition('.')[2]}"
    folder = _set_folder(uid, source.result_set)
    note_path = f"{folder}/{name}{_NOTE}"
    if not stores.root.exists(note_path):
        stores.root.write(f"{folder}/{name}.dcm", to_bytes(made.dataset))
        entry = _entry(made, f"{name}.dcm", review.signed_at, source.previous)
        stores.root.write(note_path, _json(entry))
    entry = json.loads(stores.root.read(note_path))
    return _listed(uid, source.result_set, entry, is_current=True)


def files_of_results(stores: Stores, study_uid: str) -> list[str]:
    """Return the paths of all that is kept of a study's objects, sorted."""
    files, _ = stores.root.find(_folder(require_uid(study_uid)))
    return [file.path for file in files]


def to_bytes(dataset: Dataset) -> bytes:
    """Return an object as a DICOM file."""
    sink = io.BytesIO()
    dataset.save_as(sink, enforce_file_format=True)
    return sink.getvalue()


def _named(objects: Iterable[ResultObject]) -> Iterator[tuple[ResultObject, str]]:
    """Yield objects and what their files are called, without an ending."""
    seen: dict[ResultKind, int] = {}
    for one in objects:
        number = seen[one.kind] = seen.get(one.kind, 0) + 1
        yield one, str(one.kind) if number == 1 else f"{one.kind}-{number}"


def _keep_set(
    stores: Stores,
    uid: str,
    name: str,
    source: ResultSource,
    objects: Sequence[ResultObject],
) -> None:
    folder = _set_folder(uid, name)
    entries = []
    for made, file_name in _named(objects):
        stores.root.write(f"{folder}/{file_name}.dcm", to_bytes(made.dataset))
        file = f"{file_name}.dcm"
        entries.append(_entry(made, file, source.made_at, source.previous))
    note = {
        "made_at": source.made_at.isoformat(),
        "previous": source.previous,
        "objects": entries,
    }
    stores.root.write(f"{folder}/{INDEX}", _json(note))
    if stores.withdrawn.has(uid):  # meanwhile
        for path in files_of_results(stores, uid):
            stores.root.remove(path)


def _entry(
    made: ResultObject, file: str, made_at: datetime, previous: str | None
) -> dict[str, Any]:
    return {
        "kind": made.kind,
        "file": file,
        "sop_uid": made.sop_uid,
        "series_uid": made.series_uid,
        "sop_class_uid": made.sop_class_uid,
        "made_at": made_at.isoformat(),
        "previous": previous,
    }


def _listed(
    uid: str, name: str, entry: dict[str, Any], *, is_current: bool
) -> StoredResult:
    return StoredResult(
        kind=ResultKind(entry["kind"]),
        result_set=name,
        path=f"{_set_folder(uid, name)}/{entry['file']}",
        sop_uid=entry["sop_uid"],
        series_uid=entry["series_uid"],
        sop_class_uid=entry["sop_class_uid"],
        made_at=datetime.fromisoformat(entry["made_at"]),
        previous=entry["previous"],
        is_current=is_current,
    )


def _when(stores: Stores, uid: str, name: str) -> tuple[datetime, str | None]:
    """Return when a set was made and what it replaces: as it stands, or as of now."""
    note = _index(stores, uid, name)
    if note is not None:
        return datetime.fromisoformat(note["made_at"]), note["previous"]
    others = [one.result_set for one in read_results(stores, uid)]
    now = datetime.now(UTC).replace(microsecond=0)
    return now, others[-1] if others else None


def _index(stores: Stores, uid: str, name: str) -> dict[str, Any] | None:
    path = f"{_set_folder(uid, name)}/{INDEX}"
    content = stores.root.read_if_there(path)
    return None if content is None else dict(json.loads(content))


def _signed_entries(stores: Stores, uid: str, name: str) -> list[dict[str, Any]]:
    entries = [
        json.loads(stores.root.read(entry.path))
        for entry in stores.root.entries(_set_folder(uid, name))
        if entry.name.startswith(_SIGNED) and entry.name.endswith(_NOTE)
    ]
    return sorted(entries, key=lambda entry: str(entry["made_at"]))


def _mask(
    stores: Stores, uid: str, content_hash: str | None, headers: Sequence[Dataset]
) -> npt.NDArray[np.uint8]:
    record = stores.metadata.read_record(uid)
    note = stores.predicted_masks.read_note(uid)
    if note is None:
        first = headers[0]
        return np.zeros((len(headers), first.Rows, first.Columns), dtype=np.uint8)
    hashes = {note.content_hash, content_hash, record and record.content_hash}
    if len(hashes) > 1 or note.shape_zyx[0] != len(headers):
        raise StoreError(
            f"The slices of study {uid} have changed since it was predicted. It is "
            "predicted anew; ask again then."
        )
    return stores.predicted_masks.read_volume(uid)


def _grey(stores: Stores, uid: str) -> Callable[[int], Plane] | None:
    if stores.slices.read_note(uid) is None:
        return None

    @lru_cache(maxsize=_CACHED_CHUNKS)
    def chunk(number: int) -> npt.NDArray[np.uint8]:
        start = number * _AT_ONCE
        return stores.slices.read_volume(uid, start, start + _AT_ONCE)

    return lambda index: np.asarray(chunk(index // _AT_ONCE)[index % _AT_ONCE])


def _folder(uid: str) -> str:
    return f"{DICOM_RESULTS}/{uid}"


def _set_folder(uid: str, name: str) -> str:
    return f"{_folder(uid)}/{name}"


def _json(note: dict[str, Any]) -> bytes:
    return (json.dumps(note, indent=2, sort_keys=True) + "\n").encode()
