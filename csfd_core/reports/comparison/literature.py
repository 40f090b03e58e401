"""What others measured, on other data: context, never a score of this project."""

from typing import Final

import pandas as pd

_AJNR: Final = "Small et al., AJNR 2021;42:1341"
_RSNA: Final = "RSNA 2022 competition, its table of training labels"
_EXAMS: Final = "665 CT examinations of one centre"
_TABLE: Final = "2019 studies"
_ROWS: Final = (
    (_AJNR, "a convolutional network (Aidoc)", 0.76, 0.97, None, _EXAMS),
    (_AJNR, "radiologists", 0.93, 0.96, None, _EXAMS),
    (_RSNA, "0.5 for every label", None, None, 0.6931, _TABLE),
    (_RSNA, "each label's prevalence", None, None, 0.5638, _TABLE),
)


def literature_table() -> pd.DataFrame:
    """Return published numbers, each with where it was measured."""
    table = pd.DataFrame(
        _ROWS,
        columns=[
            "source", "what", "sensitivity", "specificity", "competition_log_loss",
            "measured_on",
        ],
    )  # fmt: skip
    numbers = ["sensitivity", "specificity", "competition_log_loss"]
    return table.astype(dict.fromkeys(numbers, float)).assign(measured_here="no")
