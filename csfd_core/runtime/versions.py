"""Which versions of everything csfd runs with.

In a clone they are pinned by ``requirements.lock``. An installed csfd has no such file:
what is installed beside it says the same.
"""

import hashlib
from importlib.metadata import distributions
from pathlib import Path
from typing import Final

LOCK_FILE: Final = "requirements.lock"


def lock_text() -> str:
    """Return the lock file; without one, every installed package as ``name==version``.

    Several copies of a package may be on the path: the first is the one that is used.
    """
    lock = Path(__file__).resolve().parents[2] / LOCK_FILE
    if lock.exists():
        return lock.read_text("utf-8")
    versions: dict[str, str] = {}
    for package in distributions():
        versions.setdefault(package.name.lower().replace("_", "-"), package.version)
    return "".join(sorted(f"{name}=={version}\n" for name, version in versions.items()))


def lock_digest() -> str:
    """Return the SHA-256 of what pins or names the versions."""
    return hashlib.sha256(lock_text().encode()).hexdigest()
