"""How much faster do two Dask workers make masks and crops than one?

Each worker has one processor, as a machine of its own would: it is held to it. Networks
are loaded in a round that does not count. Where others work on the machine, the clock
tells of them, too; beside it stands the processor time that the workers took, and what
that would give on free processors.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil

from benchmarks.harness import Result, in_turns, ratios, spread, timed
from csfd_core.crops.cutting import CROP_PROFILES
from csfd_core.crops.maker import CropMaker
from csfd_core.ingest.convert import convert_studies, study_tasks
from csfd_core.ingest.outcomes import make_many
from csfd_core.ingest.studies_table import write_studies_table
from csfd_core.phantom.config import PhantomConfig
from csfd_core.phantom.source import write_phantom_source
from csfd_core.runtime.executors import open_executor
from csfd_core.runtime.study_map import StudyMap, Work
from csfd_core.segmentation.masks import MaskMaker
from csfd_core.store import paths
from csfd_core.store.locations import Location
from csfd_core.store.source import Source, Sources
from csfd_core.store.stores import Stores

STUDIES = 12
ROUNDS = 5
TARGET = 1.8
_STARTS_WITHIN_S = 120.0


class Cluster:
    """A scheduler and workers, each held to one processor."""

    def __init__(self, folder: Path, processors: list[int]) -> None:
        """Start them, and wait until they are there."""
        from distributed import Client

        folder.mkdir()
        self._file = folder / "scheduler.json"
        local = ("--host", "127.0.0.1", "--no-dashboard")
        self._scheduler = self._start("scheduler", "--port", "0", *local)
        one = ("--nthreads", "1", "--no-nanny", "--local-directory", str(folder))
        self.workers = [
            self._start(
                "worker", *local, *one, "--resources", "GPU=1", processor=number
            )
            for number in processors
        ]
        until = time.monotonic() + _STARTS_WITHIN_S
        while not self._file.exists() and time.monotonic() < until:
            time.sleep(0.1)
        self.address = str(json.loads(self._file.read_text())["address"])
        client = Client(self.address, timeout=_STARTS_WITHIN_S)  # type: ignore[no-untyped-call]
        with client:
            client.wait_for_workers(len(processors), timeout=_STARTS_WITHIN_S)

    def _start(
        self, *call: str, processor: int | None = None
    ) -> subprocess.Popen[bytes]:
        held = [] if processor is None else ["taskset", "-c", str(processor)]
        dask = str(Path(sys.executable).with_name("dask"))
        return subprocess.Popen(
            [*held, dask, *call, "--scheduler-file", str(self._file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def processor_s(self) -> float:
        """Return the processor time that the workers have taken so far."""
        times = [psutil.Process(worker.pid).cpu_times() for worker in self.workers]
        return float(sum(taken.user + taken.system for taken in times))

    def close(self) -> None:
        """End all of it."""
        for process in [*self.workers, self._scheduler]:
            process.kill()
            process.wait()


@contextmanager
def _clusters(folder: Path, processors: list[int]) -> Iterator[tuple[Cluster, Cluster]]:
    """Start one worker, and beside it two; those that wait take hardly any time."""
    begun: list[Cluster] = []
    try:
        begun.append(Cluster(folder / "one", processors[:1]))
        begun.append(Cluster(folder / "two", processors[:2]))
        yield begun[0], begun[1]
    finally:
        for cluster in begun:
            cluster.close()


def _write_store(folder: Path) -> tuple[Stores, Sources]:
    stores = Stores(Location(folder / "store"))
    config = PhantomConfig(studies=STUDIES, seed=0)
    with open_executor(2) as pool:
        write_phantom_source(folder / "source", config, executor=pool)
        source = Source(folder / "source")
        assert list(convert_studies(study_tasks(source.studies(), stores), pool))
    sources = Sources([source])
    write_studies_table(stores, sources)
    return stores, sources


def _make(stores: Stores, sources: Sources, cluster: Cluster) -> None:
    """Make the masks and crops of all studies anew."""
    root = stores.root.folder
    assert root is not None
    for name in (paths.PREDICTED_MASKS, paths.CROPS):
        shutil.rmtree(root / name, ignore_errors=True)
    uids = stores.metadata.study_uids()
    study_map = StudyMap(dask=cluster.address)
    with study_map.open(Work.NETWORKS, len(uids), store=root) as executor:
        outcomes = make_many(MaskMaker(stores), uids, executor)
    maker = CropMaker.of_sources(stores, CROP_PROFILES["demo"], sources)
    with study_map.open(Work.ARRAYS, len(uids), store=root) as executor:
        outcomes += make_many(maker, uids, executor)
    assert {outcome.action for outcome in outcomes} == {"written"}, outcomes


def run() -> Result:
    """Make masks and crops in turns with one worker and with two."""
    processors = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        stores, sources = _write_store(Path(name))
        with _clusters(Path(name), processors) as (single, double):
            used: dict[str, list[float]] = {"one": [], "two": []}

            def in_one() -> None:
                make = partial(_make, stores, sources, single)
                used["one"].append(timed(make, single.processor_s))

            def in_two() -> None:
                make = partial(_make, stores, sources, double)
                used["two"].append(timed(make, double.processor_s))

            one_s, two_s = in_turns(in_one, in_two, ROUNDS)
    found = ratios(one_s, two_s)
    free = ratios([2 * s for s in used["one"][1:]], used["two"][1:])
    return Result(
        question="Speed of two Dask workers on masks and crops",
        target=f"at least {TARGET} times one worker, median of {ROUNDS} rounds",
        met=found["median"] >= TARGET,
        data=f"{STUDIES} studies of the demo phantom, the model that comes with csfd; "
        "each worker on a processor of its own",
        measured={
            "two_s": spread(two_s, 2),
            "one_s": spread(one_s, 2),
            "alternative": "one worker, the same scheduler and the same store",
            "ratio": found,
            "two_processor_s": spread(used["two"][1:], 2),
            "one_processor_s": spread(used["one"][1:], 2),
            "ratio_on_two_free_processors": free,
        },
    )
