"""The lowest and the highest of several named numbers, with all that share them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_EQUAL: Final = 1e-9  # what differs less differs by rounding alone


@dataclass(frozen=True, slots=True)
class Tied:
    """All names that share one number."""

    names: tuple[str, ...]
    value: float


@dataclass(frozen=True, slots=True)
class Extremes:
    """Both ends of several numbers."""

    least: Tied
    most: Tied
    count: int

    @classmethod
    def of(cls, names: Iterable[str], values: Iterable[float]) -> "Extremes | None":
        """Return the ends of named numbers; ``None`` where no number is defined."""
        pairs = [
            (n, v) for n, v in zip(names, values, strict=True) if not math.isnan(v)
        ]
        if not pairs:
            return None
        numbers = [v for _, v in pairs]
        least, most = (
            Tied(tuple(n for n, v in pairs if abs(v - end) < _EQUAL), end)
            for end in (min(numbers), max(numbers))
        )
        return cls(least, most, len(pairs))
