"""What a process has opened and keeps for the next study: networks above all.

A Dask worker lives longer than one run. It opens a model at the first study that needs
it; a model that was trained anew has another key, and the oldest one goes.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Final, TypeVar

T = TypeVar("T")
_MOST: Final = 4  # a network of the full profile takes a gigabyte and more

_cached: OrderedDict[Hashable, Any] = OrderedDict()
_opening = threading.RLock()


def cached(key: Hashable, build: Callable[[], T]) -> T:
    """Return what belongs to a key; build it once, also where threads ask at once.

    Args:
        key: Names what is built, and all that it follows from.
        build: Called where it is not there, or no more.
    """
    with _opening:
        if key not in _cached:
            _cached[key] = build()
            while len(_cached) > _MOST:
                _cached.popitem(last=False)
        _cached.move_to_end(key)
        value: T = _cached[key]
        return value


def cached_keys() -> list[Hashable]:
    """Return the keys of what is kept, the one that was used last at the end."""
    with _opening:
        return list(_cached)
