"""Is it current? What was made names what it was made from; both are compared here."""

import hashlib
import json
from typing import Any

from csfd_core.store.notes import Note


def stamp(facts: object) -> str:
    """Return the identity of facts: SHA-256 of their JSON, whatever the order of keys.

    What JSON does not know counts by its text.
    """
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def is_current(note: Note | None, **wanted: Any) -> bool:  # noqa: ANN401 - of any field
    """Say whether something was made from what is wanted now.

    Args:
        note: What it was made from; ``None``: it is not there.
        wanted: Fields of the note, as they would be if it were made again.
    """
    return note is not None and all(
        getattr(note, name) == value for name, value in wanted.items()
    )
