"""Looks every second whether a study has come in, and accepts it.

The page and the DICOM node both do: whichever runs.
"""

from typing import Final

from csfd_core.web.reception.reception import Reception
from csfd_core.web.repeating import Repeating

_LOOK_EVERY_S: Final = 1.0


def watcher_of(reception: Reception) -> Repeating:
    """Return what accepts the studies that come in."""
    return Repeating(reception.settle, _LOOK_EVERY_S, "cannot accept studies")
