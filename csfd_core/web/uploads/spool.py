"""Pieces of large files until they are whole: encrypted, with a key in memory alone.

A zip file cannot be de-identified before its end is there, and must not lie on a disk
as it is. So its pieces are encrypted (AES-256 in counter mode, which can be written and
read at any place). Who restarts loses the key: the file must be sent again.
"""

import io
import os
import secrets
import threading
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_BLOCK: Final = 16  # bytes
_COUNTERS: Final = 2**128
_BUFFER: Final = 2**18


class Spool:
    """One file that comes in pieces."""

    def __init__(self, path: Path, size: int) -> None:
        """Make the file; what was there before is gone.

        Args:
            path: Where its pieces lie, encrypted.
            size: Bytes of the whole file.
        """
        self.path = path
        self.size = size
        self._key = secrets.token_bytes(32)
        self._first = secrets.randbits(128)
        self._there: list[tuple[int, int]] = []  # from, to; sorted, apart
        path.unlink(missing_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))

    @property
    def is_whole(self) -> bool:
        """Whether every byte is there."""
        return self._there == [(0, self.size)]

    def write(self, offset: int, content: bytes) -> None:
        """Keep a piece; it may come again.

        Raises:
            OSError: If it cannot be written, as when the disk is full.
        """
        hidden = memoryview(self._crypt(offset, content))
        position = offset
        with self.path.open("r+b", buffering=0) as file:
            while hidden:
                done = os.pwrite(file.fileno(), hidden, position)
                hidden, position = hidden[done:], position + done
        self._there = _joined([*self._there, (offset, offset + len(content))])

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the file, as they were sent."""
        with self.path.open("rb", buffering=0) as file:
            hidden = os.pread(file.fileno(), length, offset)
        return self._crypt(offset, hidden)

    def open(self) -> io.BufferedReader:
        """Return the file for reading."""
        return io.BufferedReader(_Reader(self), _BUFFER)

    def remove(self) -> None:
        """Forget the file."""
        self.path.unlink(missing_ok=True)

    def _crypt(self, offset: int, content: bytes) -> bytes:
        blocks, skipped = divmod(offset, _BLOCK)
        counter = (self._first + blocks) % _COUNTERS
        mode = modes.CTR(counter.to_bytes(_BLOCK, "big"))
        stream = Cipher(algorithms.AES(self._key), mode).encryptor()
        stream.update(bytes(skipped))
        return stream.update(content)


class _Reader(io.RawIOBase):
    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}
        position = start.get(whence, self._spool.size) + offset
        if position < 0:
            raise ValueError("A place in a file is not negative.")
        self._position = position
        return position

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        content = self._spool.read(self._position, len(buffer))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


class Spools:
    """The spools of this process, by where they lie."""

    def __init__(self) -> None:
        """Begin with none."""
        self._spools: dict[Path, Spool] = {}
        self._lock = threading.Lock()

    def find(self, path: Path) -> Spool | None:
        """Return the spool at a place, ``None`` where this process has no key to it."""
        with self._lock:
            return self._spools.get(path)

    def begin(self, path: Path, size: int) -> Spool:
        """Return a new spool at a place."""
        spool = Spool(path, size)
        with self._lock:
            self._spools[path] = spool
        return spool

    def remove(self, path: Path) -> None:
        """Remove the spool at a place, and its key."""
        with self._lock:
            self._spools.pop(path, None)
        path.unlink(missing_ok=True)

    def forget(self, folder: Path) -> None:
        """Forget the keys of all spools in a folder."""
        with self._lock:
            for path in [p for p in self._spools if p.parent == folder]:
                del self._spools[path]


SPOOLS: Final = Spools()
