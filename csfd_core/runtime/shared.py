"""Arrays that one process writes and another one reads, there only once.

What is sent through a pipe is there four times at its worst: with who sends it, as
bytes on either side, and with who receives it. This memory has no name in any folder:
nothing of it is left, however the processes end.
"""

import math
import mmap
import os
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Where an array lies in shared memory."""

    first: int  # byte, at the beginning of a page
    shape: tuple[int, ...]


class SharedMemory:
    """Memory of the process that makes it; one that it is sent to writes into it.

    Who writes may die and be followed by another; what is there stays as long as this
    object, or an array that was read of it.
    """

    def __init__(self) -> None:
        """Open it; it takes nothing until something is written."""
        self._descriptor = os.memfd_create("csfd")
        weakref.finalize(self, os.close, self._descriptor)
        self._path = Path(f"/proc/{os.getpid()}/fd/{self._descriptor}")

    def __getstate__(self) -> dict[str, Path]:
        """Send where to write; the memory stays with its process."""
        return {"_path": self._path}

    def clear(self) -> None:
        """Give back what one that has died may have written.

        Raises:
            OSError: If the process that has made it is gone.
        """
        os.truncate(self._path, 0)

    def append(self, planes: Iterable[Bytes]) -> Part:
        """Write planes of one shape behind what is there.

        Args:
            planes: Each is taken when the one before is written, so that it need not
                be kept; at least one.

        Returns:
            Where they lie, shape (plane, ...).

        Raises:
            ValueError: If there is none, or their shapes differ.
            OSError: If there is no memory for them.
        """
        shapes: set[tuple[int, ...]] = set()
        written = 0
        with self._path.open("ab") as file:
            first = -(-file.tell() // mmap.PAGESIZE) * mmap.PAGESIZE
            file.truncate(first)
            for plane in planes:
                shapes.add(plane.shape)
                written += 1
                file.write(np.ascontiguousarray(plane).data)
        if len(shapes) != 1:
            raise ValueError(
                f"`planes` must have one shape. Received: {sorted(shapes)}."
            )
        return Part(first=first, shape=(written, *shapes.pop()))

    def read(self, part: Part) -> Bytes:
        """Return what ``append`` has written, not to be changed, without copying it."""
        size = math.prod(part.shape)
        mapped = mmap.mmap(
            self._descriptor, size, access=mmap.ACCESS_READ, offset=part.first
        )
        return np.frombuffer(mapped, dtype=np.uint8).reshape(part.shape)
