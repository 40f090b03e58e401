"""Headers of the slices that result objects belong to.

From the store: without patient, whatever the source holds. From files of an input: with
the patient, as what is made of them is written beside them.
"""

import io
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from csfd_core.dicom.headers import CT_IMAGE_STORAGE, KEYED_PATIENT, SliceHeader
from csfd_core.dicom_objects.identity import IDENTITY_TAGS
from csfd_core.dicom_objects.kinds import uid_of
from csfd_core.errors import SourceError
from csfd_core.ingest.files import BEGINNING_BYTES
from csfd_core.store.source import Sources, StudyFolder
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import is_uid

_FRAME_OF_REFERENCE: Final = 0x0020_0052
_IDENTITY_REMOVED: Final = 0x0012_0062
_METHOD: Final = "csfd: allowlist of CT attributes, keyed PatientID"
_KEYED_UIDS: Final = "csfd: allowlist of CT attributes, keyed UIDs and PatientID"
_PROFILE: Final = ("113100", "Basic Application Confidentiality Profile")
_UIDS_RETAINED: Final = ("113110", "Retain UIDs Option")
_OF_FILES: Final = (
    *IDENTITY_TAGS,
    0x0008_0016,  # SOPClassUID
    0x0008_0018,  # SOPInstanceUID
    0x0018_0050,  # SliceThickness
    0x0020_000D,  # StudyInstanceUID
    0x0020_000E,  # SeriesInstanceUID
    0x0020_0032,  # ImagePositionPatient
    0x0020_0037,  # ImageOrientationPatient
    _FRAME_OF_REFERENCE,
    0x0028_0010,  # Rows
    0x0028_0011,  # Columns
    0x0028_0030,  # PixelSpacing
)


def stored_headers(stores: Stores, sources: Sources, study_uid: str) -> list[Dataset]:
    """Return the headers of a study of the store, without patient, head to feet.

    The table of headers holds none. Of the files, where they are still there, only the
    first is opened, for the frame of reference.

    Raises:
        StoreError: If the store does not know the study.
    """
    record, headers = stores.metadata.read_headers(study_uid)
    frame_uid, has_keyed_uids = _facts_of_file(sources, study_uid, headers[0])
    patient = f"{KEYED_PATIENT}{record.patient_key}" if record.patient_key else ""
    codes = [_PROFILE] if has_keyed_uids else [_PROFILE, _UIDS_RETAINED]
    plain = []
    for header in headers:
        one = _dataset_of(study_uid, header)
        one.PatientID = patient
        if frame_uid:
            one.FrameOfReferenceUID = frame_uid
        one.PatientIdentityRemoved = "YES"
        one.DeidentificationMethod = _KEYED_UIDS if has_keyed_uids else _METHOD
        one.DeidentificationMethodCodeSequence = [_code(*code) for code in codes]
        one.LongitudinalTemporalInformationModified = "REMOVED"
        plain.append(one)
    return plain


def input_headers(folder: StudyFolder, headers: Sequence[SliceHeader]) -> list[Dataset]:
    """Return the headers of files as they are, with the patient, in their order.

    Raises:
        SourceError: If a file cannot be read.
    """
    paths = folder.paths()
    names = [paths[header.file_name] for header in headers]
    read = folder.source.read_beginnings(names, None)
    return [_parsed(raw) for _, raw in read]


def _parsed(raw: bytes) -> Dataset:
    return dcmread(
        io.BytesIO(raw),
        stop_before_pixels=True,
        force=True,
        specific_tags=list(_OF_FILES),
    )


def _facts_of_file(
    sources: Sources, study_uid: str, header: SliceHeader
) -> tuple[str | None, bool]:
    """Return the frame of reference of a slice, and whether its UIDs are keyed."""
    folder = sources.study(study_uid)
    path = None if folder is None else folder.paths().get(header.file_name)
    if folder is None or path is None:
        return None, False
    with suppress(SourceError, StopIteration):
        _, raw = next(iter(folder.source.read_beginnings([path], BEGINNING_BYTES)))
        dataset = _parsed(raw)
        removed = dataset.get("PatientIdentityRemoved") == "YES"
        method = str(dataset.get("DeidentificationMethod") or "")
        frame_uid = str(dataset.get("FrameOfReferenceUID") or "")
        return frame_uid if is_uid(frame_uid) else None, removed and (
            method == _KEYED_UIDS
        )
    return None, False


def _dataset_of(study_uid: str, header: SliceHeader) -> Dataset:
    assert header.position_mm is not None  # it is of a converted study
    assert header.orientation is not None
    assert header.pixel_spacing_mm is not None
    one = Dataset()
    one.SOPClassUID = header.sop_class_uid or CT_IMAGE_STORAGE
    one.SOPInstanceUID = _uid(study_uid, header.sop_uid, header.file_name)
    one.StudyInstanceUID = study_uid
    one.SeriesInstanceUID = _uid(study_uid, header.series_uid, "series")
    one.Modality = "CT"
    one.Rows, one.Columns = header.rows, header.columns
    one.PixelSpacing = _decimals(header.pixel_spacing_mm)
    one.ImageOrientationPatient = _decimals(header.orientation)
    one.ImagePositionPatient = _decimals(header.position_mm)
    if header.slice_thickness_mm:
        one.SliceThickness = format_number_as_ds(header.slice_thickness_mm)
    return one


def _uid(study_uid: str, stated: str | None, instead: str) -> str:
    """Return a UID; where the file's own is none, one that stands for it."""
    if stated is not None and is_uid(stated):
        return stated
    return uid_of(study_uid, "stands for", stated or instead)


def _decimals(numbers: Sequence[float]) -> list[str]:
    return [format_number_as_ds(float(number)) for number in numbers]


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = value, "DCM"
    item.CodeMeaning = meaning
    return item
