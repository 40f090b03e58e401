"""How long does ``csfd predict`` read a study, before the networks see it?

All slices of one study become grey levels in memory, their headers, order and values
checked. One thread for each processor against one thread, and against the loop that one
would write by hand, which checks nothing: pydicom with the decoders that it finds.
"""

import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom

from benchmarks.harness import Result, in_turns, ratios, spread
from benchmarks.studies import LOSSLESS, UNCOMPRESSED, large_volume, write_copy
from csfd_core.dicom.pixels import window_to_uint8
from csfd_core.inference.reading import ReadTask, read_folder
from csfd_core.phantom.dicom_writer import PixelStyle
from csfd_core.phantom.volume import PhantomVolume
from csfd_core.runtime.executors import default_workers
from csfd_core.store.source import Source
from csfd_core.vocabulary import BONE_WINDOW

SLICES = 350
ROUNDS = 3
TARGET = 1.5  # of two threads against one, JPEG 2000


def loop_by_hand(folder: Path) -> npt.NDArray[np.uint8]:
    """Read and window every slice, in the order of their positions."""
    slices = [pydicom.dcmread(path) for path in folder.glob("*.dcm")]
    slices.sort(key=lambda dataset: -float(dataset.ImagePositionPatient[2]))
    planes = []
    for dataset in slices:
        slope, intercept = dataset.RescaleSlope, dataset.RescaleIntercept
        hounsfield = dataset.pixel_array.astype(np.float32) * slope + intercept
        planes.append(window_to_uint8(hounsfield, BONE_WINDOW))
    return np.stack(planes)


def run() -> Result:
    """Read one study uncompressed, and as lossless JPEG 2000."""
    volume = large_volume(SLICES)
    threads = default_workers(16)
    plain = _measure(volume, UNCOMPRESSED, threads)
    lossless = _measure(volume, LOSSLESS, threads)
    gain = lossless["one_thread_by_threads"]["median"]
    return Result(
        question="Seconds to read a study into memory",
        target=f"JPEG 2000: {TARGET} times as fast as in one thread",
        met=gain >= TARGET or threads == 1,
        data=f"{SLICES} slices of 512x512 of the full-profile phantom",
        measured={
            "threads": threads,
            "uncompressed": plain,
            "jpeg_2000_lossless": lossless,
            "alternative": "pydicom.dcmread, pixel_array, NumPy window",
        },
    )


def _measure(volume: PhantomVolume, style: PixelStyle, threads: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        source = Path(name)
        uid = write_copy(source, volume, 0, style)
        (folder,) = Source(source).studies()
        task = ReadTask(folder)
        ours = partial(read_folder, task, threads=threads)
        alone = partial(read_folder, task)
        by_hand = partial(loop_by_hand, source / "train_images" / uid)
        (found,) = ours()
        assert np.array_equal(np.asarray(found.opened(task.memory).grey), by_hand())
        seconds, one_thread = in_turns(ours, alone, ROUNDS)
        again, loop = in_turns(ours, by_hand, ROUNDS)
    return {
        "seconds": spread([*seconds, *again], 2),
        "one_thread_s": spread(one_thread, 2),
        "loop_s": spread(loop, 2),
        "one_thread_by_threads": ratios(one_thread, seconds),
        "loop_by_ours": ratios(loop, again),
        "slices_per_s": round(SLICES / statistics.median([*seconds, *again])),
    }
