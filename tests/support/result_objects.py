"""Headers, a mask and a prediction, from which result objects are made in tests."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset

from csfd_core.dicom_objects.results import ResultKind, make_results
from csfd_core.dicom_objects.source import ResultSource
from csfd_core.vocabulary import LEVEL_NAMES, OVERALL
from support.dicom_standard import second_opinion
from support.dicom_studies import STUDY_UID, neck_hounsfield, neck_mask, slice_dataset

MADE_AT = datetime(2026, 11, 27, 10, 20, 30, tzinfo=UTC)
THRESHOLDS = {"vertebra": 0.3, "overall": 0.5}
BOX = {"x": 20.5, "y": 33.0, "width": 10.0, "height": 8.0}
BOX_SLICE = 13
FRAME_UID = f"{STUDY_UID}.9"


def prediction(
    probabilities: Mapping[str, float | None] | None = None, **changes: Any
) -> dict[str, Any]:
    """The JSON of a prediction; by default C5 is the worst, and C2 suspicious."""
    told = dict.fromkeys(LEVEL_NAMES, 0.05) | {"C2": 0.6, "C5": 0.9, OVERALL: 0.95}
    told |= probabilities or {}
    assessed = [name for name in LEVEL_NAMES if told[name] is not None]
    evidence = {"slice_index": BOX_SLICE, "box_px": BOX, "peak": 0.9}
    note = {
        "study_uid": STUDY_UID,
        "verdict": "suspicious",
        "unlike": {},
        "format": 3,
        "model": "drawn",
        "model_version": "v7",
        "model_ids": ["drawn-0"],
        "trained_on": "phantom",
        "probabilities": told,
        "not_assessed": [name for name in LEVEL_NAMES if name not in assessed],
        "overall_rests_on": assessed,
        "needs_eyes": [],
        "thresholds": THRESHOLDS,
        "suspicious": ["C2", "C5", OVERALL],
        "answers": dict.fromkeys(LEVEL_NAMES, "whole") | {"C5": "fractured"},
        "evidence": {"C5": evidence, "C2": None},
        "segmentation": {"model": "seg-1", "levels": {}, "flags": []},
        "content_hash": "c0ffee",
        "made_from": {"models": ["drawn-0"]},
    }
    return {**note, **changes}


def headers(
    slices: int = 24, size: int = 64, spacing: Sequence[float] = (1.5, 1.5)
) -> list[Dataset]:
    """The headers of a neck, head to feet, as a scanner writes them."""
    found = []
    for index, plane in enumerate(neck_hounsfield(slices, size)):
        one = slice_dataset(plane, index + 1, 100.0 - index * 2.0)
        del one.PixelData
        one.PixelSpacing = list(spacing)
        one.FrameOfReferenceUID = FRAME_UID
        one.StudyDate, one.StudyTime, one.StudyID = "20260102", "030405", "17"
        one.AccessionNumber, one.PatientSex = "A-1", "F"
        one.ReferringPhysicianName = "Referrer^Of"
        found.append(one)
    return found


def result_source(**changes: Any) -> ResultSource:
    """All that objects are made from."""
    hounsfield = neck_hounsfield()
    facts = {
        "headers": headers(),
        "mask": neck_mask(),
        "prediction": prediction(),
        "grey": hounsfield,
        "made_at": MADE_AT,
        "previous": None,
    }
    return ResultSource(**{**facts, **changes})


def made(source: ResultSource, kind: ResultKind, folder: Path) -> list[Path]:
    """Make the objects of one kind and write them as files."""
    paths = []
    for number, one in enumerate(make_results(source, [kind]), 1):
        paths.append(folder / f"{kind}-{number}.dcm")
        one.dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def validator_errors(path: Path) -> list[str]:
    """Return what dciodvfy or dicom-validator call an error in a file."""
    program = Path(sys.executable).with_name("dciodvfy")
    done = subprocess.run(
        [str(program), "-new", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        errors="replace",
    )
    told = (done.stdout + done.stderr).splitlines()
    assert told, "dciodvfy says at least what the object is"
    errors = [line for line in told if line.startswith("Error")]
    return errors + second_opinion(path)


def walked(dataset: Dataset) -> Iterator[Dataset]:
    """Yield every content item of a report, from its root."""
    yield dataset
    for item in dataset.get("ContentSequence", ()):
        yield from walked(item)


def named(item: Dataset, code: str) -> list[Dataset]:
    """Return the children of a content item whose concept has a code."""
    return [
        child
        for child in item.get("ContentSequence", ())
        if child.ConceptNameCodeSequence[0].CodeValue == code
    ]


def groups_of(path: Path) -> dict[str, Dataset]:
    """Return the measurement groups of a report by their tracking identifiers."""
    report = dcmread(path)
    groups = [
        item
        for item in walked(report)
        if item.ValueType == "CONTAINER"
        and item.ConceptNameCodeSequence[0].CodeValue == "125007"
    ]
    return {named(group, "112039")[0].TextValue: group for group in groups}


def mask_from(path: Path, count: int) -> npt.NDArray[np.uint8]:
    """Return the labels of a segmentation, slice by slice of the source.

    Read from its bits, without highdicom: each frame by the slice it was derived from.
    """
    found = dcmread(path)
    order = {str(one.SOPInstanceUID): n for n, one in enumerate(headers(count))}
    mask = np.zeros((count, found.Rows, found.Columns), dtype=np.uint8)
    bits = np.unpackbits(np.frombuffer(found.PixelData, np.uint8), bitorder="little")[
        : found.NumberOfFrames * found.Rows * found.Columns
    ]
    frames = bits.reshape(found.NumberOfFrames, found.Rows, found.Columns)
    for frame, item in zip(frames, found.PerFrameFunctionalGroupsSequence, strict=True):
        number = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        derived = item.DerivationImageSequence[0].SourceImageSequence[0]
        mask[order[str(derived.ReferencedSOPInstanceUID)]][frame > 0] = number
    return mask
