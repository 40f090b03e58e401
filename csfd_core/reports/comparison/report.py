"""The report on a comparison of classifiers: which is best, and how sure that is."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from csfd_core.classification.ensemble_predictions import Results, predictions_table
from csfd_core.evaluation.bootstrap import REPEATS
from csfd_core.reports.comparison.examples import Example
from csfd_core.reports.comparison.sections import build_sections
from csfd_core.reports.comparison.summary import Comparison, compare
from csfd_core.reports.page import Page, Written, to_csv, write_page
from csfd_core.store.locations import Location
from csfd_core.text import join

MODELS_CSV: Final = "models.csv"
PREDICTIONS_CSV: Final = "predictions.csv"


def write_report(
    location: Location,
    results: Results,
    facts: Mapping[str, Any],
    examples: Sequence[Example] = (),
    repeats: int = REPEATS,
) -> Written:
    """Compare, and write the page and its tables.

    Args:
        location: Of the report; ``index.html`` comes to lie in it.
        results: The folds of each model.
        facts: As ``build_report``.
        examples: Single vertebrae to show.
        repeats: Draws of the bootstrap that intervals and p-values rest on.

    Raises:
        StoreError: If there is no model.
        SourceError: If it cannot be written.
    """
    comparison = compare(results, facts, repeats)
    return write_comparison(location, comparison, facts, examples)


def write_comparison(
    location: Location,
    comparison: Comparison,
    facts: Mapping[str, Any],
    examples: Sequence[Example] = (),
) -> Written:
    """Write the page of a comparison, its figures and the tables of the contract."""
    location.write(MODELS_CSV, to_csv(comparison.models))
    location.write(PREDICTIONS_CSV, to_csv(predictions_table(comparison.results)))
    return write_page(location, to_page(comparison, facts, examples))


def build_report(
    results: Results,
    facts: Mapping[str, Any],
    examples: Sequence[Example] = (),
    repeats: int = REPEATS,
) -> Page:
    """Put the report together without writing it.

    Args:
        results: The folds of each model.
        facts: ``data_kind`` (phantom, mixed or real) of the test studies; any other
            entry is shown as it is in the head of the page.
        examples: Single vertebrae to show.
        repeats: Draws of the bootstrap that intervals and p-values rest on.

    Raises:
        StoreError: If there is no model.
    """
    return to_page(compare(results, facts, repeats), facts, examples)


def to_page(
    comparison: Comparison, facts: Mapping[str, Any], examples: Sequence[Example]
) -> Page:
    """Show a comparison that has been measured."""
    counts = comparison.models.iloc[0]
    folds = sorted({fold.fold for f in comparison.results.values() for fold in f})
    rest = [(str(k), str(v)) for k, v in facts.items() if k != "data_kind"]
    subjects = f"test {comparison.subject}s"
    return Page(
        title="Comparison of classifiers",
        banner=comparison.data_kind.banner,
        facts=(
            ("data", comparison.data_kind.described),
            ("models", join(list(comparison.results))),
            ("best", comparison.best or "not defined"),
            ("folds", join([str(fold) for fold in folds])),
            ("test studies, locked", str(counts["test_studies"])),
            (subjects, str(counts["test_patients"])),
            ("fractured test vertebrae", str(counts["test_fractures"])),
            *rest,
        ),
        sections=build_sections(comparison, examples),
    )
