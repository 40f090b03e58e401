"""One writer at a time of a file that several change, as the table of studies is.

``<path>.turn`` is there while somebody reads the file, changes it and writes it again.
Its content names who; what one has left that was killed is removed by the next. It
keeps two from losing each other's rows, and only that: whoever needs the file right
looks whether it is current.
"""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from csfd_core.errors import SourceError
from csfd_core.store.atomic import still_lives, this_process
from csfd_core.store.locations import Location

_SUFFIX: Final = ".turn"
_POLL_S: Final = 0.05
_PATIENCE_S: Final = 60.0  # with one of another machine; a turn takes a second
_held: set[bytes] = set()  # turns of this process


@contextmanager
def one_writer(location: Location, path: str) -> Iterator[None]:
    """Hold the turn to change a file; others wait.

    Raises:
        SourceError: If the place cannot be written.
    """
    mark = f"{this_process()}-{uuid.uuid4().hex}".encode()
    turn = f"{path}{_SUFFIX}"
    _held.add(mark)
    try:
        _take(location, turn, mark)
        try:
            yield
        finally:
            if _read(location, turn) == mark:  # else it took too long
                location.remove(turn)
    finally:
        _held.discard(mark)


def _take(location: Location, turn: str, mark: bytes) -> None:
    """Wait for a turn, and take it."""
    seen, since = None, time.monotonic()
    while not location.write_new(turn, mark):
        holder = _read(location, turn)
        if holder is None:
            continue
        if holder != seen:
            seen, since = holder, time.monotonic()
        if _is_left(holder) or time.monotonic() - since > _PATIENCE_S:
            location.remove(turn)
        else:
            time.sleep(_POLL_S)


def _is_left(holder: bytes) -> bool:
    """Say whether who has the turn was killed, or could not give it back."""
    process = holder.decode().rpartition("-")[0]
    if process == this_process():
        return holder not in _held
    return still_lives(process) is False


def _read(location: Location, path: str) -> bytes | None:
    """Return who has the turn; ``None``: nobody any more."""
    try:
        return location.read(path)
    except SourceError:
        if location.exists(path):
            raise
        return None
