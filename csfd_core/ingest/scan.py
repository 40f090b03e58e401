"""One pass over the files of one study: headers, identity, order, findings.

``scan_study`` reads every file of a study once. A caller that also wants the pixels, as
the conversion does, is handed each file's bytes in the same pass.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from csfd_core.dicom import checks
from csfd_core.dicom.findings import Finding, Status, in_order, status_of
from csfd_core.dicom.geometry import VolumeGeometry, build_geometry, order_head_to_feet
from csfd_core.dicom.headers import SliceHeader
from csfd_core.dicom.hounsfield import check_hounsfield
from csfd_core.dicom.nifti import NiftiMask, check_mask, read_nifti_mask
from csfd_core.dicom.pixels import DecodedSlice
from csfd_core.dicom.volumes import Selection, VolumeFacts, select_volumes
from csfd_core.errors import MaskError, PixelDataError
from csfd_core.ingest.files import OnSlice, StudyFiles, read_files
from csfd_core.store.metadata import StudyRecord
from csfd_core.store.source import StudyFolder
from csfd_core.text import count, safe_name
from csfd_core.vocabulary import is_uid

# Findings on headers that say why pixels cannot be decoded, and more plainly.
_TOLD_OF_PIXELS: Final = frozenset(
    ("pixel_data_length", "truncated_file", "unsupported_pixels")
)


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
    volume: int = 1  # of those of the study, that which is read by default first
    volumes: tuple[VolumeFacts, ...] = ()  # in that order; (): no choice

    @property
    def name(self) -> str:
        """Return what its results are called: by the study, and its further volumes."""
        return self.study_uid if self.volume == 1 else f"{self.study_uid}-{self.volume}"

    @property
    def status(self) -> Status:
        """Standing of the study."""
        return status_of(self.findings)


def scan_study(
    folder: StudyFolder,
    *,
    on_slice: OnSlice | None = None,
    every_volume: bool = False,
    threads: int = 1,
) -> list[StudyScan]:
    """Read, order and check a study.

    Args:
        folder: The study's files. A folder that need not match a StudyInstanceUID may
            hold several studies; each is scanned for itself.
        on_slice: Called with every image that can be decoded, in the order of their
            names; from several threads if there are.
        every_volume: Return a scan of each axial volume of a study, that which is read
            otherwise first.
        threads: That decode.

    Returns:
        One scan, or several where the folder holds several studies or volumes.

    Raises:
        SourceError: If the source cannot be read; what is wrong with the study itself
            is a finding.
    """
    if folder.must_match_uid and not is_uid(folder.name):
        detail = "The study's folder is not named by a valid UID."
        return [quarantined(folder, "invalid_uid", detail)]
    files = read_files(folder, on_slice, threads)
    return [
        scan
        for study_uid, study_files in _studies_of(folder, files)
        for scan in _finish(folder, study_uid, study_files, every_volume)
    ] or [_quarantined(folder, files)]


def _studies_of(
    folder: StudyFolder, files: StudyFiles
) -> Iterator[tuple[str, StudyFiles]]:
    """Yield the studies of a folder with their files."""
    if not files.headers:
        if not files.findings:
            files_there = count(len(folder.files), "file")
            detail = f"There is no DICOM image among {files_there}."
            files.findings.append(Finding("no_dicom", detail))
    elif folder.must_match_uid:
        yield folder.name, files
    elif folder.study_uid is not None:
        others = [h for h in files.headers if h.study_uid != folder.study_uid]
        files.ignored["of no study"] += len(others)
        yield folder.study_uid, files.of_study(folder.study_uid)
    else:
        for uid in sorted({header.study_uid or "" for header in files.headers}):
            yield uid, files.of_study(uid)


def mask_of(
    folder: StudyFolder, geometry: VolumeGeometry
) -> tuple[NiftiMask | None, str | None]:
    """Read the mask of a study and its digest; ``(None, None)`` where there is none.

    Raises:
        MaskError: If it cannot be read as a NIfTI mask.
    """
    if folder.mask is None:
        return None, None
    raw = folder.source.read(folder.mask.path)
    mask = read_nifti_mask(raw, int(np.prod(geometry.shape_zyx)))
    return mask, hashlib.sha256(raw).hexdigest()


def _finish(
    folder: StudyFolder, study_uid: str, files: StudyFiles, every_volume: bool
) -> Iterator[StudyScan]:
    selections = select_volumes(files.headers, folder.chosen_slice)
    ranked = sorted(selections, key=lambda selection: selection.number)
    facts = tuple(one.facts for one in ranked if one.facts is not None)
    for selection in selections if every_volume else selections[:1]:
        scan = _finish_volume(folder, study_uid, files, selection)
        yield replace(scan, volumes=facts)


def _finish_volume(
    folder: StudyFolder, study_uid: str, files: StudyFiles, selection: Selection
) -> StudyScan:
    chosen = selection.headers
    findings = [*files.findings, *checks.check_slices(chosen)]
    findings += _identity_findings(files.headers, study_uid)
    if not any(finding.code in _TOLD_OF_PIXELS for finding in findings):
        findings += [
            Finding("undecodable_pixels", files.undecodable[header.file_name])
            for header in chosen
            if header.file_name in files.undecodable
        ]
    codes = {finding.code for finding in findings}
    headers, geometry = _order(chosen, codes)
    if geometry is not None and status_of(findings) is not Status.QUARANTINED:
        findings += _check_values(folder, headers, files)
    mask_hash = None
    is_usable = geometry is not None and status_of(findings) is not Status.QUARANTINED
    if geometry is not None and is_usable and selection.number == 1:  # whose mask it is
        mask_findings, mask_hash = _check_mask(folder, headers, geometry)
        findings += mask_findings
    return StudyScan(
        folder=folder,
        study_uid=study_uid,
        headers=headers,
        geometry=geometry,
        findings=in_order(findings),
        notes=(*selection.notes, *files.notes()),
        content_hash=_content_hash(header.digest for header in headers),
        mask_hash=mask_hash,
        volume=selection.number,
    )


def _identity_findings(headers: Sequence[SliceHeader], study_uid: str) -> list[Finding]:
    """Say what is wrong with the identifier that the images of a study bear."""
    findings = []
    if not is_uid(study_uid):
        findings.append(Finding("invalid_uid", "The StudyInstanceUID is no valid UID."))
    if any(header.has_odd_uid for header in headers):
        detail = "The StudyInstanceUID has leading zeros or more than 64 characters; "
        findings.append(Finding("odd_uid", f"{detail}the study is called {study_uid}."))
    foreign = [header for header in headers if header.study_uid != study_uid]
    if foreign:
        detail = f"{len(foreign)} of {len(headers)} slices are of another study."
        findings.append(Finding("study_uid_mismatch", detail))
    return findings


def _order(
    headers: Sequence[SliceHeader], codes: set[str]
) -> tuple[tuple[SliceHeader, ...], VolumeGeometry | None]:
    """Return headers head to feet and their geometry, as far as they have one."""
    if "no_geometry" in codes:
        return tuple(headers), None
    ordered = tuple(order_head_to_feet(headers))
    return ordered, build_geometry(ordered)


def _check_values(
    folder: StudyFolder, headers: Sequence[SliceHeader], files: StudyFiles
) -> list[Finding]:
    """Say whether the values are Hounsfield units."""
    decode = _decoder(folder)
    means = [files.means_hu.get(header.file_name) for header in headers]
    try:
        return list(
            check_hounsfield(headers, lambda h: decode(h).sample_hounsfield(), means)
        )
    except PixelDataError as error:
        return [Finding("undecodable_pixels", str(error))]


def _check_mask(
    folder: StudyFolder, headers: tuple[SliceHeader, ...], geometry: VolumeGeometry
) -> tuple[list[Finding], str | None]:
    try:
        mask, mask_hash = mask_of(folder, geometry)
    except MaskError as error:
        return [Finding("mask_unreadable", str(error))], None
    if mask is None:
        return [], None
    decode = _decoder(folder)

    def read_hounsfield(index: int) -> npt.NDArray[np.float32]:
        return decode(headers[index]).hounsfield()

    return check_mask(mask, geometry, read_hounsfield), mask_hash


def _decoder(folder: StudyFolder) -> Callable[[SliceHeader], DecodedSlice]:
    paths = folder.paths()

    def decode(header: SliceHeader) -> DecodedSlice:
        raw = folder.source.read(paths[header.file_name])
        return DecodedSlice(raw, header)

    return decode


def quarantined(folder: StudyFolder, code: str, detail: str) -> StudyScan:
    """Return the scan of a study that could not be read."""
    return _quarantined(folder, StudyFiles(findings=[Finding(code, detail)]))


def _quarantined(folder: StudyFolder, files: StudyFiles) -> StudyScan:
    return StudyScan(
        folder=folder,
        study_uid=_name_of(folder),
        headers=(),
        geometry=None,
        findings=in_order(files.findings),
        notes=tuple(files.notes()),
        content_hash=_content_hash(files.digests),
        mask_hash=None,
    )


def _name_of(folder: StudyFolder) -> str:
    """Name a study that could not be read; a folder may bear a patient's name."""
    is_named = folder.must_match_uid or is_uid(folder.name)
    return safe_name(folder.name) if is_named else ""


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
        volume=scan.volume,
        volumes=tuple(asdict(one) for one in scan.volumes),
    )
