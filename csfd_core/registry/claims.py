"""Claims: who changes an alias next, decided in the store.

``models/champion/history/claims/<number>.json`` is a change that is going to be made.
Each number is taken by one alone (``Location.write_new``), who has seen all changes
before it carried out: so an alias changes only from what its claimant has seen. A claim
is carried out by whoever made it, or where that one has died, by whoever comes next.
"""

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from csfd_core.registry.history import Change, history_path, next_stamp
from csfd_core.store import paths
from csfd_core.store.atomic import still_lives, this_process
from csfd_core.store.locations import Location
from csfd_core.store.notes import Note

TURN: Final = threading.RLock()  # threads of one process change aliases in turn
_PATIENCE_S: Final = 30.0  # carrying out takes a second
_LONG_AGO: Final = timedelta(minutes=10)  # whatever the clocks of machines say
_POLL_S: Final = 0.1


class Claim(Note):
    """A change that is going to be made, and nobody else's.

    Attributes:
        number: 1 is the first.
        stamp: Orders it in the history, in nanoseconds.
        process: Who carries it out.
    """

    number: int
    stamp: int
    process: str
    change: Change

    @property
    def is_carried_out_at(self) -> str:
        """Path of the change in the history, where it is once it was made."""
        return history_path(self.stamp, self.change)


def last_number(root: Location) -> int:
    """Return the number of the last claim, 0 where there is none."""
    names = [entry.name for entry in root.entries(paths.CHAMPION_CLAIMS)]
    return max((int(name.removesuffix(".json")) for name in names), default=0)


def read_claim(root: Location, number: int) -> Claim:
    """Return a claim.

    Raises:
        SourceError: If there is none.
    """
    path = _path(number)
    return Claim.read(json.loads(root.read(path)), path)


def make_claim(root: Location, number: int, change: Change) -> Claim | None:
    """Claim a change; ``None``: another one has this number."""
    claim = Claim(
        number=number, stamp=next_stamp(root), process=this_process(), change=change
    )
    return claim if root.write_new(_path(number), claim.to_bytes()) else None


def wait_for(claim: Claim, is_done: Callable[[], bool]) -> bool:
    """Give who carries out a claim the time to do so; say whether it was done.

    The caller has the turn of this process: so a claim of it is nobody's any more.
    """
    is_old = datetime.now(UTC) - datetime.fromisoformat(claim.change.at) > _LONG_AGO
    deadline = time.monotonic() + (0 if is_old else _PATIENCE_S)
    while not (done := is_done()) and time.monotonic() < deadline:
        if claim.process == this_process() or still_lives(claim.process) is False:
            return is_done()
        time.sleep(_POLL_S)
    return done


def _path(number: int) -> str:
    return f"{paths.CHAMPION_CLAIMS}/{number:08d}.json"
