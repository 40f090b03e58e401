"""A machine of its own that works on a store: a process that is told what to do.

``python -m support.host NAME`` takes lines of JSON, and answers each with one.
"""

import json
import os
import random
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from csfd_core.errors import OvertakenError
from csfd_core.ingest.convert import StudyTask, convert_study
from csfd_core.ingest.studies_table import write_studies_table
from csfd_core.lineage.withdrawal import withdraw
from csfd_core.registry import contest
from csfd_core.registry.appointment import promote_by_hand
from csfd_core.registry.champion import ChampionRegistry
from csfd_core.store import atomic
from csfd_core.store.label_notes import label_path
from csfd_core.store.locations import Location
from csfd_core.store.source import Source, Sources
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES
from support.challenges import challenge, kept_predictions
from support.paths import ROOT, TESTS

LONGEST_S = 0.05  # between two things that a host does
MOST_TIMES = 20  # that a person repeats a command


@dataclass(frozen=True, slots=True)
class Work:
    """What one machine does, and where; each step is a word and what it needs."""

    store: str
    source: str
    inbox: str
    uri: str
    steps: list[list[str]]
    seed: int = 0

    def do(self, pause_s: float = 0.0) -> None:
        """Do every step; pause at random before each, at most ``pause_s``."""
        pauses = random.Random(self.seed)
        for word, *given in self.steps:
            time.sleep(pauses.uniform(0, pause_s))
            getattr(self, word)(*given)

    @property
    def stores(self) -> Stores:
        return Stores(Location(self.store))

    def convert(self, uid: str) -> None:
        """A study arrives, as ``csfd convert`` takes it up."""
        source = Source(self.source)
        for folder in source.studies():
            if folder.name == uid and not self.stores.withdrawn.has(uid):
                convert_study(StudyTask(folder, self.stores))
        self.tabulate()

    def tabulate(self) -> None:
        sources = Sources([Source(self.source), Source(self.inbox)])
        write_studies_table(self.stores, sources)

    def correct(self, uid: str, date: str, level: str) -> None:
        """A reader signs another label, and the table takes it up."""
        labels = {name: int(name == level) for name in LEVEL_NAMES}
        note = {"study_uid": uid, "labels": labels, "reader": "AB", "date": date}
        Location(self.inbox).write(label_path(uid), json.dumps(note).encode())
        self.tabulate()

    def withdraw(self, uid: str) -> None:
        withdraw(self.stores, uid, "consent taken back", "a person")

    def challenge(self) -> None:
        challenge(ChampionRegistry(self.stores, self.uri))

    def promote(self, number: str) -> None:
        registry = ChampionRegistry(self.stores, self.uri)
        for _ in range(MOST_TIMES):
            try:
                promote_by_hand(registry, int(number), "a person", "it serves better")
            except OvertakenError:
                continue  # as the message asks for
            return
        raise AssertionError("The champion has changed all the time.")

    def swapped(self, seed: int) -> "Work":
        """The same in another order; corrections of a study stay in theirs."""
        steps = random.Random(seed).sample(self.steps, len(self.steps))
        corrections = iter(step for step in self.steps if step[0] == "correct")
        ordered = [next(corrections) if s[0] == "correct" else s for s in steps]
        return replace(self, steps=ordered, seed=seed)


class Host:
    """Another machine, as far as a process can be one: home, temporary files, name."""

    def __init__(self, name: str, folder: Path) -> None:
        home, temporary = folder / name / "home", folder / name / "tmp"
        home.mkdir(parents=True)
        temporary.mkdir()
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "support.host", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=home,
            env={
                **os.environ,
                "HOME": str(home),
                "TMPDIR": str(temporary),
                "PYTHONPATH": os.pathsep.join([str(TESTS), str(ROOT)]),
            },
        )

    def begin(self, work: Work) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(asdict(work))}\n")
        self._process.stdin.flush()

    def finish(self) -> None:
        """Wait until it is done; fail as it has failed."""
        assert self._process.stdout is not None
        answer = json.loads(self._process.stdout.readline())
        assert answer == "", answer

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


@contextmanager
def two_hosts(folder: Path) -> Iterator[tuple[Host, Host]]:
    hosts = Host("one", folder), Host("two", folder)
    try:
        yield hosts
    finally:
        for host in hosts:
            host.close()


def serve(name: str) -> None:
    """Do what stands on each line; answer with what went wrong, or nothing."""
    told, sys.stdout = sys.stdout, sys.stderr  # whatever libraries print
    atomic._machine = lambda: name  # its processes are not those of the other
    contest._predict_anew = kept_predictions  # there is no network
    for line in sys.stdin:
        try:
            Work(**json.loads(line)).do(LONGEST_S)
            answer = ""
        except BaseException:  # noqa: BLE001 - the test tells it
            answer = traceback.format_exc()
        told.write(f"{json.dumps(answer)}\n")
        told.flush()


if __name__ == "__main__":
    serve(sys.argv[1])
