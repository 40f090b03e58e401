"""What a reader must know of the names of the vertebrae, also while they read blind.

Levels are signed by the names that stand in the images, so doubts about these are told
in any case. Only sentences that are known to be of names pass: nothing else that is
said of a study gets through, whatever is added to it.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from csfd_core.segmentation.columns import TWO_NECKS
from csfd_core.text import agree, join
from csfd_core.vocabulary import LEVEL_NAMES

_NAME: Final = "C[1-7]"
_OF_NAMES: Final = re.compile(
    "|".join(
        (
            f"{_NAME} does not lie below {_NAME}",
            f"{_NAME}(, {_NAME})* is missing between its neighbours",
            f"{_NAME} and {_NAME} are [0-9]+ mm apart",
            f"{_NAME} is small beside the other levels; they may be shifted",
            f"Nothing was found (above|below) {_NAME}, though the scan goes on",
            f"The scan begins at {_NAME} and ends at {_NAME}: with neither end of the "
            "neck in view, levels may be shifted",
        )
    )
)
_NOTHING_FOUND: Final = "No cervical vertebra was found in the scan."


def naming_of(note: Mapping[str, Any]) -> list[str]:
    """Return what is doubtful of the names of the vertebrae, a sentence each.

    Args:
        note: A prediction.
    """
    told = note["needs_eyes"]
    missing = [name for name in LEVEL_NAMES if name in note["not_assessed"]]
    if len(missing) == len(LEVEL_NAMES):
        return [TWO_NECKS if TWO_NECKS in told else _NOTHING_FOUND]
    doubts = [one for one in told if _OF_NAMES.fullmatch(one.removesuffix("."))]
    if not missing:
        return doubts
    were = agree(len(missing), "was", "were")
    first = f"{join(missing)} {were} not assessed: not found, or hardly in the scan."
    return [first, *doubts]
