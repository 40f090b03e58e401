"""Work that the processes of a test run share: done by the first that asks for it."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Path:
    """Return a folder that ``make`` has filled, once for all workers of pytest-xdist.

    Tests read it only: what they change, they copy first. Should ``make`` fail, the
    next process that asks tries again in a folder of its own.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # of this run; each worker has a folder in it
    note = base / f"{name}.once"
    with note.open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.seek(0)
        made = held.read()
        if not made:
            folder = factory.mktemp(name)
            make(folder)
            made = str(folder)
            held.write(made)
    return Path(made)
