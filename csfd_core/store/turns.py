"""One writer at a time of a file that several change, as the table of studies is.

``<path>.turn`` is there while somebody reads the file, changes it and writes it again.
Its content names who; what one has left that was killed is removed by the next. It
keeps two from losing each other's rows, and only that: whoever needs the file right
looks whether it is current.

Between the look at a turn and its removal it may be given back and taken by a third,
whose turn would be removed. So whoever removes what others may remove as well takes a
turn for that, and looks again.
"""

import hashlib
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

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
    with _turn(location, f"{path}{_SUFFIX}"):
        yield


@contextmanager
def _turn(location: Location, turn: str) -> Iterator[None]:
    mark = f"{this_process()}-{uuid.uuid4().hex}".encode()
    _held.add(mark)
    try:
        _take(location, turn, mark)
        since = time.monotonic()
        try:
            yield
        finally:
            if time.monotonic() - since < _PATIENCE_S / 2:
                location.remove(turn)  # nobody else would by now
            else:
                _remove(location, turn, mark)
    finally:
        _held.discard(mark)


def _take(location: Location, turn: str, mark: bytes) -> None:
    """Wait for a turn, and take it."""
    seen, since = None, time.monotonic()
    while not location.write_new(turn, mark):
        holder = location.read_if_there(turn)
        if holder is None:
            continue
        if holder != seen:
            seen, since = holder, time.monotonic()
        if _is_left(holder) or time.monotonic() - since > _PATIENCE_S:
            _remove(location, turn, holder)
        else:
            time.sleep(_POLL_S)


def _remove(location: Location, turn: str, mark: bytes) -> None:
    """Remove the turn of one alone, not that of whoever took it next."""
    digest = hashlib.sha256(mark).hexdigest()[:16]
    with _turn(location, f"{turn}-{digest}"):
        if location.read_if_there(turn) == mark:
            location.remove(turn)


def _is_left(holder: bytes) -> bool:
    """Say whether who has the turn was killed, or could not give it back."""
    process = holder.decode().rpartition("-")[0]
    if process == this_process():
        return holder not in _held
    return still_lives(process) is False
