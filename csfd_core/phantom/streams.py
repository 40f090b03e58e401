"""Random streams: one per seed, study and purpose.

A change in how one purpose draws leaves all others as they were, so that a study with
and without its fractures is the same neck with the same noise.
"""

import zlib

import numpy as np


def open_stream(seed: int, index: int, purpose: str) -> np.random.Generator:
    """Return the generator of one purpose of one study."""
    key = zlib.crc32(purpose.encode("ascii"))
    return np.random.default_rng(np.random.SeedSequence([seed, index, key]))
