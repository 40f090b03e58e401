"""What an earlier call has left in the folder of the results, and what of it holds.

A result holds while the study's files, the models and the form of the JSON are the
same; then a second call goes on where the first was stopped.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MADE_FROM = "made_from"  # of a result: all that it follows from but the files
CONTENT = "content_hash"  # identity of the files that it was made from


@dataclass(frozen=True, slots=True)
class Earlier:
    """Results that need not be made again, by the name of their files."""

    notes: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(
        cls, out: Path, made_from: Mapping[str, Any], endings: Sequence[str]
    ) -> "Earlier":
        """Read the results of a folder, which need not be there.

        Args:
            out: The folder.
            made_from: What results would be made from now.
            endings: Of the names of files that must lie beside each result.
        """
        notes = {}
        for path in sorted(out.glob("*.json")):
            note = _read(path)
            beside = (path.with_name(path.stem + ending) for ending in endings)
            if note.get(MADE_FROM) == made_from and all(
                file.is_file() for file in beside
            ):
                notes[path.stem] = note
        return cls(notes)

    def contents(self) -> dict[str, str]:
        """Return the identity of the content that each result was made from."""
        return {name: str(note.get(CONTENT)) for name, note in self.notes.items()}


def _read(path: Path) -> dict[str, Any]:
    """Return a result; nothing where the file is something else."""
    try:
        note = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
