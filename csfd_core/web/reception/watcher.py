"""Looks every second whether a study has come in, and accepts it.

The page and the DICOM node both do: whichever runs.
"""

import logging
import threading
from typing import Final

import sqlalchemy as sa

from csfd_core.errors import CsfdError
from csfd_core.web.reception.reception import Reception

_LOOK_EVERY_S: Final = 1.0
_log = logging.getLogger(__name__)


class Watcher:
    """Looks from ``start`` until ``stop``."""

    def __init__(self, reception: Reception) -> None:
        """Take what is looked after."""
        self._reception = reception
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End, once a study that is being accepted was accepted."""
        self._ended.set()
        self._thread.join(timeout=10)

    def _watch(self) -> None:
        is_told = False
        while not self._ended.wait(_LOOK_EVERY_S):
            try:
                self._reception.settle()
                is_told = False
            except (CsfdError, sa.exc.SQLAlchemyError, OSError) as error:
                if not is_told:  # once, not every second
                    _log.warning("cannot accept studies: %s", type(error).__name__)
                is_told = True
