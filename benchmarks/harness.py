"""Timing and printing, the same for every benchmark.

Each benchmark is a module with a function ``run`` that returns a ``Result``. Machines
differ, and a shared one differs from minute to minute: what counts is the ratio against
a named alternative that was measured in turns with it.
"""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one benchmark found."""

    question: str
    target: str
    met: bool
    data: str  # what was worked on
    measured: dict[str, Any]


def machine() -> dict[str, Any]:
    """Describe this machine without naming it."""
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }


Clock = Callable[[], float]


def timed(call: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Return the seconds that a call takes."""
    start = clock()
    call()
    return clock() - start


def in_turns(
    ours: Callable[[], object],
    other: Callable[[], object],
    rounds: int,
    clock: Clock = time.perf_counter,
) -> tuple[list[float], list[float]]:
    """Time two calls in turns, after one round that does not count."""
    ours()
    other()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        times[0].append(timed(ours, clock))
        times[1].append(timed(other, clock))
    return times


def spread(values: list[float], digits: int = 3) -> dict[str, float]:
    """Return the lowest, middle and highest of repeated measurements."""
    return {
        "lowest": round(min(values), digits),
        "median": round(statistics.median(values), digits),
        "highest": round(max(values), digits),
    }


def ratios(numerator: list[float], denominator: list[float]) -> dict[str, float]:
    """Return the spread of the ratio of measurements that were made in turns."""
    pairs = zip(numerator, denominator, strict=True)
    return spread([above / below for above, below in pairs], digits=2)


def show(name: str, result: Result, seconds: float, *, save: bool) -> None:
    """Print a result as JSON; with ``save`` also keep it under ``results``."""
    report = {
        "benchmark": name,
        **asdict(result),
        "machine": machine(),
        "load_average": round(os.getloadavg()[0], 1),  # of the last minute, with ours
        "seconds": round(seconds, 1),
    }
    text = json.dumps(report, indent=2)
    print(text, flush=True)
    if save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def _cpu_model() -> str:
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
