"""Files of any size, in blocks: read and written, on a disk and through fsspec.

What was read of a file is told by ``Digests``: the digest that csfd knows a file on a
disk by, and the ETag that S3 gives it. An object of one block is one PUT, and its ETag
the MD5 of its content; one of several is a multipart upload, whose ETag most servers
make of the MD5 of its parts.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import xxhash

from csfd_core.store.atomic import writing
from csfd_core.store.moved import ETAG

BLOCK_BYTES: Final = 16 * 2**20  # S3 takes no parts below 5 MiB, nor more than 10,000
_MTIME: Final = "mtime:"
_NS: Final = 10**9


class Digests:
    """Of blocks that pass through."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        """Take the blocks of one file."""
        self._blocks = blocks
        self._xxh3 = xxhash.xxh3_128()
        self._whole = hashlib.md5(usedforsecurity=False)
        self._parts: list[bytes] = []
        self.size_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        """Yield the blocks."""
        for block in self._blocks:
            self._xxh3.update(block)
            self._whole.update(block)
            self._parts.append(self._md5_of(block))
            self.size_bytes += len(block)
            yield block

    def _md5_of(self, block: bytes) -> bytes:
        if not self._parts:  # it is all that has passed
            return self._whole.digest()
        return hashlib.md5(block, usedforsecurity=False).digest()

    @property
    def xxh3(self) -> str:
        """Digest of what has passed."""
        return self._xxh3.hexdigest()

    @property
    def md5(self) -> str:
        """Another one."""
        return self._whole.hexdigest()

    @property
    def etag(self) -> str:
        """Token of it on S3, as ``write_remote`` writes it."""
        if len(self._parts) < 2:
            return f"{ETAG}{self.md5}"
        joined = hashlib.md5(b"".join(self._parts), usedforsecurity=False).hexdigest()
        return f"{ETAG}{joined}-{len(self._parts)}"


def read_local(path: Path) -> Iterator[bytes]:
    """Yield a file on a disk in blocks.

    Raises:
        OSError: If it cannot be read, or is no file, such as a pipe.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(0, "it is no file")  # a pipe would be waited for
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def read_remote(filesystem: Any, path: str, size_bytes: int) -> Iterator[bytes]:  # noqa: ANN401 - fsspec has no types
    """Yield an object in blocks."""
    for start in range(0, size_bytes, BLOCK_BYTES):
        end = min(start + BLOCK_BYTES, size_bytes)
        yield bytes(filesystem.cat_file(path, start=start, end=end))


def write_local(path: Path, blocks: Iterator[bytes], token: str) -> None:
    """Write a file on a disk atomically.

    Args:
        path: Where.
        blocks: Its content.
        token: Of its listing; the file gets that time where it is one.
    """
    with writing(path) as file:
        for block in blocks:
            file.write(block)
        if token.startswith(_MTIME):
            file.flush()
            time_ns = round(Fraction(float(token.removeprefix(_MTIME))) * _NS)
            os.utime(file.fileno(), ns=(time_ns, time_ns))


def write_remote(filesystem: Any, path: str, blocks: Iterator[bytes]) -> None:  # noqa: ANN401 - fsspec has no types
    """Write an object at once: one PUT, or a multipart upload that is completed."""
    blocks = iter(blocks)
    first, second = next(blocks, b""), next(blocks, None)
    if second is None:
        filesystem.pipe_file(path, first)
        return
    file = filesystem.open(path, "wb", block_size=BLOCK_BYTES, autocommit=False)
    try:
        for block in (first, second):
            file.write(block)
        for block in blocks:
            file.write(block)
        file.close()
    except BaseException:
        file.discard()  # closing it would complete what is not whole
        file.closed = True
        raise
    file.commit()
