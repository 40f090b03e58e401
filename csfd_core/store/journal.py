"""What a move has copied so far, kept at its target so that it can be gone on with."""

import json
import threading
import time
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Final

from csfd_core.store.locations import Location
from csfd_core.store.moved import JOURNAL
from csfd_core.store.paths import of_fact

_FILES_AT_ONCE: Final = 512
_LONGEST_S: Final = 10.0  # that what was copied is not noted


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """One file that was copied.

    Attributes:
        path: Relative to both places.
        size_bytes: Its size.
        token: What it was known by at the origin.
        digest: Likewise, of its content.
        xxh3: Of the bytes that were read.
        here: Token that the target has to list, if the bytes arrived as they are.
    """

    path: str
    size_bytes: int
    token: str
    digest: str
    xxh3: str
    here: str


class Journal:
    """Notes of what was copied; several threads may add to them."""

    def __init__(self, target: Location) -> None:
        """Take the place that files are copied to."""
        self._target = target
        self._lock = threading.Lock()
        self._new: list[Copied] = []
        self._noted_at = time.monotonic()

    def __enter__(self) -> "Journal":
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Note what is not noted yet, also of a move that is cut off."""
        with self._lock:
            self._write()

    def add(self, copied: Copied) -> None:
        """Add a file."""
        with self._lock:
            self._new.append(copied)
            waited_s = time.monotonic() - self._noted_at
            if len(self._new) >= _FILES_AT_ONCE or waited_s > _LONGEST_S:
                self._write()

    def _write(self) -> None:
        if self._new:
            lines = "".join(f"{json.dumps(asdict(one))}\n" for one in self._new)
            self._target.write(of_fact(JOURNAL, ".jsonl"), lines.encode())
        self._new, self._noted_at = [], time.monotonic()


def read_journal(target: Location) -> dict[str, Copied]:
    """Return what was copied so far, by path; the last copy counts."""
    copies = {}
    for entry in target.find_here(JOURNAL)[0]:
        for line in target.read(entry.path).splitlines():
            copied = Copied(**json.loads(line))
            copies[copied.path] = copied
    return copies


def clear_journal(target: Location) -> None:
    """Remove all notes."""
    for entry in target.find_here(JOURNAL)[0]:
        target.remove(entry.path)
