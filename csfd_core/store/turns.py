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


@contextmanager
def one_writer(location: Location, path: str) -> Iterator[None]:
    """Hold the turn to change a file; others wait.

    Raises:
        SourceError: If the place cannot be written.
    """
    mark = f"{this_process()}-{uuid.uuid4().hex}".encode()
    turn = f"{path}{_SUFFIX}"
    seen, since = None, time.monotonic()
    while not location.write_new(turn, mark):
        holder = _read(location, turn)
        if holder is None:
            continue
        if holder != seen:
            seen, since = holder, time.monotonic()
        waited_s = time.monotonic() - since
        if still_lives(holder.decode()) is False or waited_s > _PATIENCE_S:
            location.remove(turn)
        else:
            time.sleep(_POLL_S)
    try:
        yield
    finally:
        if _read(location, turn) == mark:  # else it took too long
            location.remove(turn)


def _read(location: Location, path: str) -> bytes | None:
    """Return who has the turn; ``None``: nobody any more."""
    try:
        return location.read(path)
    except SourceError:
        if location.exists(path):
            raise
        return None
