"""How long does one study of the phantom's demo profile take?"""

import tempfile
from functools import partial
from pathlib import Path

from benchmarks.harness import Result, spread, timed
from csfd_core.phantom.config import PhantomConfig
from csfd_core.phantom.source import write_phantom_source

STUDIES = 12
LONGEST_S = 1.0


def run() -> Result:
    """Write studies one after the other in one process."""
    times = []
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "source"
        write_phantom_source(out, PhantomConfig(studies=1))  # imports, caches
        for first in range(1, STUDIES + 1):
            config = PhantomConfig(studies=1, first=first)
            times.append(timed(partial(write_phantom_source, out, config)))
    mean_s = sum(times) / STUDIES
    return Result(
        question="Time of one phantom study, demo profile, one core",
        target=f"below {LONGEST_S} s on average",
        met=mean_s < LONGEST_S,
        data=f"{STUDIES} studies of seed 0, written to a disk",
        measured={
            "mean_s": round(mean_s, 3),
            "study_s": spread(times),
            "alternative": "none: there is no other generator",
        },
    )
