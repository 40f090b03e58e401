"""Is reading headers as fast as pydicom, and what does a study's scan cost?

The same scan is made with csfd's own parser of plain files and, in turns, with pydicom
told to read only the wanted elements: what the own parser saves is what justifies it.
"""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pydicom

from benchmarks.harness import Result, in_turns, ratios, spread
from benchmarks.studies import large_volume, write_copy
from csfd_core.dicom import elements, tags
from csfd_core.dicom.headers import read_slice_header
from csfd_core.ingest.scan import scan_study
from csfd_core.store.source import Source

SLICES = 192
ROUNDS = 7
TARGET = 1.0
LEAST_LOSS = 1.1  # of a scan without the own parser; less would not be worth keeping it
_WANTED_ONLY = functools.partial(pydicom.dcmread, specific_tags=sorted(tags.WANTED))


def by_pydicom(call: Callable[[], object]) -> object:
    """Make a call in which pydicom reads every header, and only the wanted elements."""
    with (
        patch.object(elements, "_read_plain", lambda _: None),
        patch.object(elements, "dcmread", _WANTED_ONLY),
    ):
        return call()


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
                _WANTED_ONLY(path, stop_before_pixels=True)

        def scan() -> object:
            return scan_study(folder)[0].headers

        assert scan() == by_pydicom(scan)
        times, other_times = in_turns(ours, pydicoms, ROUNDS)
        scans, other_scans = in_turns(scan, lambda: by_pydicom(scan), ROUNDS)
    ratio, loss = ratios(other_times, times), ratios(other_scans, scans)
    per_slice = 1000 / SLICES
    return Result(
        question="Reading headers, and a whole scan of a study, without the own parser",
        target=f"at least {TARGET} times pydicom's dcmread with the wanted tags alone; "
        f"a scan takes at least {LEAST_LOSS} times as long without the own parser",
        met=ratio["median"] >= TARGET and loss["median"] >= LEAST_LOSS,
        data=f"{SLICES} uncompressed 512x512 slices of the full-profile phantom",
        measured={
            "ours_ms_per_slice": spread([t * per_slice for t in times]),
            "pydicom_ms_per_slice": spread([t * per_slice for t in other_times]),
            "alternative": "pydicom.dcmread(file, specific_tags=WANTED, "
            "stop_before_pixels=True)",
            "ratio": ratio,
            # Reads and hashes every byte: a disk does not tell what has changed.
            "scan_ms_per_slice": spread([t * per_slice for t in scans]),
            "pydicom_scan_ms_per_slice": spread([t * per_slice for t in other_scans]),
            "scan_ratio": loss,
        },
    )
