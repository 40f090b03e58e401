"""Is reading headers as fast as pydicom, and what does a study's scan cost?"""

import tempfile
from pathlib import Path

import pydicom

from benchmarks.harness import Result, in_turns, ratios, spread
from benchmarks.studies import large_volume, write_copy
from csfd_core.dicom.headers import read_slice_header
from csfd_core.ingest.scan import scan_study
from csfd_core.store.source import Source

SLICES = 192
ROUNDS = 7
TARGET = 1.0


def run() -> Result:
    """Read the headers of one study from its files; then scan it whole."""
    with tempfile.TemporaryDirectory() as name:
        source = Path(name)
        write_copy(source, large_volume(SLICES), 0)
        (folder,) = Source(source).studies()
        paths = sorted((source / folder.path).glob("*.dcm"))

        def ours() -> None:
            for path in paths:
                with path.open("rb") as file:
                    beginning = file.read(64 * 1024)
                size = path.stat().st_size
                header = read_slice_header(beginning, path.name, size_bytes=size)
                assert header is not None

        def pydicoms() -> None:
            for path in paths:
                pydicom.dcmread(path, stop_before_pixels=True)

        times, other_times = in_turns(ours, pydicoms, ROUNDS)
        scan_times, _ = in_turns(lambda: scan_study(folder), lambda: None, ROUNDS)
    ratio = ratios(other_times, times)
    per_slice = 1000 / SLICES
    return Result(
        question="Reading headers, and a whole scan of a study",
        target=f"at least {TARGET} times pydicom's dcmread(stop_before_pixels=True)",
        met=ratio["median"] >= TARGET,
        data=f"{SLICES} uncompressed 512x512 slices of the full-profile phantom",
        measured={
            "ours_ms_per_slice": spread([t * per_slice for t in times]),
            "pydicom_ms_per_slice": spread([t * per_slice for t in other_times]),
            "alternative": "pydicom.dcmread(path, stop_before_pixels=True)",
            "ratio": ratio,
            # Reads and hashes every byte: a disk does not tell what has changed.
            "scan_ms_per_slice": spread([t * per_slice for t in scan_times]),
        },
    )
