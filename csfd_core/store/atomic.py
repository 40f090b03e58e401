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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

import psutil

TEMPORARY: Final = ".tmp-"  # in the name of a file that is being written
_ABANDONED_AFTER_S: Final = 3600  # by a writer on another machine
_LONG_LOOK_S: Final = 0.005  # of a processor, as through ten thousand files
_RESTS: Final = 100  # times as long as a long look has taken
_resting: dict[Path, float] = {}  # until when no writer looks through a large folder


def write_atomically(target: Path, content: bytes) -> None:
    """Write a file, replacing what was there, and the folders above it.

    Raises:
        OSError: If it cannot be written; what was there before is untouched.
    """
    with writing(target) as file:
        file.write(content)


@contextmanager
def writing(
    target: Path, put: Callable[[Path, Path], object] = Path.replace
) -> Iterator[IO[bytes]]:
    """Give a file that takes the place of ``target`` once it was written.

    Args:
        target: Where it is to be; the folders above it are made.
        put: Puts what was written to its place.

    Raises:
        OSError: If it cannot be written; what was there before is untouched.
    """
    for folder in reversed(target.parents):
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)
    _look_for_abandoned(target.parent)
    mark = f"{this_process()}-{uuid.uuid4().hex}"
    temporary = target.with_name(f"{target.name}{TEMPORARY}{mark}")
    try:
        with open(temporary, "xb", opener=_open_private) as file:  # noqa: PTH123 - Path.open takes no opener
            yield file
            file.flush()
            os.fsync(file.fileno())
        put(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _look_for_abandoned(folder: Path) -> None:
    """Remove what killed writers have left; in a large folder only now and then.

    Else each of many files would cost what all those cost that are there already.
    """
    if time.monotonic() < _resting.get(folder, 0.0):
        return
    begun = time.thread_time()
    remove_abandoned(folder)
    took_s = time.thread_time() - begun
    if took_s > _LONG_LOOK_S:
        _resting[folder] = time.monotonic() + _RESTS * took_s


def remove_abandoned(folder: Path) -> None:
    """Remove temporary files whose writer is dead; those of others after an hour."""
    files: list[Path] = []
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        files = [folder / entry.name for entry in entries if TEMPORARY in entry.name]
    for file in files:
        mark = file.name.rpartition(TEMPORARY)[2]
        with suppress(FileNotFoundError):  # it was finished meanwhile
            lives = still_lives(mark)
            if lives is None:
                age_s = time.time() - file.stat().st_mtime
                lives = age_s <= _ABANDONED_AFTER_S
            if not lives:
                file.unlink()


def this_process() -> str:
    """Identify this process among those that share a store, as far as one can."""
    return f"{_machine()}-{os.getpid()}"


def still_lives(mark: str) -> bool | None:
    """Say whether a process lives; ``None``: it is another machine's.

    Args:
        mark: As ``this_process`` has given, with more behind it or not.
    """
    machine, _, rest = mark.partition("-")
    process = rest.partition("-")[0]
    if machine != _machine() or not process.isdigit():
        return None
    return bool(psutil.pid_exists(int(process)))


@functools.cache
def _machine() -> str:
    """Identify this machine since it was started, among those that share a disk."""
    told = f"{platform.node()} {psutil.boot_time():.0f}"
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)
