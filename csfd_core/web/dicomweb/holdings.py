"""What of a study may be served at ``/dicom-web``: its images, and what csfd made.

Images are served if their file says that it names nobody, or their source is synthetic.
The files of a study are looked at once, and again when their listing changes; of each,
the beginning is read and no pixel.
"""

import io
import logging
import time
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any, Final

import sqlalchemy as sa
from pydicom import dcmread

from csfd_core.deid.deidentify import quiet
from csfd_core.dicom import tags
from csfd_core.dicom.elements import read_elements
from csfd_core.dicom.headers import SliceHeader, read_slice_header
from csfd_core.dicom.limits import limits
from csfd_core.errors import CsfdError, DicomError
from csfd_core.store.layout import PHANTOM_FILE
from csfd_core.store.locations import FileEntry, Location
from csfd_core.store.source import StudyFolder
from csfd_core.vocabulary import is_uid, require_uid
from csfd_core.web.database import studies
from csfd_core.web.dicomweb.remembered import Remembered
from csfd_core.web.review.label_files import is_withdrawn
from csfd_core.web.services import Services

_LOG: Final = logging.getLogger(__name__)
_BEGINNING_BYTES: Final = 8 * 1024  # the header of a de-identified slice takes 1.5 KB
_KEPT_STUDIES: Final = 64
_KEPT_RESULTS: Final = 4096
_TRIED_AGAIN_S: Final = 600.0  # results that could not be made
_PIXELS: Final = ("7FE00010", "7FE00008", "7FE00009", "00420011")  # and a PDF's bytes

_SEARCHED: Final = (
    "00080016",  # SOPClassUID
    "00080018",  # SOPInstanceUID
    "00080060",  # Modality
    "0020000E",  # SeriesInstanceUID
    "00200013",  # InstanceNumber
    "00280008",  # NumberOfFrames
    "00280010",  # Rows
    "00280011",  # Columns
    "00280100",  # BitsAllocated
)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One object that is served.

    Attributes:
        sop_uid: SOPInstanceUID.
        sop_class_uid: SOPClassUID.
        series_uid: SeriesInstanceUID.
        transfer_syntax_uid: As it is stored.
        frames: How many it has; 0 for no image.
        attributes: Of the image, as DICOM JSON: what a search tells of it.
        location: Where its file is.
        path: Of its file, below that.
        is_result: csfd has made it from a prediction or a review.
        must_name_nobody: It is served only as long as its file says so.
    """

    sop_uid: str
    sop_class_uid: str
    series_uid: str
    transfer_syntax_uid: str
    frames: int
    attributes: Json
    location: Location
    path: str
    is_result: bool
    must_name_nobody: bool

    def read(self) -> bytes:
        """Return the file.

        Raises:
            SourceError: If it is gone.
        """
        return self.location.read(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What is served of a study.

    Attributes:
        study_uid: StudyInstanceUID.
        identity: Changes with what is served.
        instances: Images in the order of their names, then results.
        first: By series, all attributes of its first object but the pixels.
    """

    study_uid: str
    identity: tuple[str, ...]
    instances: tuple[Instance, ...]
    first: dict[str, Json] = field(default_factory=dict)

    def series_uids(self) -> list[str]:
        """Return the series, in the order of their first objects."""
        return list(dict.fromkeys(one.series_uid for one in self.instances))

    def of_series(self, series_uid: str) -> list[Instance]:
        """Return the objects of one series."""
        return [one for one in self.instances if one.series_uid == series_uid]

    @property
    def has_results(self) -> bool:
        """Whether what csfd has made is among it."""
        return any(one.is_result for one in self.instances)


_images: Final = Remembered[tuple[str, str, str, str], Holdings](_KEPT_STUDIES)
_results: Final = Remembered[tuple[str, str], tuple[Instance, Json] | None](
    _KEPT_RESULTS
)
_failures: Final[dict[tuple[str, str], float]] = {}
_MAKING: Final = Lock()  # results take seconds and memory: one study at a time


def served_studies(services: Services) -> list[str]:
    """Return the studies that may have something to serve: the newest first."""
    with services.database.transaction() as connection:
        ordered = sa.select(studies.c.study_uid).order_by(studies.c.accepted_at.desc())
        accepted = list(connection.scalars(ordered))
    study_uids = [*accepted, *services.stores.metadata.study_uids()]
    withdrawn = services.stores.withdrawn.study_uids()
    return [uid for uid in dict.fromkeys(study_uids) if uid not in withdrawn]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A study whose files are listed, and not looked at yet.

    Attributes:
        folder: Its images.
        is_synthetic: It is a phantom.
        results: Paths of what csfd has made of it, below the store.
        store: Where these are.
    """

    folder: StudyFolder
    is_synthetic: bool
    results: tuple[str, ...]
    store: Location

    @property
    def study_uid(self) -> str:
        """StudyInstanceUID."""
        return self.folder.name

    @property
    def identity(self) -> tuple[str, ...]:
        """What changes with what is served of it."""
        return (*self._images_identity, *self.results)

    @property
    def _images_identity(self) -> tuple[str, str, str, str]:
        kind = "phantom" if self.is_synthetic else ""
        folder = self.folder
        return folder.source.url, self.study_uid, folder.fingerprint, kind

    def load(self) -> Holdings | None:
        """Look at the files, ``None`` where no image may be served.

        Raises:
            SourceError: If the source cannot be read.
        """
        images = _images.get(
            self._images_identity,
            lambda: _look_at(self.folder, is_synthetic=self.is_synthetic),
        )
        return self._with_results(images) if images.instances else None

    def _with_results(self, images: Holdings) -> Holdings:
        added = []
        for path in self.results:
            make = partial(_result_in, self.store, path)
            one = _results.get((self.store.url, path), make)
            if one is not None:
                added.append(one)
        first = dict(images.first)
        for instance, attributes in added:
            first.setdefault(instance.series_uid, attributes)
        return Holdings(
            study_uid=images.study_uid,
            identity=self.identity,
            instances=(*images.instances, *(instance for instance, _ in added)),
            first=first,
        )


def find_study(
    services: Services, study_uid: str, *, with_results: bool, makes: bool = False
) -> Found | None:
    """List the files of a study, ``None`` where there are none.

    Args:
        services: Stores and sources.
        study_uid: The study.
        with_results: What csfd has made of it as well.
        makes: Make the results of its prediction, if they are not there.

    Raises:
        IdentifierError: If ``study_uid`` is no valid UID.
        SourceError: If the source cannot be read.
    """
    from csfd_core.dicom_objects.stored import read_results

    uid = require_uid(study_uid)
    if is_withdrawn(services, uid):
        return None
    folder = services.sources.study(uid)
    if folder is None:
        return None
    if with_results and makes:
        _make_results(services, uid)
    results = read_results(services.stores, uid) if with_results else []
    return Found(
        folder=folder,
        is_synthetic=folder.source.exists(PHANTOM_FILE),
        results=tuple(one.path for one in results),
        store=services.stores.root,
    )


def attributes_in(raw: bytes) -> Json:
    """Return all attributes of a file as DICOM JSON, without its pixels.

    Source: DICOM PS3.18 annex F.
    """
    with quiet():
        dataset = dcmread(io.BytesIO(raw), stop_before_pixels=True)
        attributes: Json = dataset.to_json_dict(suppress_invalid_tags=True)
        syntax = str(dataset.file_meta.TransferSyntaxUID)
    for tag in _PIXELS:
        attributes.pop(tag, None)
    return attributes | {"00083002": {"vr": "UI", "Value": [syntax]}}


def _look_at(folder: StudyFolder, *, is_synthetic: bool) -> Holdings:
    study_uid = folder.name
    entries = {
        entry.path: entry
        for entry in folder.files
        if 0 < entry.size_bytes <= limits().file_bytes
    }
    instances: dict[str, Instance] = {}
    first: dict[str, Json] = {}
    source = folder.source
    for path, raw in source.read_beginnings(list(entries), _BEGINNING_BYTES):
        instance = _image_in(source, entries[path], raw, study_uid, is_synthetic)
        if instance is not None and instance.sop_uid not in instances:
            instances[instance.sop_uid] = instance
            if instance.series_uid not in first:
                first[instance.series_uid] = attributes_in(instance.read())
    ordered = sorted(instances.values(), key=_order)
    return Holdings(
        study_uid=study_uid,
        identity=(source.url, folder.fingerprint),
        instances=tuple(ordered),
        first=first,
    )


def _order(instance: Instance) -> tuple[str, float, str]:
    (number,) = instance.attributes["00200013"].get("Value", [float("inf")])
    return instance.series_uid, number, instance.sop_uid


def _image_in(
    source: Location, entry: FileEntry, raw: bytes, study_uid: str, is_synthetic: bool
) -> Instance | None:
    """Return the image of a file, ``None`` where it is none that may be served."""
    try:
        header = read_slice_header(raw, "", size_bytes=entry.size_bytes)
        if header is None:
            raw = source.read(entry.path)
            header = read_slice_header(raw, "")
        if header is None or not (is_synthetic or names_nobody(raw, entry.size_bytes)):
            return None
    except DicomError:
        return None
    sop_uid, series_uid = header.sop_uid or "", header.series_uid or ""
    sop_class_uid = header.sop_class_uid or ""
    is_whole = all(map(is_uid, (sop_uid, series_uid, sop_class_uid)))
    if not is_whole or header.study_uid != study_uid or not header.has_pixel_data:
        return None
    return Instance(
        sop_uid=sop_uid,
        sop_class_uid=sop_class_uid,
        series_uid=series_uid,
        transfer_syntax_uid=header.transfer_syntax_uid,
        frames=header.frame_count or 1,
        attributes=_told_of(header),
        location=source,
        path=entry.path,
        is_result=False,
        must_name_nobody=not is_synthetic,
    )


def names_nobody(raw: bytes, size_bytes: int | None = None) -> bool:
    """Say whether a file tells that its patient was removed from it.

    Args:
        raw: All of it, or its beginning.
        size_bytes: Of all of it.

    Raises:
        DicomError: If it cannot be read.
    """
    values = read_elements(raw, size_bytes=size_bytes).values
    return values.get(tags.PATIENT_IDENTITY_REMOVED, b"").strip(b" \0") == b"YES"


def _told_of(header: SliceHeader) -> Json:
    values = {
        "00080016": ("UI", header.sop_class_uid),
        "00080018": ("UI", header.sop_uid),
        "00080060": ("CS", header.modality),
        "0020000E": ("UI", header.series_uid),
        "00200013": ("IS", header.instance_number),
        "00280010": ("US", header.rows),
        "00280011": ("US", header.columns),
        "00280100": ("US", header.bits_allocated),
    }
    return {
        tag: {"vr": vr} if value is None else {"vr": vr, "Value": [value]}
        for tag, (vr, value) in values.items()
    }


def _make_results(services: Services, study_uid: str) -> None:
    """Make the results of a study's prediction, if they are not there.

    Its images are served whatever becomes of that.
    """
    from csfd_core.dicom_objects.stored import has_results, stored_results

    if has_results(services.stores, study_uid):
        return  # without a wait for those of another study
    key, now = (services.stores.root.url, study_uid), time.monotonic()
    if now - _failures.get(key, -_TRIED_AGAIN_S) < _TRIED_AGAIN_S:
        return
    with _MAKING:
        try:
            stored_results(services.stores, services.sources, study_uid)
        except Exception as error:  # noqa: BLE001 - of any kind, see above
            _failures[key] = now
            _LOG.warning("Results could not be made: %s.", type(error).__name__)
        else:
            _failures.pop(key, None)


def _result_in(root: Location, path: str) -> tuple[Instance, Json] | None:
    """Return a result and its attributes, ``None`` where it is gone or damaged."""
    try:
        raw = root.read(path)
        attributes = attributes_in(raw)
    except (CsfdError, ValueError, KeyError, AttributeError):
        return None

    def text(tag: str) -> str:
        return str(attributes[tag]["Value"][0])

    has_pixels = "00280010" in attributes
    frames = attributes.get("00280008", {}).get("Value", [1])
    instance = Instance(
        sop_uid=text("00080018"),
        sop_class_uid=text("00080016"),
        series_uid=text("0020000E"),
        transfer_syntax_uid=text("00083002"),
        frames=int(frames[0]) if has_pixels else 0,
        attributes={tag: attributes[tag] for tag in _SEARCHED if tag in attributes},
        location=root,
        path=path,
        is_result=True,
        must_name_nobody=False,
    )
    return instance, attributes
