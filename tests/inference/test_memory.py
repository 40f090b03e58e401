"""Memory: grey levels are there only once, and too little of it is told as such."""

import errno
import os
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.dicom_studies import SLICES, STUDY_UID, neck_hounsfield, write_study

from csfd_core.dicom.pixels import DecodedSlice
from csfd_core.errors import TOO_LITTLE_MEMORY, is_want_of_memory, tell_error
from csfd_core.inference.reading import (
    Reading,
    ReadScan,
    ReadTask,
    read_folder,
    read_scans,
    reading_ahead,
)
from csfd_core.runtime.shared import Bytes, Part, SharedMemory
from csfd_core.store.source import Source

UIDS = [f"{STUDY_UID}.{number}" for number in (1, 2)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for uid in UIDS:
        write_study(tmp_path / "source", uid)
    return tmp_path / "source"


def memory_of_this_process(peak: bool) -> int:
    """Return bytes in use, or the most since the last call for what is in use."""
    name = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    if not peak:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: proc(5)
    (line,) = (line for line in lines if line.startswith(name))
    return int(line.split()[1]) * 1024


def test_who_reads_holds_a_study_once_and_keeps_nothing_of_it(
    source: Path, tmp_path: Path
) -> None:
    write_study(tmp_path / "large", hounsfield=neck_hounsfield(8, 512).repeat(8, 0))
    with reading_ahead() as opened:
        reading = replace(opened, threads=2)  # each has files at hand
        list(read_scans(str(source), print, reading))  # what every study needs
        submit = reading.executor.submit
        before = submit(memory_of_this_process, False).result()
        (found,) = read_scans(str(tmp_path / "large"), print, reading)
        peak = submit(memory_of_this_process, True).result()
        after = submit(memory_of_this_process, False).result()
    assert found.grey is not None
    assert peak - before < 1.8 * found.grey.nbytes
    assert after - before < 0.4 * found.grey.nbytes


def test_a_slice_is_let_go_once_it_is_written(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = SharedMemory.append
    left = []

    def watch(self: SharedMemory, planes: Iterable[Bytes]) -> Part:
        seen: list[weakref.ref[Bytes]] = []

        def each() -> Iterator[Bytes]:
            for plane in planes:
                seen.append(weakref.ref(plane))
                yield plane

        part = append(self, each())
        left.append((len(seen), sum(one() is not None for one in seen)))
        return part

    monkeypatch.setattr(SharedMemory, "append", watch)
    list(read_scans(str(source), print, Reading()))
    assert left == [(SLICES, 0)] * 2


def test_a_decoder_without_memory_is_no_defect_of_the_file(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = DecodedSlice.grey_levels
    calls = iter(range(1000))

    def fail(self: DecodedSlice, window: object) -> object:
        if next(calls) == 3:
            raise MemoryError
        return levels(self, window)  # type: ignore[arg-type]

    monkeypatch.setattr(DecodedSlice, "grey_levels", fail)
    first, second = read_scans(str(source), print, Reading())
    assert_too_little(first)
    assert second.grey is not None


def test_grey_levels_that_find_no_room_stop_no_other_study(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = SharedMemory.read
    rooms = iter([False, True])

    def fail(self: SharedMemory, part: Part) -> object:
        if not next(rooms):
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return read(self, part)

    monkeypatch.setattr(SharedMemory, "read", fail)
    first, second = read_scans(str(source), print, Reading())
    assert_too_little(first)
    assert second.grey is not None


def assert_too_little(found: ReadScan) -> None:
    assert found.name == UIDS[0]
    assert (found.scan, found.grey) == (None, None)
    assert found.refusal == f"It cannot be read: {TOO_LITTLE_MEMORY}"


def test_a_folder_that_is_read_again_has_its_own_grey_levels(source: Path) -> None:
    task = ReadTask(Source(source).study(UIDS[0]) or pytest.fail("no study"))
    task.memory.append(np.ones((2, 3, 4), dtype=np.uint8))  # of who has died of it
    (one,), (other,) = read_folder(task), read_folder(task)
    assert one.part == other.part
    assert one.part is not None
    assert one.part.first == 0


class ResourceExhaustedError(Exception):
    """As TensorFlow's is called."""


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (ImportError("x.so: failed to map segment from shared object"), True),
        (ResourceExhaustedError("OOM when allocating tensor"), True),
        (OSError(errno.ENOENT, "No such file or directory"), False),
        (ImportError("No module named 'memory'"), False),
        (ValueError("memory"), False),
    ],
)
def test_want_of_memory_is_told_by_whatever_it_is_called(
    error: Exception, is_memory: bool
) -> None:
    assert is_want_of_memory(error) == is_memory
    assert (tell_error(error) == TOO_LITTLE_MEMORY) == is_memory
