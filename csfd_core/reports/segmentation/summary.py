"""Scores and report of the models in a store, on the studies they have not seen."""

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from csfd_core.learning.splits import Split
from csfd_core.reports.page import INDEX, Written
from csfd_core.reports.segmentation.figures import Example, side_view
from csfd_core.reports.segmentation.measure import (
    GivenMask,
    Scores,
    score_studies,
)
from csfd_core.reports.segmentation.report import Reported, write_report
from csfd_core.segmentation.config import SegmentationProfile
from csfd_core.segmentation.fit import Fit, is_current, plan_fit
from csfd_core.segmentation.masks import MaskMaker
from csfd_core.segmentation.model_store import ModelStore
from csfd_core.store import paths
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import FOLD_COUNT

REPORT_VERSION: Final = 2  # raised when the same models must be reported again
_NOTE: Final = "report.json"
# Studies of a fold, and of the test set; enough for the intervals, and minutes instead
# of hours.
_MOST_SCORED: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What is reported of the models."""

    scores: Scores
    written: Written
    location: Location


def report_location(stores: Stores) -> Location:
    """Return where the report lies."""
    return stores.root.join(paths.SEGMENTATION_REPORT)


def reported_fits(
    stores: Stores, settings: SegmentationProfile, folds: Collection[int]
) -> list[Fit]:
    """Return the trainings that a report is about.

    Those without some folds, and those of other folds whose model the store holds and
    which would be trained from the same today.
    """
    fits = [plan_fit(stores, settings, fold) for fold in range(FOLD_COUNT)]
    return [fit for fit in fits if fit.fold in folds or is_current(stores, fit)]


def is_reported(stores: Stores, fits: Sequence[Fit]) -> bool:
    """Say whether the report is the one on these models and studies."""
    location = report_location(stores)
    content = location.read_if_there(_NOTE)
    if content is None or not location.exists(INDEX):
        return False
    note = json.loads(content)
    return bool(note.get("inputs") == _inputs(stores, fits))


def evaluate_models(stores: Stores, fits: Sequence[Fit]) -> Evaluation:
    """Score the models of some folds together, and write one report on them.

    Each held-out study is predicted by the model of its fold, the locked test studies
    by that of the first fold.

    Args:
        stores: Hold the models.
        fits: Of each fold whose model takes part.
    """
    fits = sorted(fits, key=lambda fit: fit.fold)
    cards = ModelStore(stores.root).cards()
    models = {fit.fold: cards[fit.fold] for fit in fits}
    maker = MaskMaker(stores, models)
    wanted, left_out = _wanted(fits)
    scores = score_studies(_given(stores, maker, wanted), maker.predict)
    examples = [_example(stores, maker, uid, title) for title, uid in _chosen(scores)]
    reported = Reported(
        scores=scores,
        models=models,
        data_kind=stores.metadata.read_data_kind(),
        left_out=left_out,
    )
    location = report_location(stores)
    written = write_report(location, reported, examples)
    note = {
        "inputs": _inputs(stores, fits),
        "models": {str(fold): card.model_id for fold, card in models.items()},
    }
    location.write(_NOTE, (json.dumps(note, indent=2) + "\n").encode())
    return Evaluation(scores=scores, written=written, location=location)


def _wanted(fits: Sequence[Fit]) -> tuple[list[tuple[str, Split]], int]:
    """Return the studies to score with their group, and how many are left out."""
    test = {uid: None for fit in fits for uid, _, _ in fit.split.test}
    groups = [
        (Split.VALIDATION, [uid for uid, _, _ in fit.split.validation]) for fit in fits
    ]
    groups.append((Split.TEST, list(test)))
    wanted = [(uid, group) for group, uids in groups for uid in uids[:_MOST_SCORED]]
    return wanted, sum(len(uids) for _, uids in groups) - len(wanted)


def _inputs(stores: Stores, fits: Sequence[Fit]) -> str:
    """Identify what a report rests on."""
    facts: list[Any] = [REPORT_VERSION, stores.metadata.read_data_kind()]
    facts += sorted([fit.fold, fit.inputs, fit.split.test] for fit in fits)
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _given(
    stores: Stores, maker: MaskMaker, wanted: Sequence[tuple[str, Split]]
) -> Iterator[GivenMask]:
    for study_uid, group in wanted:
        note = stores.masks.read_note(study_uid)
        assert note is not None
        yield GivenMask(
            study_uid=study_uid,
            group=group,
            fold=maker.choice(study_uid).fold,
            mask=stores.masks.read_volume(study_uid),
            spacing_zyx_mm=note.geometry.spacing_zyx_mm,
        )


def _chosen(scores: Scores) -> list[tuple[str, str]]:
    """Return the best, median and worst study, as far as there are as many."""
    scored = scores.studies.dropna(subset=["dice"])
    ordered = scored.sort_values(["dice", "study_uid"], ascending=False)
    uids = ordered["study_uid"].tolist()
    if not uids:
        return []
    last = len(uids) - 1
    ranks = {"best": 0, "median": last // 2, "worst": last}
    chosen: dict[str, str] = {}
    for title, rank in ranks.items():
        if uids[rank] not in chosen.values():
            chosen[title] = uids[rank]
    return list(chosen.items())


def _example(stores: Stores, maker: MaskMaker, study_uid: str, title: str) -> Example:
    note = stores.masks.read_note(study_uid)
    assert note is not None
    masks = (maker.predict(study_uid).mask, stores.masks.read_volume(study_uid))
    grey = stores.slices.read_volume(study_uid)
    return side_view(title, grey, masks, note.geometry.affine())
