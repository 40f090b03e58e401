"""Moments as a page tells them."""

import time
from datetime import UTC, datetime
from typing import Final

_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"))


def ago(moment: float, now: float | None = None) -> str:
    """Return how long ago something was: ``just now``, ``5 min``, ``3 h``, ``2 d``."""
    seconds = (time.time() if now is None else now) - moment
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "just now"


def iso_day_and_time(text: str) -> str:
    """Return a moment that was written in ISO 8601 as ``day_and_time`` does."""
    return day_and_time(datetime.fromisoformat(text).timestamp())


def day_and_time(moment: float) -> str:
    """Return a moment in UTC: ``2026-11-27 23:40``."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M")
