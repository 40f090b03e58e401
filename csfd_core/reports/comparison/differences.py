"""Whether models differ by more than chance."""

from typing import Any, Final

import numpy as np
import pandas as pd

from csfd_core.classification.ensemble_predictions import (
    Results,
    predictions_on_test_set,
    rows_of,
    studies_of,
)
from csfd_core.classification.score_tables import (
    Statistic,
    auc_statistic,
    loss_statistic,
)
from csfd_core.evaluation.bootstrap import REPEATS, paired_difference

SIGNIFICANT: Final = 0.05
COLUMNS: Final = (
    "metric", "best", "model", "difference", "low", "high", "p", "p_holm",
)  # fmt: skip
_DOWN_IS_GOOD: Final = {"competition_log_loss": True, "auc_vertebra": False}


def differences_table(results: Results, repeats: int = REPEATS) -> pd.DataFrame:
    """Compare every model with the best, by competition log loss and by AUC.

    Args:
        results: The folds of each model.
        repeats: Draws of patients; each draw is scored for both models.

    Returns:
        One row per metric and model that is not the best of that metric:
        ``difference`` is the model minus the best, with its 95 % interval; ``p`` is
        two-sided; ``p_holm`` is corrected for the number of models compared. As the
        same test set chose the best, both are somewhat too small.

    Source: Holm, Scand J Stat 1979;6:65.
    """
    predictions = predictions_on_test_set(results)
    models = [str(model) for model in predictions["model"].unique()]
    rows: list[dict[str, Any]] = []
    for metric, is_down_good in _DOWN_IS_GOOD.items():
        measured = {model: _statistic(predictions, model, metric) for model in models}
        values = {
            model: statistic(np.arange(len(patients)))
            for model, (patients, statistic) in measured.items()
            if len(patients)
        }
        defined = {model: v for model, v in values.items() if not np.isnan(v)}
        if not defined:
            continue
        sign = 1 if is_down_good else -1
        best = min(defined, key=lambda model: (sign * defined[model], model))
        rest = [model for model in defined if model != best]
        differences = [
            paired_difference(*measured[model], measured[best][1], repeats=repeats)
            for model in rest
        ]
        corrected = holm([difference.p_value for difference in differences])
        rows += [
            {
                "metric": metric,
                "best": best,
                "model": model,
                "difference": difference.estimate,
                "low": difference.low,
                "high": difference.high,
                "p": difference.p_value,
                "p_holm": p_holm,
            }
            for model, difference, p_holm in zip(
                rest, differences, corrected, strict=True
            )
        ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def holm(p_values: list[float]) -> list[float]:
    """Correct p-values of several comparisons, step by step from the smallest.

    A NaN stays NaN and counts as a comparison.
    """
    corrected = [float("nan")] * len(p_values)
    highest = 0.0
    defined = [index for index, p in enumerate(p_values) if not np.isnan(p)]
    for rank, index in enumerate(sorted(defined, key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, p_values[index] * (len(p_values) - rank)))
        corrected[index] = highest
    return corrected


def _statistic(
    predictions: pd.DataFrame, model: str, metric: str
) -> tuple[Any, Statistic]:
    """Return the patients of a model's rows, and a metric of drawn rows."""
    if metric == "competition_log_loss":
        studies = studies_of(predictions, model)
        return studies.patients, loss_statistic(studies)
    rows = rows_of(predictions, model, "vertebra")
    return rows.patients, auc_statistic(rows)
