"""Segments studies that are in no store: a DICOM folder, a zip file or a source.

Writes ``<study_uid>.nii.gz``, labels 1 to 7 in patient coordinates, and beside it a
``<study_uid>.json`` with what was found and how long it took.
"""

import gzip
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np
import numpy.typing as npt

from csfd_core.data_kind import NOT_CLINICAL
from csfd_core.dicom.findings import Status
from csfd_core.dicom.geometry import VolumeGeometry
from csfd_core.dicom.pixels import DecodedSlice
from csfd_core.errors import SettingsError, SourceError, tell_error
from csfd_core.inference.inputs import opened
from csfd_core.ingest.gather import gather_studies, require_some
from csfd_core.ingest.outcomes import Outcome
from csfd_core.ingest.scan import StudyScan, scan_study
from csfd_core.segmentation.predict import Prediction, VertebraPredictor
from csfd_core.segmentation.reading import reduce_slices
from csfd_core.store.locations import Location
from csfd_core.store.source import StudyFolder
from csfd_core.text import safe_name
from csfd_core.vocabulary import BONE_WINDOW

Say = Callable[[str], None]

_LPS_TO_RAS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentedStudy:
    """What became of one study."""

    study_uid: str
    action: Outcome  # REFUSED or FAILED where there is nothing else
    slice_count: int
    message: str = ""  # why it was refused
    notes: tuple[str, ...] = ()  # what was said of its files
    flags: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    seconds: float = 0.0


def segment_input(
    source: str, out: Path, predictor: VertebraPredictor, say: Say
) -> Iterator[SegmentedStudy]:
    """Segment every study of a folder, zip file or source.

    Args:
        source: The input.
        out: Folder of the results.
        predictor: Finds the vertebrae.
        say: Told what of the input belongs to no study.

    Raises:
        SourceError: If the input cannot be read, or holds no files.
        SettingsError: If the results cannot be written.
    """
    for segmented in segment_scans(source, predictor, say):
        yield _write_scan(segmented, out, predictor)


def segment_scans(
    location: str, predictor: VertebraPredictor, say: Say
) -> Iterator["SegmentedScan"]:
    """Read and segment every study of a folder, zip file or source; write nothing.

    Args:
        location: The input.
        predictor: Finds the vertebrae.
        say: Told what of the input belongs to no study.

    Raises:
        SourceError: If the input cannot be read, or holds no files.
    """
    with opened(location) as source:
        folders, notes = gather_studies(source)
        for note in notes:
            say(note)
        require_some(folders, source)
        for folder in folders:
            yield from _segment_or_refuse(folder, predictor)


def _segment_or_refuse(
    folder: StudyFolder, predictor: VertebraPredictor
) -> Iterator["SegmentedScan"]:
    """Segment a folder; whatever is wrong with it, the others go on."""
    try:
        yield from segment_folder(folder, predictor)
    except Exception as error:  # noqa: BLE001 - one study stops no other
        told = f"It cannot be read: {tell_error(error)}"
        yield SegmentedScan(
            scan=None, study_uid=safe_name(folder.name), read_s=0.0, error=told
        )


def write_nifti(
    path: Path, mask: npt.NDArray[np.uint8], geometry: VolumeGeometry
) -> None:
    """Write a mask (slice, row, column) so that viewers lay it on the CT.

    Raises:
        SettingsError: If it cannot be written.
    """
    image: Any = nib.Nifti1Image(  # type: ignore[no-untyped-call]  # no types
        mask.transpose(2, 1, 0), nifti_affine(geometry)
    )
    image.header.set_xyzt_units("mm")
    image.set_qform(image.affine, code=1)
    image.set_sform(image.affine, code=1)
    # No time of writing in the header: the same mask gives the same bytes.
    content = gzip.compress(image.to_bytes(), compresslevel=4, mtime=0)
    write_file(path, content)


def nifti_affine(geometry: VolumeGeometry) -> npt.NDArray[np.float64]:
    """Return the map from (column, row, slice, 1) to RAS millimetres."""
    by_column = geometry.affine()[:, [2, 1, 0, 3]]
    return np.asarray(_LPS_TO_RAS @ by_column)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentedScan:
    """A scan in memory with its mask; without a prediction it was refused.

    ``grey`` is the bone window, shape (slice, row, column), head to feet.
    """

    scan: StudyScan | None  # None where it could not be read
    study_uid: str  # or the name of the folder, where the files name none
    read_s: float
    error: str = ""  # why it could not be read
    grey: npt.NDArray[np.uint8] | None = None
    prediction: Prediction | None = None

    @property
    def refusal(self) -> str:
        """Say why the study was refused."""
        if self.scan is None:
            return self.error
        findings = self.scan.findings
        return findings[0].reason if findings else "No geometry."

    @property
    def notes(self) -> tuple[str, ...]:
        """What was said of its files: what is read of them, and what is not."""
        return () if self.scan is None else self.scan.notes


def segment_folder(
    folder: StudyFolder, predictor: VertebraPredictor
) -> Iterator[SegmentedScan]:
    """Read and segment the studies of one folder."""
    grey: dict[str, npt.NDArray[np.uint8]] = {}

    def keep(decoded: DecodedSlice) -> None:
        grey[decoded.header.file_name] = decoded.grey_levels(BONE_WINDOW)

    started = time.perf_counter()
    scans = scan_study(folder, on_slice=keep)
    read_s = time.perf_counter() - started
    for scan in scans:
        uid = scan.study_uid or safe_name(folder.name)
        if scan.status is Status.QUARANTINED or scan.geometry is None:
            yield SegmentedScan(scan=scan, study_uid=uid, read_s=read_s)
            continue
        planes = [grey[header.file_name] for header in scan.headers]
        volume = reduce_slices(planes, scan.geometry, predictor.step_mm)
        yield SegmentedScan(
            scan=scan,
            study_uid=uid,
            read_s=read_s,
            grey=np.stack(planes),
            prediction=predictor.predict(volume),
        )


def _write_scan(
    segmented: SegmentedScan, out: Path, predictor: VertebraPredictor
) -> SegmentedStudy:
    scan, prediction = segmented.scan, segmented.prediction
    if prediction is None or scan is None or scan.geometry is None:
        return SegmentedStudy(
            study_uid=segmented.study_uid,
            action=Outcome.FAILED if scan is None else Outcome.REFUSED,
            slice_count=0 if scan is None else len(scan.headers),
            message=segmented.refusal,
            notes=segmented.notes,
        )
    write_nifti(out / f"{scan.study_uid}.nii.gz", prediction.mask, scan.geometry)
    report = _to_json(scan, prediction, predictor, segmented.read_s)
    text = json.dumps(report, indent=2) + "\n"
    write_file(out / f"{scan.study_uid}.json", text.encode())
    return SegmentedStudy(
        study_uid=scan.study_uid,
        action=Outcome.SEGMENTED,
        slice_count=len(scan.headers),
        notes=segmented.notes,
        flags=prediction.review.flags,
        levels=tuple(level.level for level in prediction.review.levels),
        seconds=segmented.read_s + sum(prediction.seconds.values()),
    )


def _to_json(
    scan: StudyScan, prediction: Prediction, predictor: VertebraPredictor, read_s: float
) -> dict[str, Any]:
    review = prediction.review
    return {
        "study_uid": scan.study_uid,
        "model": predictor.bundle.name,
        "slice_count": len(scan.headers),
        "levels": [asdict(level) for level in review.levels],
        "confidence": review.confidence,
        "flags": list(review.flags),
        "warnings": [finding.code for finding in scan.findings],
        "notes": list(scan.notes),
        "seconds": {"read": round(read_s, 3), **prediction.seconds},
        "notice": NOT_CLINICAL,
    }


def write_file(path: Path, content: bytes) -> None:
    """Write a file atomically, and the folders above it.

    Raises:
        SettingsError: If it cannot be written.
    """
    try:
        Location(path.parent).write(path.name, content)
    except SourceError as error:
        raise SettingsError(f"Cannot write {path}. {error}") from error
