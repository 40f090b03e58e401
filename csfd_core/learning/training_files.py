"""Files of a trained model, kept so that a reader never sees those of two trainings.

Each training writes files that no other has the names of. The card, written last and in
one step, says which they are; whoever has read a card finds what belongs to it. The
files that a card has replaced stay until the training after the next one, so that
whoever reads them meanwhile has them whole.
"""

import json
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final, TypeVar

from csfd_core.learning.card import ModelCard, age_of, new_mark
from csfd_core.store.locations import Location

CardT = TypeVar("CardT", bound=ModelCard)
# Of files that no card names: their training may still be writing, or was killed.
_GRACE_S: Final = 24 * 3600.0
_MARKED: Final = re.compile(r"(.+)-([0-9]{8}T[0-9]{6}-[0-9a-f]{8})")


def keep_training(
    location: Location, card_file: str, card: CardT, files: Mapping[str, bytes]
) -> CardT:
    """Write a trained model in place of the one before; return its card as written.

    Args:
        location: Of the model: its fold.
        card_file: Name of the card.
        card: What belongs to the files.
        files: Content by kind, as ``weights.npz``.
    """
    card = card.model_copy(update={"files_mark": new_mark()})
    for kind, content in files.items():
        location.write(card.file_name(kind), content)
    replaced = _mark_in(location, card_file)
    location.write(card_file, card.to_json())
    if replaced is not None:
        _remove_older(location, set(files), {card.files_mark, replaced})
    return card


def _mark_in(location: Location, card_file: str) -> str | None:
    """Return the mark that a card names; ``None``: there is no card that says it."""
    content = location.read_if_there(card_file)
    if content is None:
        return None
    try:
        return str(json.loads(content).get("files_mark", ""))
    except (ValueError, AttributeError):
        return None


def _remove_older(location: Location, kinds: set[str], named: set[str]) -> None:
    for entry in location.entries():
        path = PurePosixPath(entry.name)
        match = _MARKED.fullmatch(path.stem)
        stem, mark = match.groups() if match else (path.stem, "")
        is_ours = f"{stem}{path.suffix}" in kinds
        is_young = bool(mark) and age_of(mark) < _GRACE_S
        if is_ours and mark not in named and not is_young:
            location.remove(entry.path)
