"""How long does it take to make the DICOM objects of a study, and how large are they?

SEG, SR, three key images and the PDF of 350 slices, from headers, mask and grey levels
in memory, and their bytes; against highdicom's LABELMAP segmentation alone, compressed
by RLE, which is the newer and smaller form. Matplotlib and highdicom are imported
before anything is timed.
"""

from datetime import UTC, datetime
from typing import Any, Final

import highdicom
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, RLELossless

from benchmarks.harness import Result, in_turns, ratios, spread, timed
from benchmarks.studies import large_volume
from csfd_core.dicom.pixels import window_to_uint8
from csfd_core.dicom_objects.identity import plain_headers
from csfd_core.dicom_objects.results import ResultKind, make_results
from csfd_core.dicom_objects.segmentation import segments_of
from csfd_core.dicom_objects.source import ResultSource
from csfd_core.dicom_objects.stored import to_bytes
from csfd_core.phantom.volume import PhantomVolume
from csfd_core.vocabulary import BONE_WINDOW, LEVEL_NAMES, OVERALL

SLICES: Final = 350
ROUNDS: Final = 3
MOST_S: Final = 3.0
_STUDY_UID: Final = "1.2.826.0.1.3680043.21"


def run() -> Result:
    """Make the objects in turns with a LABELMAP segmentation."""
    source = _source(large_volume(SLICES))
    made = make_results(source)
    ours, other = in_turns(
        lambda: [to_bytes(one.dataset) for one in make_results(source)],
        lambda: to_bytes(_labelmap(source)),
        ROUNDS,
    )
    kinds = (ResultKind.SEG, ResultKind.SR, ResultKind.KEY_IMAGE, ResultKind.PDF)
    each = {
        str(kind): round(timed(lambda kind=kind: make_results(source, [kind])), 3)  # type: ignore[misc]
        for kind in kinds
    }
    sizes: dict[str, int] = {}
    for one in made:
        size = len(to_bytes(one.dataset))
        sizes[str(one.kind)] = sizes.get(str(one.kind), 0) + size
    seconds = spread(ours)
    return Result(
        question="Seconds to make SEG, SR, key images and PDF of a study",
        target=f"{MOST_S:.0f} s",
        met=seconds["median"] <= MOST_S,
        data=f"{SLICES} slices of 512x512 of the full-profile phantom, seven levels",
        measured={
            "seconds": seconds,
            "seconds_of_each": each,
            "bytes": sizes,
            "objects": len(made),
            "alternative": "highdicom's LABELMAP segmentation with RLE, alone",
            "alternative_seconds": spread(other),
            "alternative_bytes": len(to_bytes(_labelmap(source))),
            "ratio": ratios(ours, other),
        },
    )


def _source(volume: PhantomVolume) -> ResultSource:
    order = slice(None) if volume.z_step_mm < 0 else slice(None, None, -1)
    mask = np.where(volume.mask > len(LEVEL_NAMES), 0, volume.mask)[order]
    grey = np.stack(
        [
            window_to_uint8(plane.astype(np.float32), BONE_WINDOW)
            for plane in volume.hounsfield[order]
        ]
    )
    headers = [_header(volume, index) for index in range(len(mask))][order]
    return ResultSource(
        headers=headers,
        mask=np.ascontiguousarray(mask, dtype=np.uint8),
        prediction=_prediction(mask),
        grey=grey,
        made_at=datetime(2026, 1, 2, tzinfo=UTC),
    )


def _header(volume: PhantomVolume, index: int) -> Dataset:
    _, row_mm, column_mm = volume.spacing_zyx_mm
    header = Dataset()
    header.SOPClassUID = CTImageStorage
    header.StudyInstanceUID = _STUDY_UID
    header.SeriesInstanceUID = f"{_STUDY_UID}.1"
    header.SOPInstanceUID = f"{_STUDY_UID}.1.{index + 1}"
    header.FrameOfReferenceUID = f"{_STUDY_UID}.2"
    header.Rows, header.Columns = volume.hounsfield.shape[1:]
    header.PixelSpacing = [row_mm, column_mm]
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.ImagePositionPatient = [round(mm, 3) for mm in volume.position_of(index)]
    header.PatientName, header.PatientID = "Phantom^One", "phantom-1"
    return header


def _prediction(mask: npt.NDArray[np.uint8]) -> dict[str, Any]:
    evidence = {}
    for label, name in enumerate(LEVEL_NAMES, 1):
        index = int((mask == label).sum(axis=(1, 2)).argmax())
        box = {"x": 200.0, "y": 210.0, "width": 60.0, "height": 50.0}
        evidence[name] = {"slice_index": index, "box_px": box, "peak": 0.9}
    values = np.linspace(0.1, 0.9, len(LEVEL_NAMES))
    return {
        "verdict": "suspicious",
        "model": "none",
        "model_version": None,
        "trained_on": "phantom",
        "probabilities": {OVERALL: 0.9, **dict(zip(LEVEL_NAMES, values, strict=True))},
        "thresholds": {"vertebra": 0.5, "overall": 0.5},
        "overall_rests_on": list(LEVEL_NAMES),
        "needs_eyes": [],
        "evidence": evidence,
    }


def _labelmap(source: ResultSource) -> Dataset:
    """Make the same segmentation as highdicom alone would, one frame a slice."""
    made: Dataset = highdicom.seg.Segmentation(
        source_images=plain_headers(source),
        pixel_array=source.mask,
        segmentation_type="LABELMAP",
        segment_descriptions=segments_of(source),
        series_instance_uid=f"{_STUDY_UID}.3",
        series_number=1,
        sop_instance_uid=f"{_STUDY_UID}.3.1",
        instance_number=1,
        manufacturer="none",
        manufacturer_model_name="none",
        software_versions="1",
        device_serial_number="0",
        transfer_syntax_uid=RLELossless,
    )
    return made
