"""What is read and written when one study arrives among many, and what by a rerun?"""

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from benchmarks.harness import Result, spread, timed
from benchmarks.studies import tasks_of, tiny_volume, write_copy
from csfd_core.ingest.convert import convert_study, run_studies
from csfd_core.runtime.executors import InlineExecutor
from csfd_core.store.locations import Location

STUDIES = 200
RERUNS = 3
LONGEST_S = 5.0


class _Access:
    """Counts the files that are read and written, by their first folder."""

    def __init__(self) -> None:
        self.read = Counter[str]()
        self.written = Counter[str]()
        self.study_uids = set[str]()  # whose slices were read or which were written

    def count(self, kind: Counter[str], path: str, study_uids: set[str]) -> None:
        parts = path.split("/")
        kind["/".join(parts[:-2]) or parts[0]] += 1
        is_source = parts[0] == "train_images"
        if is_source or kind is self.written:
            name = parts[1] if is_source else parts[-1].removesuffix(".parquet")
            study_uids.add(name)


@contextmanager
def _watched() -> Iterator[_Access]:
    """Watch every read and write of this process that goes through ``Location``."""
    access = _Access()
    plain = {
        name: getattr(Location, name)
        for name in ("read", "open", "read_beginnings", "write")
    }

    def read(self: Location, path: str) -> bytes:
        access.count(access.read, path, access.study_uids)
        return bytes(plain["read"](self, path))

    def open_(self: Location, path: str) -> IO[bytes]:
        access.count(access.read, path, set())
        opened: IO[bytes] = plain["open"](self, path)
        return opened

    def read_beginnings(
        self: Location, paths: Sequence[str], length: int | None = None
    ) -> Iterator[tuple[str, bytes]]:
        for path in paths:
            access.count(access.read, path, access.study_uids)
        return iter(plain["read_beginnings"](self, paths, length))

    def write(self: Location, path: str, content: bytes) -> None:
        access.count(access.written, path, access.study_uids)
        plain["write"](self, path, content)

    watchers = {
        "read": read,
        "open": open_,
        "read_beginnings": read_beginnings,
        "write": write,
    }
    try:
        for name, watcher in watchers.items():
            setattr(Location, name, watcher)
        yield access
    finally:
        for name, method in plain.items():
            setattr(Location, name, method)


def _convert(source: Path, store: Path) -> Counter[str]:
    tasks = tasks_of(source, store)
    outcomes = run_studies(convert_study, tasks, InlineExecutor())
    return Counter(outcome.action for outcome in outcomes)


def run() -> Result:
    """Fill a store with 200 studies, add one, then run the command again."""
    with tempfile.TemporaryDirectory() as name:
        source, store = Path(name) / "source", Path(name) / "store"
        volume = tiny_volume()
        for number in range(STUDIES):
            write_copy(source, volume, number)
        first_s = timed(lambda: _convert(source, store))
        added = write_copy(source, volume, STUDIES)
        with _watched() as access:
            actions: list[Counter[str]] = []
            added_s = timed(lambda: actions.append(_convert(source, store)))
        program = Path(sys.executable).with_name("csfd")
        command = [str(part) for part in (program, "convert", source, store)]

        def rerun() -> None:
            subprocess.run(command, check=True, capture_output=True)

        rerun_s = [timed(rerun) for _ in range(RERUNS)]
    only_added = access.study_uids == {added}
    return Result(
        question="One new study among 200 stored ones; a rerun over unchanged studies",
        target=f"only that study is read and written; rerun below {LONGEST_S} s",
        met=only_added and actions[0]["written"] == 1 and max(rerun_s) < LONGEST_S,
        data=f"{STUDIES} + 1 studies of {len(volume.hounsfield)} slices of 32x32",
        measured={
            "studies_read_or_written": len(access.study_uids),
            "only_the_new_one": only_added,
            "files_read": dict(access.read),
            "files_written": dict(access.written),
            "new_study_s": round(added_s, 2),
            "rerun_command_s": spread(rerun_s, 2),
            "alternative": "converting all of them",
            "alternative_s": round(first_s, 2),
        },
    )
