"""What is stored when a writer is killed, races another or finds the disk full."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.conversion import digests, tasks
from support.dicom_studies import SLICES
from support.paths import ROOT, TESTS

from csfd_core.errors import SourceError
from csfd_core.ingest.convert import convert_study, needs_work, run_studies
from csfd_core.ingest.outcomes import Outcome
from csfd_core.runtime.executors import open_executor
from csfd_core.store import atomic
from csfd_core.store.locations import Location

KILLED = """
import os, signal, sys
from csfd_core.store.locations import Location
from csfd_core.ingest import convert
from support import conversion

written = 0
original = Location.write

def write_and_die(self, path, content):
    # Half of the bytes are under the temporary name when the process dies.
    global written
    written += 1
    if written == int(sys.argv[3]):
        def die(*_):
            os.kill(os.getpid(), signal.SIGKILL)
        os.fsync = die
    original(self, path, content)

Location.write = write_and_die
from pathlib import Path
for task in conversion.tasks(Path(sys.argv[1]), Path(sys.argv[2])):
    convert.convert_study(task)
"""


@pytest.mark.parametrize("write", [1, 2, 3, 4, 5])
def test_killed_conversion_leaves_no_partial_study_and_goes_on(
    source: Path, store: Path, tmp_path: Path, write: int
) -> None:
    """SIGKILL in the middle of the n-th of five writes."""
    expected = tmp_path / "expected"
    for task in tasks(source, expected):
        convert_study(task)
    paths = os.pathsep.join([str(TESTS), str(ROOT)])
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(source), str(store), str(write)],
        env={**os.environ, "PYTHONPATH": paths},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    left = digests(store)
    whole = {name: digest for name, digest in left.items() if ".tmp-" not in name}
    assert len(left) - len(whole) == 1
    assert len(whole) == write - 1
    assert whole.items() <= digests(expected).items()
    visible = [entry.path for entry in Location(store).find()[0]]
    assert sorted(whole) == visible
    for task in tasks(source, store):
        convert_study(task)
    assert {n: d for n, d in digests(store).items() if ".tmp-" not in n} == digests(
        expected
    )


def test_what_a_killed_writer_left_is_removed_after_an_hour(store: Path) -> None:
    old, young = store / "x.parquet.tmp-1", store / "x.parquet.tmp-2"
    store.mkdir()
    for path in (old, young):
        path.write_bytes(b"half")
    hours_ago = time.time() - 2 * 3600
    os.utime(old, (hours_ago, hours_ago))
    Location(store).remove_abandoned("")
    assert [path.name for path in store.iterdir()] == [young.name]


def test_a_large_folder_is_not_looked_through_at_each_write(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Path] = []
    monkeypatch.setattr(atomic, "remove_abandoned", looks.append)
    for name in ("a", "b"):
        Location(store).write(f"small/{name}", b"x")
    assert looks == [store / "small"] * 2
    monkeypatch.setattr(atomic, "_LONG_LOOK_S", -1.0)  # so: every look
    monkeypatch.setattr(atomic, "_RESTS", 1e9)
    for name in ("a", "b"):
        Location(store).write(f"large/{name}", b"x")
    assert looks[2:] == [store / "large"]


def test_two_writers_do_not_harm_each_other(source: Path, store: Path) -> None:
    """Two processes convert the same studies into the same store at once."""
    work = [*tasks(source, store), *tasks(source, store)]
    with open_executor(2) as executor:
        outcomes = list(run_studies(convert_study, work, executor))
    assert Outcome.FAILED not in {outcome.action for outcome in outcomes}
    for task in tasks(source, store):
        assert task.stores.slices.verify(task.folder.name) == (SLICES, 64, 64)
        assert not needs_work(task)
    assert not [name for name in digests(store) if ".tmp-" in name]


def test_failed_write_keeps_the_old_file(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = Location(store)
    location.write("a.bin", b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SourceError, match="No space left on device"):
        location.write("a.bin", b"new")
    assert location.read("a.bin") == b"old"
    assert [path.name for path in store.iterdir()] == ["a.bin"]
