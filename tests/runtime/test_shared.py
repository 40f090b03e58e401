"""Shared memory: written in one process, read in another, there only once."""

import os
import signal
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from csfd_core.runtime.executors import in_order, open_pool
from csfd_core.runtime.shared import Part, SharedMemory

Planes = npt.NDArray[np.uint8]


def planes_of(seed: int, count: int) -> Planes:
    return np.random.default_rng(seed).integers(0, 256, (count, 30, 50), np.uint8)


def write_two(call: tuple[SharedMemory, Path]) -> tuple[Part, Part]:
    """Write two stacks; die in the middle of the second one, the first time."""
    memory, mark = call
    memory.clear()
    first = memory.append(planes_of(0, 7))

    def second() -> Iterator[Planes]:
        for number, plane in enumerate(planes_of(1, 9)):
            if number == 5 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield plane

    return first, memory.append(second())


def test_what_a_process_writes_another_reads_also_after_one_that_died(
    tmp_path: Path,
) -> None:
    calls = [(SharedMemory(), tmp_path / "a"), (SharedMemory(), tmp_path / "b")]
    calls[1][1].touch()
    with open_pool(1) as pool:
        found = [future.result() for _, future in in_order(pool, write_two, calls)]
    for (memory, _), parts in zip(calls, found, strict=True):
        for seed, part in enumerate(parts):
            seen = memory.read(part)
            assert np.array_equal(seen, planes_of(seed, len(seen)))
            assert not seen.flags.writeable
        assert [part.shape for part in parts] == [(7, 30, 50), (9, 30, 50)]


def test_what_was_read_stays_when_the_memory_is_gone() -> None:
    memory = SharedMemory()
    seen = memory.read(memory.append(planes_of(2, 3)))
    del memory
    assert np.array_equal(seen, planes_of(2, 3))


def test_no_plane_is_kept_once_it_is_written() -> None:
    alive: list[weakref.ref[Planes]] = []
    most = 0

    def planes() -> Iterator[Planes]:
        nonlocal most
        for plane in planes_of(3, 20):
            own = plane.copy()
            alive.append(weakref.ref(own))
            yield own
            del own, plane
            most = max(most, sum(one() is not None for one in alive))

    memory = SharedMemory()
    assert np.array_equal(memory.read(memory.append(planes())), planes_of(3, 20))
    assert most <= 2


@pytest.mark.parametrize("shapes", [[], [(3, 4), (4, 3)]])
def test_planes_that_are_no_volume_are_refused(shapes: list[tuple[int, int]]) -> None:
    planes = [np.zeros(shape, dtype=np.uint8) for shape in shapes]
    with pytest.raises(ValueError, match="`planes` must have one shape"):
        SharedMemory().append(planes)
