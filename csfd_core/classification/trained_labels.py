"""What the labels of a study were when a classifier was trained on it.

One character per level, C1 to C7, as in ``0010--?``: the label that was used, ``?``
where the vertebra was found but had no label, ``-`` where it was left out. A card keeps
these words (``label_digests``), so that a correction can be told from what the model
has learnt.
"""

from collections.abc import Mapping
from typing import Final

import pandas as pd

from csfd_core.classification.manifest import NOT_LABELLED
from csfd_core.vocabulary import LEVEL_NAMES

UNLABELLED: Final = "?"
LEFT_OUT: Final = "-"


def label_words(rows: pd.DataFrame) -> dict[str, str]:
    """Return the word of each study.

    Args:
        rows: Of a manifest, all levels of the studies.
    """
    words: dict[str, list[str]] = {}
    columns = ("study_uid", "level", "label", "left_out")
    for uid, level, label, left_out in zip(*(rows[c] for c in columns), strict=True):
        word = words.setdefault(str(uid), [LEFT_OUT] * len(LEVEL_NAMES))
        if pd.isna(left_out):
            word[LEVEL_NAMES.index(level)] = str(int(label))
        elif left_out == NOT_LABELLED:
            word[LEVEL_NAMES.index(level)] = UNLABELLED
    return {uid: "".join(word) for uid, word in words.items()}


def is_corrected(word: str, labels: Mapping[str, int | None]) -> bool:
    """Say whether a training on today's labels would be another one.

    Args:
        word: Of the training, as ``label_words`` returns.
        labels: C1..C7 as they are today; ``None``: unlabelled.
    """
    for level, then in zip(LEVEL_NAMES, word, strict=True):
        now = UNLABELLED if labels[level] is None else str(labels[level])
        if then not in (LEFT_OUT, now):
            return True
    return False
