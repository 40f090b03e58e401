"""One pass over the files of one study: headers, identity, order, findings.

``scan_study`` reads every file of a study once. A caller that also wants the pixels, as
the conversion does, is handed each file's bytes in the same pass.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import xxhash

from csfd_core.dicom import checks
from csfd_core.dicom.elements import is_native
from csfd_core.dicom.findings import Finding, Status, in_order, status_of
from csfd_core.dicom.geometry import VolumeGeometry, build_geometry, order_head_to_feet
from csfd_core.dicom.headers import SliceHeader, read_slice_header
from csfd_core.dicom.nifti import NiftiMask, check_mask, read_nifti_mask
from csfd_core.dicom.pixels import read_hounsfield, read_stored_values
from csfd_core.errors import DicomError, MaskError, NotDicomError, PixelDataError
from csfd_core.store.locations import FileEntry
from csfd_core.store.metadata import StudyRecord
from csfd_core.store.source import StudyFolder
from csfd_core.vocabulary import is_uid

_BEGINNING_BYTES: Final = 64 * 1024  # CT headers take 1 to 20 KB
_CT_IMAGE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
# Air in a CT image, where the values are Hounsfield units.
_AIR_HU: Final = (-1100.0, -850.0)
_MIN_AIR_SHARE: Final = 0.02
_SOFT_TISSUE_HU: Final = (-150.0, 150.0)

OnSlice = Callable[[SliceHeader, bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyScan:
    """What one pass over a study's files has found.

    ``headers`` are ordered head to feet where the slices have a geometry, else by name;
    ``geometry`` is there for every study that is not quarantined for its slices.
    ``content_hash`` identifies the content of all slice files whatever their names,
    ``mask_hash`` that of the mask.
    """

    folder: StudyFolder
    study_uid: str
    headers: tuple[SliceHeader, ...]
    geometry: VolumeGeometry | None
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    content_hash: str
    mask_hash: str | None

    @property
    def status(self) -> Status:
        """Standing of the study."""
        return status_of(self.findings)


@dataclass(slots=True)
class _Files:
    """Gathers what reading the files one by one brings up."""

    headers: list[SliceHeader] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    digests: list[str] = field(default_factory=list)


def scan_study(
    folder: StudyFolder, *, on_slice: OnSlice | None = None
) -> list[StudyScan]:
    """Read, order and check a study.

    Args:
        folder: The study's files. A folder that need not match a StudyInstanceUID may
            hold several studies; each is scanned for itself.
        on_slice: Called with the header and the whole content of every slice file, in
            the order of their names. It may raise ``PixelDataError``.

    Returns:
        One scan, or several where the folder holds several studies.

    Raises:
        SourceError: If the source cannot be read; what is wrong with the study itself
            is a finding.
    """
    if folder.must_match_uid and not is_uid(folder.name):
        detail = "The study's folder is not named by a valid UID."
        finding = Finding("invalid_uid", detail)
        return [_quarantined(folder, _Files(findings=[finding]))]
    files = _read_files(folder, on_slice)
    if not files.headers:
        if not files.findings:
            detail = f"None of the {len(folder.files)} files is a DICOM image."
            files.findings.append(Finding("no_dicom", detail))
        return [_quarantined(folder, files)]
    if folder.must_match_uid:
        return [_finish(folder, folder.name, files)]
    uids = sorted({header.study_uid or "" for header in files.headers})
    return [_finish(folder, uid, _only_study(files, uid)) for uid in uids]


def mask_of(folder: StudyFolder) -> tuple[NiftiMask | None, str | None]:
    """Read the mask of a study and its digest; ``(None, None)`` where there is none.

    Raises:
        MaskError: If it cannot be read as a NIfTI mask.
    """
    if folder.mask is None:
        return None, None
    raw = folder.source.read(folder.mask.path)
    return read_nifti_mask(raw), hashlib.sha256(raw).hexdigest()


def _read_files(folder: StudyFolder, on_slice: OnSlice | None) -> _Files:
    files = _Files()
    entries = {}
    for entry in folder.files:
        if entry.name.startswith("."):
            files.ignored["hidden"] += 1
        elif not entry.size_bytes:
            _note_unusable(files, entry, "empty_file", "have no content")
        else:
            entries[entry.path] = entry
    whole = on_slice is not None or folder.source.is_local
    length = None if whole else _BEGINNING_BYTES
    for path, raw in folder.source.read_beginnings(list(entries), length):
        _read_file(files, folder, entries[path], raw, on_slice)
    return files


def _read_file(
    files: _Files,
    folder: StudyFolder,
    entry: FileEntry,
    raw: bytes,
    on_slice: OnSlice | None,
) -> None:
    # S3's ETag changes with the content; a disk tells nothing, so the bytes are hashed
    # (XXH3 with 128 bits: against chance, and ten times as fast as SHA-256).
    is_whole = len(raw) >= entry.size_bytes
    is_etag = entry.token.startswith("etag:")
    digest = entry.token if is_etag else xxhash.xxh3_128_hexdigest(raw)
    files.digests.append(digest)
    name = folder.file_name(entry)
    try:
        header = read_slice_header(
            raw, name, size_bytes=entry.size_bytes, digest=digest
        )
        if header is None:  # the header is longer than the beginning
            raw, is_whole = folder.source.read(entry.path), True
            header = read_slice_header(raw, name, digest=digest)
    except NotDicomError:
        _note_unusable(files, entry, "not_dicom", "are no DICOM files")
        return
    except DicomError:
        _add(
            files, "truncated_file", "A slice file is damaged or cut off in its header."
        )
        return
    if header is None or _is_no_image(header):
        files.ignored["non-image DICOM"] += 1
        return
    files.headers.append(header)
    needs_decoding = not is_native(header.transfer_syntax_uid) and header.has_pixel_data
    try:
        if on_slice is not None:
            on_slice(header, raw)
        elif needs_decoding:
            # Only decoding shows whether a compressed image is whole.
            content = raw if is_whole else folder.source.read(entry.path)
            read_stored_values(content, header)
    except PixelDataError as error:
        if needs_decoding:
            _add(files, "undecodable_pixels", str(error))


def _finish(folder: StudyFolder, study_uid: str, files: _Files) -> StudyScan:
    findings = [*files.findings, *checks.check_slices(files.headers)]
    if not is_uid(study_uid):
        findings.append(Finding("invalid_uid", "The StudyInstanceUID is no valid UID."))
    foreign = [h for h in files.headers if h.study_uid != study_uid]
    if foreign:
        detail = f"{len(foreign)} of {len(files.headers)} slices are of another study."
        findings.append(Finding("study_uid_mismatch", detail))
    codes = {finding.code for finding in findings}
    headers, geometry = _order(files.headers, codes)
    if status_of(findings) is not Status.QUARANTINED:
        findings += _check_rescale(folder, headers)
    mask_hash = None
    if geometry is not None and status_of(findings) is not Status.QUARANTINED:
        mask_findings, mask_hash = _check_mask(folder, headers, geometry)
        findings += mask_findings
    return StudyScan(
        folder=folder,
        study_uid=study_uid,
        headers=headers,
        geometry=geometry,
        findings=in_order(findings),
        notes=_notes(files),
        content_hash=_content_hash(header.digest for header in headers),
        mask_hash=mask_hash,
    )


def _order(
    headers: list[SliceHeader], codes: set[str]
) -> tuple[tuple[SliceHeader, ...], VolumeGeometry | None]:
    """Return headers head to feet and their geometry, as far as they have one."""
    if "no_geometry" in codes:
        return tuple(headers), None
    ordered = tuple(order_head_to_feet(headers))
    return ordered, build_geometry(ordered)


def _check_rescale(
    folder: StudyFolder, headers: tuple[SliceHeader, ...]
) -> Iterator[Finding]:
    """Without a rescale, accept values that are evidently Hounsfield units already."""
    without = [
        header
        for header in headers
        if header.rescale_slope is None or header.rescale_intercept is None
    ]
    if not without:
        return
    detail = f"{len(without)} of {len(headers)} slices have no rescale"
    hounsfield = _reader(folder, tuple(without))(len(without) // 2)
    air = (hounsfield > _AIR_HU[0]) & (hounsfield < _AIR_HU[1])
    soft = (hounsfield > _SOFT_TISSUE_HU[0]) & (hounsfield < _SOFT_TISSUE_HU[1])
    if min(air.mean(), soft.mean()) >= _MIN_AIR_SHARE:
        detail += "; air and soft tissue lie at Hounsfield units."
        yield Finding("no_rescale", detail)
    else:
        detail += ", and their values are no Hounsfield units."
        yield Finding("no_hounsfield", detail)


def _check_mask(
    folder: StudyFolder, headers: tuple[SliceHeader, ...], geometry: VolumeGeometry
) -> tuple[list[Finding], str | None]:
    try:
        mask, mask_hash = mask_of(folder)
    except MaskError as error:
        return [Finding("mask_unreadable", str(error))], None
    if mask is None:
        return [], None
    return check_mask(mask, geometry, _reader(folder, headers)), mask_hash


def _reader(
    folder: StudyFolder, headers: tuple[SliceHeader, ...]
) -> Callable[[int], npt.NDArray[np.float32]]:
    def read(index: int) -> npt.NDArray[np.float32]:
        header = headers[index]
        raw = folder.source.read(folder.path_of(header.file_name))
        return read_hounsfield(raw, header)

    return read


def _quarantined(folder: StudyFolder, files: _Files) -> StudyScan:
    return StudyScan(
        folder=folder,
        study_uid=folder.name if folder.must_match_uid else "",
        headers=(),
        geometry=None,
        findings=in_order(files.findings),
        notes=_notes(files),
        content_hash=_content_hash(files.digests),
        mask_hash=None,
    )


def _only_study(files: _Files, study_uid: str) -> _Files:
    headers = [h for h in files.headers if (h.study_uid or "") == study_uid]
    return _Files(headers, files.findings, files.ignored)


def _is_no_image(header: SliceHeader) -> bool:
    """Say whether this is a DICOM object that is no image, such as a report."""
    no_image = header.rows is None and not header.has_pixel_data
    return no_image and header.sop_class_uid != _CT_IMAGE_STORAGE


def _note_unusable(files: _Files, entry: FileEntry, code: str, what: str) -> None:
    """Count a file as defect where it is named like a slice, else as a stray one."""
    stem, dot, suffix = entry.name.rpartition(".")
    if dot and suffix.lower() == "dcm" and stem.isdigit():
        _add(files, code, f"Files named like slices {what}, such as {entry.name}.")
    else:
        files.ignored["not DICOM"] += 1


def _add(files: _Files, code: str, detail: str) -> None:
    files.findings.append(Finding(code, detail))


def _notes(files: _Files) -> tuple[str, ...]:
    return tuple(
        f"{count} stray file{'s' if count > 1 else ''} ignored ({kind})"
        for kind, count in sorted(files.ignored.items())
    )


def _content_hash(digests: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


def record_of(scan: StudyScan) -> StudyRecord:
    """Summarize a scan for the store."""
    first = scan.headers[0] if scan.headers else None
    syntaxes = Counter(header.transfer_syntax_uid for header in scan.headers)
    return StudyRecord(
        study_uid=scan.study_uid,
        status=scan.status,
        findings=tuple((f.code, f.detail) for f in scan.findings),
        notes=scan.notes,
        slice_count=len(scan.headers),
        slice_thickness_mm=first.slice_thickness_mm if first else None,
        transfer_syntax_uid=max(syntaxes, key=syntaxes.__getitem__, default=None),
        patient_key=first.patient_key if first else None,
        geometry=asdict(scan.geometry) if scan.geometry else None,
        source_bytes=scan.folder.size_bytes,
        content_hash=scan.content_hash,
        mask_hash=scan.mask_hash,
        fingerprint=scan.folder.fingerprint,
        mask_fingerprint=scan.folder.mask_fingerprint,
    )
