"""The table of classifiers that a run ends with."""

import math

import pandas as pd
import pytest

from csfd_core.cli.console import print_models


def test_scores_have_three_digits_times_none_and_what_is_unknown_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    row = {
        "model": "resnet50",
        "weights": "none",
        "competition_log_loss": 0.61,
        "auc_vertebra": 0.71592,
        "auc_overall": math.nan,
        "f1": 0.4348,
        "sensitivity": 0.625,
        "specificity": 1.0,
        "train_s": 5.7,
        "ms_per_study": math.nan,
    }
    print_models(pd.DataFrame([row]), "phantom", 0.5765)
    printed = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "Classifiers on the locked test set of phantom data" in printed
    assert (
        "resnet50 random 0.610 0.716 undefined 0.435 0.625 1.000 6 undefined" in printed
    )
    assert "log loss of the prevalences alone: 0.577" in printed
