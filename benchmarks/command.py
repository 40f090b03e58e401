"""How long does the command ``csfd predict`` take, and how much memory?

Everything counts: the start of Python, imports, opening of the networks, the process
that reads. Against the same study by networks that are open, as ``predict`` measures.
The memory is that of all its processes together, what they share counted once, for the
longest study of the data set.
"""

import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from benchmarks.harness import Result, spread, timed
from benchmarks.studies import large_volume, scanned_on, write_copy

SLICES: Final = 350
MOST_SLICES: Final = 1082
STEP_MM: Final = 0.6  # of these: 65 cm, from the head to the belly
ROUNDS: Final = 3
LONGEST_START_S: Final = 15.0
LARGEST_MB: Final = 1500.0
_LOOK_S: Final = 0.05


def run() -> Result:
    """Predict a usual study some times, and the longest one once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_copy(folder / "usual", large_volume(SLICES), 0)
        write_copy(
            folder / "long", scanned_on(large_volume(96), MOST_SLICES, STEP_MM), 1
        )
        seconds, warm = [], []
        for number in range(ROUNDS + 1):
            out = folder / f"usual_{number}"
            seconds.append(timed(lambda out=out: _watch(folder / "usual", out)))  # type: ignore[misc]
            warm.append(_told_s(out))
        peak_mb = _watch(folder / "long", folder / "out")
    starts = [a - b for a, b in zip(seconds[1:], warm[1:], strict=True)]
    return Result(
        question="The command csfd predict: its start, and the memory of a long study",
        target=f"{LONGEST_START_S:.0f} s beside the prediction itself; below "
        f"{LARGEST_MB:.0f} MB for {MOST_SLICES} slices",
        met=max(starts) <= LONGEST_START_S and peak_mb < LARGEST_MB,
        data=f"{SLICES} and {MOST_SLICES} uncompressed slices of 512x512 of the "
        f"full-profile phantom, the latter {STEP_MM} mm apart, general models",
        measured={
            "first_s": round(seconds[0], 1),  # files not yet in the system's memory
            "command_s": spread(seconds[1:], 1),
            "start_s": spread(starts, 1),
            "peak_mb": round(peak_mb),
            "alternative": "the prediction alone, as the command itself times it",
            "alternative_s": spread(warm[1:], 1),
        },
    )


def _watch(source: Path, out: Path) -> float:
    """Run the command to its end; return the highest memory of its processes, in MB."""
    program = Path(sys.executable).with_name("csfd")
    call = [str(part) for part in (program, "predict", source, "--out", out)]
    process = psutil.Popen([*call, "--model", "general"], stdout=subprocess.DEVNULL)
    most = 0.0
    while process.poll() is None:
        most = max(most, _memory_mb(process))
        time.sleep(_LOOK_S)
    if process.returncode:
        raise RuntimeError(f"csfd predict has ended with {process.returncode}.")
    return most


def _memory_mb(process: psutil.Process) -> float:
    """Return what a process and those below it take, what they share once."""
    total = 0.0
    with suppress(psutil.NoSuchProcess):
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += one.memory_full_info().pss / 1e6
    return total


def _told_s(out: Path) -> float:
    (path,) = out.glob("*.json")
    return float(sum(json.loads(path.read_bytes())["seconds"].values()))
