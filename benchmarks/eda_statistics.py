"""How long the statistics of the whole RSNA data set take, and how much memory.

Writes header tables of 2019 made-up studies with 711,601 slices into a temporary
folder, then measures in a process of its own: the table of studies, and the report with
every statistic. Prints JSON.

    python -m benchmarks.eda_statistics
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from csfd_core.dicom.findings import Status
from csfd_core.dicom.geometry import build_geometry
from csfd_core.dicom.headers import SliceHeader
from csfd_core.ingest.studies_table import write_studies_table
from csfd_core.reports.eda.report import write_eda_report
from csfd_core.store.locations import Location
from csfd_core.store.metadata import StudyRecord
from csfd_core.store.source import Source, Sources
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES, OVERALL

STUDIES = 2019
SLICES = 711_601
BOXES = 7217
# Share of fractured studies per level in the RSNA 2022 data, C1 to C7.
FRACTURED = (0.072, 0.141, 0.036, 0.053, 0.080, 0.137, 0.195)
LITTLE_ENDIAN, JPEG_LOSSLESS = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.70"


def main() -> None:
    """Write the studies, measure in a child process, print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=STUDIES)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.measure)))
        return
    with tempfile.TemporaryDirectory(prefix="csfd-bench-") as folder:
        slices = write_studies(Path(folder), arguments.studies)
        call = [sys.executable, __file__, "--measure", folder]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        child = subprocess.run(call, capture_output=True, check=True, env=environment)
    result = {
        "studies": arguments.studies,
        "slices": slices,
        **json.loads(child.stdout),
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
    }
    print(json.dumps(result, indent=1))


def measure(folder: Path) -> dict[str, float]:
    """Build the table of studies and the report; return seconds and megabytes."""
    stores = Stores(Location(folder / "store"))
    sources = Sources([Source(folder / "source")])
    start = time.perf_counter()
    write_studies_table(stores, sources)
    tabled = time.perf_counter()
    report = write_eda_report(sources, stores)
    done = time.perf_counter()
    if not report.numbers.slices:
        raise RuntimeError("The report has no slices.")
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "table_s": round(tabled - start, 2),
        "report_s": round(done - tabled, 2),
        "total_s": round(done - start, 2),
        "peak_rss_mb": round(peak_kb / 1024, 1),
    }


def write_studies(folder: Path, count: int) -> int:
    """Write header tables, labels and boxes; return the number of slices."""
    rng = np.random.default_rng(0)
    sizes = rng.lognormal(5.8, 0.37, count)
    sizes = np.clip(sizes, 69, 1082)
    sizes = np.floor(sizes * (SLICES * count / STUDIES) / sizes.sum()).astype(int)
    sizes[: round(SLICES * count / STUDIES) - sizes.sum()] += 1
    store = Stores(Location(folder / "store")).metadata
    uids = [f"1.2.826.0.1.3680043.{1000 + rank}" for rank in range(count)]
    for rank, (uid, size) in enumerate(zip(uids, sizes, strict=True)):
        headers = make_headers(uid, int(size), rank)
        store.write_headers(make_record(uid, headers), headers)
    write_tables(folder / "source", uids, sizes, rng)
    return int(sizes.sum())


def make_headers(uid: str, count: int, rank: int) -> list[SliceHeader]:
    """Make the headers of a study, head to feet."""
    syntax = JPEG_LOSSLESS if rank % 10 == 0 else LITTLE_ENDIAN
    return [
        SliceHeader(
            file_name=f"{index + 1}.dcm",
            size_bytes=525_000,
            digest=f"{rank:032x}{index:032x}",
            transfer_syntax_uid=syntax,
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            sop_uid=f"{uid}.1.{index + 1}",
            study_uid=uid,
            has_odd_uid=False,
            series_uid=f"{uid}.1",
            patient_key=f"{rank:032x}",
            modality="CT",
            instance_number=index + 1,
            acquisition_number=1,
            is_localizer=False,
            kernel_key=None,
            is_bone_kernel=False,
            rows=512,
            columns=512,
            samples_per_pixel=1,
            frame_count=None,
            photometric="MONOCHROME2",
            bits_allocated=16,
            bits_stored=16,
            high_bit=15,
            is_signed=True,
            is_little_endian=True,
            padding_value=None,
            padding_limit=None,
            rescale_slope=1.0,
            rescale_intercept=-1024.0,
            is_rescaled_to_hu=True,
            position_mm=(-80.0, -80.0, 200.0 - 0.6 * index),
            orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
            pixel_spacing_mm=(0.3125, 0.3125),
            slice_thickness_mm=0.625,
            gantry_tilt_deg=0.0,
            has_pixel_data=True,
            pixel_offset=1500,
            pixel_length=524_288,
        )
        for index in range(count)
    ]


def make_record(uid: str, headers: list[SliceHeader]) -> StudyRecord:
    """Make the record that goes with the headers of a good study."""
    return StudyRecord(
        study_uid=uid,
        status=Status.GOOD,
        findings=(),
        notes=(),
        slice_count=len(headers),
        slice_thickness_mm=headers[0].slice_thickness_mm,
        transfer_syntax_uid=headers[0].transfer_syntax_uid,
        patient_key=headers[0].patient_key,
        geometry=asdict(build_geometry(headers)),
        source_bytes=sum(header.size_bytes for header in headers),
        content_hash=headers[0].digest,
        mask_hash=None,
        fingerprint="",
        mask_fingerprint=None,
    )


def write_tables(
    source: Path, uids: list[str], sizes: np.ndarray, rng: np.random.Generator
) -> None:
    """Write labels and boxes in the layout of the RSNA data set."""
    source.mkdir(parents=True)
    levels = (rng.random((len(uids), len(LEVEL_NAMES))) < FRACTURED).astype(int)
    table = pd.DataFrame(levels, columns=list(LEVEL_NAMES))
    table.insert(0, OVERALL, levels.max(axis=1))
    table.insert(0, "StudyInstanceUID", uids)
    table.to_csv(source / "train.csv", index=False)
    chosen = rng.integers(0, min(235, len(uids)), BOXES)
    boxes = pd.DataFrame(
        {
            "StudyInstanceUID": [uids[rank] for rank in chosen],
            "x": rng.uniform(100, 300, BOXES),
            "y": rng.uniform(100, 300, BOXES),
            "width": rng.uniform(20, 200, BOXES),
            "height": rng.uniform(20, 200, BOXES),
            "slice_number": [rng.integers(1, sizes[rank] + 1) for rank in chosen],
        }
    )
    boxes.to_csv(source / "train_bounding_boxes.csv", index=False)


if __name__ == "__main__":
    main()
