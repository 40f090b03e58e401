"""Random choices that are the same everywhere, on every run.

Studies are ranked by a digest of their UID: adding a study does not change the order of
the others, and no generator has a state that someone else could move.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

import numpy as np

_SEED: Final = "csfd-eda-0"


def ranked(names: Iterable[str], purpose: str) -> list[str]:
    """Return names in an order that looks random; another one for each purpose."""
    return sorted(names, key=lambda name: (_digest(purpose, name), name))


def generator(purpose: str, name: str = "") -> np.random.Generator:
    """Return a generator seeded by what it is for."""
    return np.random.default_rng(int.from_bytes(_digest(purpose, name)[:8], "big"))


def _digest(purpose: str, name: str) -> bytes:
    return hashlib.sha256(f"{_SEED}:{purpose}:{name}".encode()).digest()
