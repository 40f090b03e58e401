"""What the folds said at their training counts as long as they would say it now."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from csfd_core.learning.splits import Split
from csfd_core.registry import contest

NOW = pd.DataFrame(
    {
        "study_uid": ["1.2.1", "1.2.1", "1.2.2"],
        "level": ["C1", "C2", "C1"],
        "content_hash": ["a", "a", "b"],
    }
)
CUT_AS_NOW = {"1.2.1": "a", "1.2.2": "b"}


def fold(
    *said: tuple[str, str],
    cut: dict[str, str] | None = CUT_AS_NOW,
    manifest: str = "now",
    group: Split = Split.TEST,
) -> Any:
    """A fold that gave logits to some levels of some studies."""
    rows = [(uid, level, group, 0.5) for uid, level in said]
    rows.append(("1.2.2", "C7", group, np.nan))  # a level that it could not see
    columns = ["study_uid", "level", "group", "logit"]
    card = SimpleNamespace(test_studies=cut, manifest=manifest)
    return SimpleNamespace(card=card, predictions=pd.DataFrame(rows, columns=columns))


FIRST = (("1.2.1", "C1"), ("1.2.1", "C2"))
ALL = (*FIRST, ("1.2.2", "C1"))


@pytest.mark.parametrize(
    ("folds", "holding"),
    [
        ([fold(*ALL)], {"1.2.1", "1.2.2"}),
        ([fold(*ALL), fold(*FIRST)], {"1.2.1"}),  # every fold must have said it
        ([fold(*ALL[1:])], {"1.2.2"}),  # not of a level that is there now
        ([fold(*ALL, ("1.2.2", "C3"))], {"1.2.1"}),  # nor of one that is gone
        ([fold(*ALL, group=Split.VALIDATION)], set()),
        ([fold(*ALL, cut={**CUT_AS_NOW, "1.2.1": "c"})], {"1.2.2"}),
        ([fold(*ALL, cut={"1.2.1": "a"})], {"1.2.1"}),
        ([fold(*ALL, cut=None)], {"1.2.1", "1.2.2"}),  # an older card
        ([fold(*ALL, cut=None, manifest="before")], set()),
    ],
)
def test_studies_hold_of_which_every_fold_would_say_the_same(
    folds: list[Any], holding: set[str]
) -> None:
    manifest: Any = SimpleNamespace(inputs="now")
    assert contest._still_hold(NOW, folds, manifest) == holding
