"""Segments studies that are in no store: a DICOM folder, a zip file or a source.

Writes ``<study_uid>.nii.gz``, labels 1 to 7 in patient coordinates, and beside it a
``<study_uid>.json`` with what was found and how long it took.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from csfd_core.data_kind import NOT_CLINICAL
from csfd_core.dicom.geometry import VolumeGeometry
from csfd_core.dicom.nifti import nifti_affine as nifti_affine
from csfd_core.dicom.nifti import nifti_content
from csfd_core.errors import SettingsError, SourceError
from csfd_core.inference.earlier import CONTENT, MADE_FROM, Earlier
from csfd_core.inference.reading import (
    Reading,
    ReadScan,
    Say,
    each_judged,
    read_scans,
)
from csfd_core.ingest.outcomes import Outcome
from csfd_core.ingest.scan import StudyScan
from csfd_core.segmentation.predict import Prediction, VertebraPredictor
from csfd_core.segmentation.reading import reduce_slices
from csfd_core.store.locations import Location

_MASK: Final = ".nii.gz"


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentedStudy:
    """What became of one study."""

    name: str  # of its files: the study, of a further volume with its number
    # SEGMENTED; UNCHANGED: an earlier result holds; REFUSED or FAILED: there is none.
    action: Outcome
    slice_count: int
    message: str = ""  # why it was refused
    notes: tuple[str, ...] = ()  # what was said of its files
    flags: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    seconds: float = 0.0
    number: int = 1  # of the study in the input, among so many:
    total: int = 1


def segment_input(
    source: str,
    out: Path,
    predictor: VertebraPredictor,
    say: Say,
    reading: Reading,
    *,
    again: bool = True,
) -> Iterator[SegmentedStudy]:
    """Segment every study of a folder, zip file or source.

    Args:
        source: The input.
        out: Folder of the results.
        predictor: Finds the vertebrae.
        say: Told what of the input belongs to no study.
        reading: How the input is read.
        again: Make also what is there already, of the same files by the same model.

    Raises:
        SourceError: If the input cannot be read, or holds no files.
        SettingsError: If the results cannot be written.
    """
    made_from = _made_from(predictor)
    earlier = Earlier({}) if again else Earlier.read(out, made_from, [_MASK])

    def write(read_scan: ReadScan) -> SegmentedStudy:
        if read_scan.is_known:
            study = _told_again(read_scan, earlier.notes[read_scan.name])
        else:
            study = _write_scan(read_scan, out, predictor)
        return replace(study, number=read_scan.number, total=read_scan.total)

    reading = replace(reading, contents=earlier.contents())
    yield from each_judged(read_scans(source, say, reading), write)


def find_vertebrae(
    scan: StudyScan, grey: npt.NDArray[np.uint8], predictor: VertebraPredictor
) -> Prediction:
    """Segment a scan in memory; ``grey`` is its bone window (slice, row, column)."""
    assert scan.geometry is not None  # or it would not have been read
    volume = reduce_slices(list(grey), scan.geometry, predictor.step_mm)
    return predictor.predict(volume)


def write_nifti(
    path: Path, mask: npt.NDArray[np.uint8], geometry: VolumeGeometry
) -> None:
    """Write a mask (slice, row, column) so that viewers lay it on the CT.

    Raises:
        SettingsError: If it cannot be written.
    """
    write_file(path, nifti_content(mask, geometry))


def _write_scan(
    read_scan: ReadScan, out: Path, predictor: VertebraPredictor
) -> SegmentedStudy:
    scan = read_scan.scan
    if scan is None or scan.geometry is None or read_scan.grey is None:
        return SegmentedStudy(
            name=read_scan.name,
            action=Outcome.FAILED if scan is None else Outcome.REFUSED,
            slice_count=0 if scan is None else len(scan.headers),
            message=read_scan.refusal,
            notes=read_scan.notes,
        )
    prediction = find_vertebrae(scan, read_scan.grey, predictor)
    write_nifti(out / f"{scan.name}{_MASK}", prediction.mask, scan.geometry)
    report = _to_json(scan, prediction, predictor, read_scan.read_s)
    text = json.dumps(report, indent=2) + "\n"
    write_file(out / f"{scan.name}.json", text.encode())
    return SegmentedStudy(
        name=scan.name,
        action=Outcome.SEGMENTED,
        slice_count=len(scan.headers),
        notes=read_scan.notes,
        flags=prediction.review.flags,
        levels=tuple(level.level for level in prediction.review.levels),
        seconds=read_scan.read_s + sum(prediction.seconds.values()),
    )


def _told_again(read_scan: ReadScan, note: Mapping[str, Any]) -> SegmentedStudy:
    """Return what an earlier call has said of a study."""
    return SegmentedStudy(
        name=read_scan.name,
        action=Outcome.UNCHANGED,
        slice_count=note["slice_count"],
        notes=read_scan.notes,
        flags=tuple(note["flags"]),
        levels=tuple(level["level"] for level in note["levels"]),
    )


def _made_from(predictor: VertebraPredictor) -> dict[str, Any]:
    """Identify what a mask of DICOM files follows from, beside these."""
    return {"segmentation": predictor.bundle.name, "csfd": version("csfd")}


def _to_json(
    scan: StudyScan, prediction: Prediction, predictor: VertebraPredictor, read_s: float
) -> dict[str, Any]:
    review = prediction.review
    return {
        "study_uid": scan.study_uid,
        "volume": scan.volume,
        "model": predictor.bundle.name,
        CONTENT: scan.content_hash,
        MADE_FROM: _made_from(predictor),
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


def require_writable(out: Path) -> None:
    """Require that results can be written, before anything is read or computed.

    A folder that is not there yet is not left behind.

    Raises:
        SettingsError: If not.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
        for folder in made:
            folder.rmdir()
    except OSError as error:
        raise SettingsError(
            f"Cannot write into {out}: {error.strerror}. Name another folder with "
            "--out."
        ) from error
