"""Whether a text is a time of cron: minute, hour, day, month, day of the week.

Dagster is stricter in nothing (``tests/test_cron.py``), but says what is wrong only
when the definitions load, and not which setting it came from.
"""

import re
from typing import Final

_NICKNAMES: Final = frozenset(
    ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
)
_MONTHS: Final = "janfebmaraprmayjunjulaugsepoctnovdec"
_DAYS: Final = "sunmontuewedthufrisat"
_RANGES: Final = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))  # of the five fields
_LONGEST: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # days of a month
_NAMES: Final = {
    3: {_MONTHS[3 * i : 3 * i + 3]: str(i + 1) for i in range(12)},
    4: {_DAYS[3 * i : 3 * i + 3]: str(i) for i in range(7)},
}
_PART: Final = re.compile(r"(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:/(\d{1,2}))?")


def is_cron(text: str) -> bool:
    """Say whether a text is a time of cron that comes at all.

    Five fields of numbers, ranges, steps and lists, months and days of the week also by
    name; or a nickname such as ``@daily``. The 31st of February never comes, and a step
    that leads past the end (``*/90`` minutes) comes more often than it says: refused.
    """
    if text in _NICKNAMES:
        return True
    fields = text.lower().split()
    if len(fields) != len(_RANGES):
        return False
    values = [_values(field, place) for place, field in enumerate(fields)]
    if not all(values):
        return False
    _, _, days, months, _ = values
    return min(days) <= max(_LONGEST[month - 1] for month in months)


def _values(field: str, place: int) -> set[int]:
    """Return what one field stands for; nothing where it cannot be read."""
    low, high = _RANGES[place]
    found: set[int] = set()
    for part in field.split(","):
        for name, number in _NAMES.get(place, {}).items():
            part = re.sub(rf"\b{name}\b", number, part)
        match = _PART.fullmatch(part)
        if match is None:
            return set()
        first, last, step = match.groups()
        start = low if first is None else int(first)
        open_ended = first is None or (last is None and step is not None)
        end = high if open_ended else int(last or start)
        width = int(step or 1)
        is_stepped = step is not None or last is not None  # 0-0 is no range to Dagster
        if not low <= start <= end <= high or (is_stepped and not 1 <= width <= end):
            return set()
        found.update(range(start, end + 1, width))
    return found
