"""Something that is looked at again and again, in a thread of its own."""

import logging
import threading
from collections.abc import Callable
from typing import Final

import sqlalchemy as sa

from csfd_core.errors import CsfdError

_PATIENCE_S: Final = 10.0  # for a look that is under way when it is to end
_log = logging.getLogger(__name__)


class Repeating:
    """Looks from ``start`` until ``stop``; a look that fails does not end it."""

    def __init__(
        self,
        look: Callable[[], object],
        every_s: float,
        complaint: str,
        *,
        is_due_at_once: bool = False,
    ) -> None:
        """Take what is done.

        Args:
            look: Done each time.
            every_s: Seconds between two looks.
            complaint: What the log says when it fails, until it has succeeded again.
            is_due_at_once: The first look is not waited for.
        """
        self._look = look
        self._every_s = every_s
        self._complaint = complaint
        self._first_s = 0.0 if is_due_at_once else every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._repeat, daemon=True)

    @property
    def is_stopped(self) -> bool:
        """Whether it ends; who waits for what it finds ends as well."""
        return self._ended.is_set()

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End, once a look that is under way is done."""
        self._ended.set()
        self._thread.join(timeout=_PATIENCE_S)

    def _repeat(self) -> None:
        wait_s, is_told = self._first_s, False
        while not self._ended.wait(wait_s):
            wait_s = self._every_s
            try:
                self._look()
                is_told = False
            except (CsfdError, sa.exc.SQLAlchemyError, OSError) as error:
                if not is_told:  # once, not each time
                    _log.warning("%s: %s", self._complaint, type(error).__name__)
                is_told = True
