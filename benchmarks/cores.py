"""How much faster are two processes than one?

Where others work on the machine, two cores are not there to be had. Therefore two more
figures stand beside the ratio: how much faster two processes count to a number than one
does, measured in between, and how much processor time the pool takes for what one
process does. 2 divided by the latter is what two free cores would give.
"""

import itertools
import multiprocessing
import tempfile
import time
from concurrent.futures import Executor
from pathlib import Path

import psutil

from benchmarks.harness import Result, in_turns, ratios, spread, timed
from benchmarks.studies import large_volume, longer, tasks_of, write_copy
from csfd_core.ingest.convert import convert_study, run_studies
from csfd_core.ingest.outcomes import Outcome
from csfd_core.runtime.executors import InlineExecutor, open_executor

STUDIES, SLICES = 8, 352  # slices of a study, as on average in the RSNA data
PAINTED = 48  # different ones among them
ROUNDS = 5
TARGET = 1.8


def _count() -> None:
    for _ in range(15_000_000):
        pass


def _pool_cpu_s() -> float:
    """Return the processor time that the worker processes have taken so far."""
    workers = [psutil.Process(child.pid) for child in multiprocessing.active_children()]
    times = [worker.cpu_times() for worker in workers]
    return float(sum(taken.user + taken.system for taken in times))


def _wait(pool: Executor) -> None:
    for future in [pool.submit(_count) for _ in range(2)]:
        future.result()


def run() -> Result:
    """Convert eight studies in turns with one process and with a pool of two."""
    with tempfile.TemporaryDirectory() as name, open_executor(2) as pool:
        source = Path(name) / "source"
        volume = longer(large_volume(PAINTED), SLICES)
        for number in range(STUDIES):
            write_copy(source, volume, number)
        numbers = itertools.count()

        def convert(executor: Executor) -> None:
            tasks = tasks_of(source, Path(name) / f"store-{next(numbers)}")
            outcomes = list(run_studies(convert_study, tasks, executor))
            assert {outcome.action for outcome in outcomes} == {Outcome.WRITTEN}

        def in_pool() -> None:
            convert(pool)

        def in_one() -> None:
            convert(InlineExecutor())

        # The round that does not count starts the processes of the pool.
        pool_times, one_times = in_turns(in_pool, in_one, ROUNDS)
        two_s = [timed(lambda: _wait(pool)) for _ in range(ROUNDS)]
        single_s = [timed(_count) for _ in range(ROUNDS)]
        pool_cpu_s = timed(in_pool, _pool_cpu_s)
        one_cpu_s = timed(in_one, time.process_time)
    total = STUDIES * SLICES
    best = min(one_times) / min(pool_times)
    return Result(
        question="Speed of two processes on two cores",
        target=f"at least {TARGET} times one process, best against best",
        met=best >= TARGET,
        data=f"{STUDIES} studies of {SLICES} uncompressed 512x512 slices, full phantom",
        measured={
            "pool_slices_per_s": spread([total / t for t in pool_times], 1),
            "one_slices_per_s": spread([total / t for t in one_times], 1),
            "alternative": "the same conversion in one process",
            "best_against_best": round(best, 2),
            "ratio": ratios(one_times, pool_times),
            "ratio_of_mere_counting": round(2 * min(single_s) / min(two_s), 2),
            "processor_time_pool_to_one": round(pool_cpu_s / one_cpu_s, 2),
            "ratio_on_two_free_cores": round(2 * one_cpu_s / pool_cpu_s, 2),
        },
    )
