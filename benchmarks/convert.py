"""Is the conversion faster than the loop that one would write by hand?

Ours does all of ``csfd convert``: headers, identity, order, checks, window, JPEG and
the Parquet files on the disk. The loop by hand writes one JPEG file per slice and
checks nothing. Both have one thread, so that processor time is compared: it does not
count what others do on the machine meanwhile. Elapsed time is printed beside it.
"""

import itertools
import tempfile
import time
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

from benchmarks.harness import Result, in_turns, ratios, spread
from benchmarks.studies import large_volume, tasks_of, write_copy
from csfd_core.ingest.convert import convert_study
from csfd_core.ingest.outcomes import Outcome
from csfd_core.store.slices import ConversionSettings
from csfd_core.vocabulary import BONE_WINDOW

SLICES = 96
ROUNDS = 9
TARGET = 2.0


def loop_by_hand(folder: Path, out: Path, quality: int) -> None:
    """Read, window and write every slice with pydicom, NumPy and Pillow."""
    out.mkdir()
    lowest = BONE_WINDOW.center_hu - BONE_WINDOW.width_hu / 2
    for path in sorted(folder.glob("*.dcm")):
        dataset = pydicom.dcmread(path)
        slope, intercept = dataset.RescaleSlope, dataset.RescaleIntercept
        hounsfield = dataset.pixel_array.astype(float) * slope + intercept
        grey = np.clip((hounsfield - lowest) / BONE_WINDOW.width_hu, 0, 1) * 255
        image = Image.fromarray(grey.astype(np.uint8))
        image.save(out / f"{path.stem}.jpg", quality=quality)


def run() -> Result:
    """Convert one study in turns with the loop by hand."""
    quality = ConversionSettings().jpeg_quality
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source"
        write_copy(source, large_volume(SLICES), 0)
        (folder,) = (source / "train_images").iterdir()
        numbers = itertools.count()

        def ours() -> None:
            store = Path(name) / f"store-{next(numbers)}"
            (task,) = tasks_of(source, store)
            assert convert_study(task).action == Outcome.WRITTEN

        def loop() -> None:
            loop_by_hand(folder, Path(name) / f"loop-{next(numbers)}", quality)

        times, loop_times = in_turns(ours, loop, ROUNDS, time.process_time)
        elapsed, loop_elapsed = in_turns(ours, loop, ROUNDS)
    ratio = ratios(loop_times, times)
    return Result(
        question="Slices per second of a conversion in one process",
        target=f"at least {TARGET} times the loop by hand",
        met=ratio["median"] >= TARGET,
        data=f"{SLICES} uncompressed 512x512 slices of the full-profile phantom",
        measured={
            "ours_slices_per_cpu_s": spread([SLICES / t for t in times], 1),
            "loop_slices_per_cpu_s": spread([SLICES / t for t in loop_times], 1),
            "alternative": "pydicom.dcmread, NumPy window, Pillow JPEG",
            "jpeg_quality": quality,
            "ratio": ratio,
            "ours_slices_per_s": spread([SLICES / t for t in elapsed], 1),
            "loop_slices_per_s": spread([SLICES / t for t in loop_elapsed], 1),
            "ratio_of_elapsed_times": ratios(loop_elapsed, elapsed),
        },
    )
