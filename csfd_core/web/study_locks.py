"""Locks of studies, held by one thread of one process on this machine at a time.

The page and the DICOM node may accept slices of one study at the same moment; both
would count what lies in the inbox, and one of them would be wrong. What is locked are
files (``flock``), so that a process that is killed holds nothing.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from csfd_core.settings import Settings

_FILES: Final = 64  # studies share them, so that they do not grow in number


@contextmanager
def hold_studies(settings: Settings, *study_uids: str) -> Iterator[None]:
    """Hold the locks of studies; in one order, so that nobody waits for ever.

    Args:
        settings: Where ``CSFD_HOME`` is.
        study_uids: Of which nobody else may change what lies in the inbox.
    """
    folder = settings.home / "data" / "locks"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    held: list[int] = []
    try:
        for number in sorted({_number_of(uid) for uid in study_uids}):
            path = folder / f"studies-{number:02d}"
            held.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            fcntl.flock(held[-1], fcntl.LOCK_EX)
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)


def _number_of(study_uid: str) -> int:
    return hashlib.sha256(study_uid.encode()).digest()[0] % _FILES
