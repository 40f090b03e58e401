"""Locks by name: of an upload."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final


class NamedLocks:
    """One lock for each name, as long as somebody holds it or waits for it."""

    def __init__(self) -> None:
        """Begin with none."""
        self._guard = threading.Lock()
        self._locks: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def hold(self, *names: str) -> Iterator[None]:
        """Hold the locks of several names; in one order, so that nobody waits for ever.

        Args:
            names: Of what nobody else may change meanwhile.
        """
        with ExitStack() as stack:
            for name in sorted(set(names)):
                stack.enter_context(self._one(name))
            yield

    @contextmanager
    def _one(self, name: str) -> Iterator[None]:
        with self._guard:
            lock, users = self._locks.get(name, (threading.Lock(), 0))
            self._locks[name] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, users = self._locks.pop(name)
                if users > 1:
                    self._locks[name] = (lock, users - 1)


LOCKS: Final = NamedLocks()
