"""Scores and report of the models in a store, on the studies they have not seen."""

from dataclasses import dataclass
from typing import Any

from csfd_core.reports.page import Written
from csfd_core.segmentation.evaluate import GivenMask, Scores, score_studies
from csfd_core.segmentation.fit import Fit
from csfd_core.segmentation.masks import MaskMaker
from csfd_core.segmentation.reading import geometry_of
from csfd_core.segmentation.report import (
    FOLDER,
    Example,
    side_view,
    write_report,
)
from csfd_core.store.convert import Stores
from csfd_core.store.locations import Location

_MOST_SCORED = 40  # studies; enough for the intervals, and minutes instead of hours


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What is reported of a model."""

    scores: Scores
    written: Written
    location: Location


def evaluate_model(stores: Stores, fit: Fit, facts: dict[str, Any]) -> Evaluation:
    """Score a model on its held-out and locked studies, and write the report."""
    maker = MaskMaker(stores)
    wanted = [(uid, "validation") for uid, _, _ in fit.split.validation]
    wanted += [(uid, "test") for uid, _, _ in fit.split.test]
    given = [_given(stores, uid, group) for uid, group in wanted[:_MOST_SCORED]]
    scores = score_studies(given, maker.predict)
    examples = [_example(stores, maker, uid, title) for title, uid in _chosen(scores)]
    location = stores.root.join(FOLDER)
    shown = {**facts, "data_kind": stores.metadata.read_data_kind()}
    written = write_report(location, scores, shown, examples)
    return Evaluation(scores=scores, written=written, location=location)


def _given(stores: Stores, study_uid: str, group: str) -> GivenMask:
    note = stores.masks.read_note(study_uid)
    assert note is not None
    return GivenMask(
        study_uid=study_uid,
        group=group,
        mask=stores.masks.read_volume(study_uid),
        spacing_zyx_mm=geometry_of(note).spacing_zyx_mm,
    )


def _chosen(scores: Scores) -> list[tuple[str, str]]:
    """Return the best, median and worst study, as far as there are as many."""
    ordered = scores.studies.sort_values("dice", ascending=False)["study_uid"].tolist()
    if not ordered:
        return []
    last = len(ordered) - 1
    places = {"best": 0, "median": last // 2, "worst": last}
    chosen: dict[str, str] = {}
    for title, place in places.items():
        if ordered[place] not in chosen.values():
            chosen[title] = ordered[place]
    return list(chosen.items())


def _example(stores: Stores, maker: MaskMaker, study_uid: str, title: str) -> Example:
    note = stores.masks.read_note(study_uid)
    assert note is not None
    masks = (maker.predict(study_uid).mask, stores.masks.read_volume(study_uid))
    grey = stores.slices.read_volume(study_uid)
    return side_view(title, grey, masks, geometry_of(note).affine())
