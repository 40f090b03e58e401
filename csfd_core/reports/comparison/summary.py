"""Everything that a report on a comparison shows, measured once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from csfd_core.classification.card import WHATS
from csfd_core.classification.classifier_store import FoldResult
from csfd_core.classification.ensemble_predictions import (
    Results,
    Rows,
    leaked_studies,
    left_out_studies,
    predictions_on_test_set,
    rows_of,
)
from csfd_core.classification.score_tables import (
    PREVALENCE,
    answers_table,
    best_model,
    confusion_table,
    folds_summary,
    folds_table,
    levels_table,
    models_table,
    reference_table,
)
from csfd_core.data_kind import DataKind
from csfd_core.errors import StoreError
from csfd_core.evaluation.bootstrap import REPEATS
from csfd_core.reports.comparison.differences import differences_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Models side by side on the locked test set.

    Attributes:
        data_kind: ``mixed`` also where models and report rest on different kinds.
        results: The folds of each model that has any.
        predictions: As ``predictions_on_test_set`` returns.
        best: Lowest competition log loss; ``None`` where none is defined.
        left_out: Test studies that cannot be compared.
        leaked: Test studies that some fold was trained or calibrated on.
    """

    data_kind: DataKind
    results: Mapping[str, Sequence[FoldResult]]
    predictions: pd.DataFrame
    models: pd.DataFrame
    references: pd.DataFrame
    differences: pd.DataFrame
    levels: pd.DataFrame
    confusion: pd.DataFrame
    answers: pd.DataFrame
    folds: pd.DataFrame
    folds_summary: pd.DataFrame
    best: str | None
    left_out: Sequence[str]
    leaked: Sequence[str]

    @property
    def subject(self) -> str:
        """Return what was scanned: a patient, a phantom, or either."""
        return self.data_kind.subject

    @property
    def beats_prevalences(self) -> bool:
        """Say whether the best has a lower loss than the prevalences alone."""
        losses = self.models.set_index("model")["competition_log_loss"]
        baseline = self.references.set_index("reference")["competition_log_loss"]
        return self.best is not None and bool(losses[self.best] < baseline[PREVALENCE])

    def rows(self) -> dict[str, dict[str, Rows]]:
        """Return the labelled vertebrae and studies of each model."""
        return {
            model: {what: rows_of(self.predictions, model, what) for what in WHATS}
            for model in self.results
        }


def compare(
    results: Results, facts: Mapping[str, Any], repeats: int = REPEATS
) -> Comparison:
    """Measure all that a report shows.

    Args:
        results: The folds of each model.
        facts: Of the data; ``data_kind`` is required.
        repeats: Draws of the bootstrap.

    Raises:
        StoreError: If there is no model.
    """
    trained = {model: list(folds) for model, folds in results.items() if folds}
    if not trained:
        raise StoreError(
            "There is no trained classifier to compare. Materialize basic_cnn or "
            "another classifier first."
        )
    models = models_table(trained, repeats)
    folds = folds_table(trained)
    return Comparison(
        data_kind=_data_kind(trained, facts),
        results=trained,
        predictions=predictions_on_test_set(trained),
        models=models,
        references=reference_table(trained),
        differences=differences_table(trained, repeats),
        levels=levels_table(trained),
        confusion=confusion_table(trained),
        answers=answers_table(trained),
        folds=folds,
        folds_summary=folds_summary(folds),
        best=best_model(models),
        left_out=left_out_studies(trained),
        leaked=leaked_studies(trained),
    )


def _data_kind(results: Results, facts: Mapping[str, Any]) -> DataKind:
    """Return the kind of all data involved: no phantom passes for real."""
    cards = [fold.card for folds in results.values() for fold in folds]
    return DataKind.joined([facts["data_kind"], *(card.data_kind for card in cards)])
