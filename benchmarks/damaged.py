"""Does a damaged file, or a header that says anything, cost more than its own study?

Whole DICOM files of every transfer syntax are damaged in five ways and read as a scan
reads them, header and pixels. Headers of one slice of a small study say extreme values,
and the study is scanned. Each case runs in a worker process, so that one that dies or
hangs is counted; GDCM, which csfd has given up, ended the process on some of them.
"""

import io
import resource
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom import config, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from benchmarks.harness import Result
from benchmarks.studies import large_volume, write_copy
from csfd_core.dicom.headers import read_slice_header
from csfd_core.dicom.pixels import DecodedSlice
from csfd_core.errors import DicomError
from csfd_core.ingest.scan import scan_study
from csfd_core.runtime.executors import completed, default_workers, open_executor
from csfd_core.store.source import Source

STREAMS, HEADERS = 2400, 600
SLOW_S = 10.0
MOST_MB = 1024
_SLICES = 12
_SYNTAXES = (
    ExplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
)
_NUMBERS = (
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel",
    "PixelRepresentation", "NumberOfFrames", "InstanceNumber", "RescaleSlope",
    "RescaleIntercept", "PixelSpacing", "ImagePositionPatient", "SliceThickness",
    "ImageOrientationPatient", "GantryDetectorTilt", "PixelPaddingValue",
    "AcquisitionNumber",
)  # fmt: skip
_TEXTS = (
    "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "Modality", "PatientID",
    "RescaleType", "ImageType", "ConvolutionKernel", "PhotometricInterpretation",
)  # fmt: skip
_EXTREMES = (
    b"1E308", b"-1E308", b"1E39", b"NaN", b"INF", b"99999999999999999999", b"-0",
    b"0", b"1e-320", b"", b" ", b"\\" * 16, b"1\\2", b"0x10", b"\xff" * 8, b"\0" * 16,
    b"9" * 70, b"$\\frac{1}{0}$", b"\x1b[31mred", b"../../etc", b"'; drop table",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """One damaged file or header: which, and the seed of the damage."""

    folder: Path
    kind: str
    seed: int


def run() -> Result:
    """Read everything that is damaged; count what came of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_files(folder)
        streams = [
            Case(folder, _SYNTAXES[seed % len(_SYNTAXES)].name, seed)
            for seed in range(STREAMS)
        ]
        headers = [Case(folder, "header", seed) for seed in range(HEADERS)]
        found = {
            "streams": _try(_read_damaged, streams),
            "headers": _try(_scan_extreme, headers),
        }
    worst = [part[key] for part in found.values() for key in ("died", "unexpected")]
    slowest = max(part["slowest_s"] for part in found.values())
    most = max(part["most_mb"] for part in found.values())
    return Result(
        question="Files damaged in every syntax, and headers with extreme values",
        target=f"no worker dies, nothing unexpected, below {SLOW_S:.0f} s and "
        f"{MOST_MB} MB a case",
        met=not any(worst) and slowest < SLOW_S and most < MOST_MB,
        data=f"{STREAMS} streams of {len(_SYNTAXES)} syntaxes, 512x512; {HEADERS} "
        f"headers in studies of {_SLICES} slices",
        measured=found,
    )


def _try(read: Any, cases: list[Case]) -> dict[str, Any]:  # noqa: ANN401 - a function
    outcomes: Counter[str] = Counter()
    slowest, most = 0.0, 0.0
    with open_executor(default_workers(len(cases))) as executor:
        for case, future in completed(executor, partial(_timed, read), cases):
            if future.exception() is not None:
                outcomes["died"] += 1
                print(f"died: {case.kind}, seed {case.seed}")
                continue
            outcome, seconds, memory_mb = future.result()
            outcomes[outcome] += 1
            if outcome.startswith("unexpected"):
                outcomes["unexpected"] += 1
                print(f"{outcome}: {case.kind}, seed {case.seed}")
            slowest, most = max(slowest, seconds), max(most, memory_mb)
    counts = {"died": 0, "unexpected": 0, **dict(sorted(outcomes.items()))}
    return {**counts, "slowest_s": round(slowest, 2), "most_mb": round(most)}


def _timed(read: Any, case: Case) -> tuple[str, float, float]:  # noqa: ANN401
    begun = time.perf_counter()
    try:
        outcome = read(case)
    except Exception as error:  # noqa: BLE001 - that is what is counted
        where = traceback.extract_tb(error.__traceback__)[-1]
        outcome = f"unexpected {type(error).__name__} in {where.name}"
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return outcome, time.perf_counter() - begun, peak_mb


def _read_damaged(case: Case) -> str:
    whole = (case.folder / f"{case.kind}.dcm").read_bytes()
    raw = _damage(whole, case.seed)
    try:
        header = read_slice_header(raw, "1.dcm")
        if header is None:
            return "refused"
        DecodedSlice(raw, header).hounsfield()
    except DicomError:
        return "refused"
    return "decoded"


def _scan_extreme(case: Case) -> str:
    rng = np.random.default_rng(case.seed)
    with tempfile.TemporaryDirectory(dir=case.folder) as name:
        source = Path(name)
        images = source / "train_images"
        original = next((case.folder / "study" / "train_images").iterdir())
        target = images / original.name
        target.mkdir(parents=True)
        for path in original.iterdir():
            (target / path.name).symlink_to(path)
        odd = target / f"{rng.integers(1, _SLICES + 1)}.dcm"
        raw = odd.read_bytes()
        odd.unlink()
        odd.write_bytes(_with_extremes(raw, rng))
        (folder,) = Source(source).studies()
        (found,) = scan_study(folder)
    return str(found.status)


def _with_extremes(raw: bytes, rng: np.random.Generator) -> bytes:
    """Say extreme values in one to three elements, as bytes no writer would check."""
    dataset = dcmread(io.BytesIO(raw))
    pool = _NUMBERS if rng.random() < 0.7 else _TEXTS
    for keyword in rng.choice(pool, rng.integers(1, 4), replace=False):
        value = _EXTREMES[rng.integers(len(_EXTREMES))]
        tag = Tag(str(keyword))
        vr = dictionary_VR(tag).split(" ")[0]
        # Raw: pydicom would refuse to encode it.
        dataset[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
    sink = io.BytesIO()
    with config.disable_value_validation():
        dataset.save_as(sink)
    return sink.getvalue()


def _damage(whole: bytes, seed: int) -> bytes:
    """Change some bytes, cut the end, zero a stretch, wreck the start, leave out."""
    rng = np.random.default_rng(seed)
    raw, size = bytearray(whole), len(whole)
    start = max(0, whole.find(b"\xe0\x7f\x10\x00"))  # of the pixel data
    kind = (seed // len(_SYNTAXES)) % 5
    if kind == 0:
        for place in rng.integers(start, size, rng.integers(1, 20)):
            raw[place] = rng.integers(256)
    elif kind == 1:
        raw = raw[: rng.integers(132, size)]
    elif kind == 2:
        place, length = int(rng.integers(start, size)), int(rng.integers(1, 400))
        raw[place : place + length] = bytes(len(raw[place : place + length]))
    elif kind == 3:
        for place in rng.integers(start, min(size, start + 300), rng.integers(1, 6)):
            raw[place] = rng.integers(256)
    else:
        place = int(rng.integers(start, size))
        del raw[place : place + int(rng.integers(1, 2000))]
    return bytes(raw)


def _write_files(folder: Path) -> None:
    volume = large_volume(_SLICES)
    write_copy(folder / "study", volume, 0)
    first = next((folder / "study" / "train_images").rglob("1.dcm"))
    for syntax in _SYNTAXES:
        dataset = dcmread(first)
        _compress(dataset, syntax)
        dataset.save_as(folder / f"{syntax.name}.dcm", enforce_file_format=True)


def _compress(dataset: Dataset, syntax: Any) -> None:  # noqa: ANN401 - pydicom's UID
    stored: npt.NDArray[np.int16] = dataset.pixel_array
    if syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
        dataset.compress(syntax, generate_instance_uid=False)
    elif syntax == JPEGLosslessSV1:
        unsigned = (stored.astype(np.int32) + 32768).astype(np.uint16)
        frame = imagecodecs.ljpeg_encode(unsigned, bitspersample=16)
        dataset.PixelData = encapsulate([bytes(frame)])
    elif syntax.is_compressed and not syntax.is_deflated:
        bits = 8 if syntax == JPEGBaseline8Bit else 12
        grey = np.clip((stored + 1024) >> (12 - bits), 0, (1 << bits) - 1)
        kind = np.uint8 if bits == 8 else np.uint16
        frame = imagecodecs.jpeg_encode(
            grey.astype(kind), level=95, bitspersample=bits, lossless=False
        )
        dataset.PixelData = encapsulate([bytes(frame)])
        dataset.BitsAllocated = 8 if bits == 8 else 16
        dataset.BitsStored, dataset.HighBit = bits, bits - 1
        dataset.PixelRepresentation = 0
    dataset.file_meta.TransferSyntaxUID = syntax
