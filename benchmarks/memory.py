"""How much memory does a worker take for the longest study of the data set?"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Result
from benchmarks.studies import large_volume, longer, write_copy

SLICES = 1082
LARGEST_MB = 1000.0
_CHILD = """
import json, sys, time
from pathlib import Path
from benchmarks.studies import tasks_of
from csfd_core.ingest.convert import convert_study

def peak():  # not ru_maxrss: a child inherits that of its parent
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) / 1000 for x in lines if x.startswith("VmHWM:"))

before = peak()
(task,) = tasks_of(Path(sys.argv[1]), Path(sys.argv[2]))
start = time.perf_counter()
outcome = convert_study(task)
report = {"action": outcome.action, "slices": outcome.slice_count, "peak_mb": peak()}
report |= {"imports_mb": before, "seconds": time.perf_counter() - start}
report["store_mb"] = outcome.stored_bytes / 1e6
print(json.dumps(report))
"""


def run() -> Result:
    """Convert one study of 1082 slices in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        source, store = Path(name) / "source", Path(name) / "store"
        write_copy(source, longer(large_volume(48), SLICES), 0)
        child = subprocess.run(
            [sys.executable, "-c", _CHILD, str(source), str(store)],
            capture_output=True,
            check=True,
            cwd=Path(__file__).parent.parent,
        )
    report = json.loads(child.stdout)
    assert (report["action"], report["slices"]) == ("written", SLICES)
    return Result(
        question="Peak memory of a worker",
        target=f"below {LARGEST_MB:.0f} MB for a study of {SLICES} slices",
        met=report["peak_mb"] < LARGEST_MB,
        data=f"{SLICES} uncompressed 512x512 slices of the full-profile phantom",
        measured={
            "peak_mb": round(report["peak_mb"], 1),
            "of_it_imports_mb": round(report["imports_mb"], 1),
            "alternative": f"the study's pixels, {SLICES * 512 * 512 * 2 / 1e6:.0f} MB",
            "stored_mb": round(report["store_mb"], 1),
            "slices_per_s": round(SLICES / report["seconds"], 1),
        },
    )
