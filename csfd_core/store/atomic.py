"""Files on a disk that are there whole or not at all, and for one user alone.

The bytes go to a temporary name beside the target and are renamed. The name tells who
writes: what a process has left that was killed is removed by the next writer.
"""

import functools
import hashlib
import os
import platform
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

import psutil

TEMPORARY: Final = ".tmp-"  # in the name of a file that is being written
_ABANDONED_AFTER_S: Final = 3600  # by a writer on another machine


def write_atomically(target: Path, content: bytes) -> None:
    """Write a file, replacing what was there, and the folders above it.

    Raises:
        OSError: If it cannot be written; what was there before is untouched.
    """
    with writing(target) as file:
        file.write(content)


@contextmanager
def writing(target: Path) -> Iterator[IO[bytes]]:
    """Give a file that takes the place of ``target`` once it was written.

    Raises:
        OSError: If it cannot be written; what was there before is untouched.
    """
    for place in reversed(target.parents):
        if not place.exists():
            place.mkdir(mode=0o700, exist_ok=True)
    remove_abandoned(target.parent)
    mark = f"{_machine()}-{os.getpid()}-{uuid.uuid4().hex}"
    temporary = target.with_name(f"{target.name}{TEMPORARY}{mark}")
    try:
        with open(temporary, "xb", opener=_open_private) as file:  # noqa: PTH123 - Path.open takes no opener
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def remove_abandoned(folder: Path) -> None:
    """Remove temporary files whose writer is dead; those of others after an hour."""
    for file in folder.glob(f"*{TEMPORARY}*"):
        machine, _, rest = file.name.rpartition(TEMPORARY)[2].partition("-")
        process = rest.partition("-")[0]
        with suppress(FileNotFoundError):  # it was finished meanwhile
            if machine == _machine() and process.isdigit():
                is_abandoned = not psutil.pid_exists(int(process))
            else:
                age_s = time.time() - file.stat().st_mtime
                is_abandoned = age_s > _ABANDONED_AFTER_S
            if is_abandoned:
                file.unlink()


@functools.cache
def _machine() -> str:
    """Identify this machine since it was started, among those that share a disk."""
    told = f"{platform.node()} {psutil.boot_time():.0f}"
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)
