"""Checks of predicted masks: of the studies of a run, or of all in the store.

``vertebra_masks`` fills them in for the studies that its run has made;
``store_audit`` for all.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import dagster as dg
import numpy as np

from csfd_core.evaluation.segmentation_metrics import dice_score
from csfd_core.segmentation.postprocess import is_plausible_volume
from csfd_core.store.notes import LevelNote, PredictedMaskNote
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES

_LEAST_DICE = 0.5  # against a given mask; less is another grid or another level
_COMPARED = 12  # studies of a run whose given masks are read
_NAMED = 5  # studies, as examples

Notes = Mapping[str, PredictedMaskNote]  # by study
Wrong = dict[str, list[str]]


def levels_are_found(notes: Notes) -> Wrong:
    """C1 to C7 are found wherever the scan goes on above and below."""
    return {
        uid: list(note.flags)
        for uid, note in notes.items()
        if _has_unexplained_gap(note.levels)
    }


def levels_follow_each_other(notes: Notes) -> Wrong:
    """Each level lies below the one before it."""
    wrong = {}
    for uid, note in notes.items():
        levels = note.levels
        heights = [
            levels[name].centre_zyx_mm[0] for name in LEVEL_NAMES if name in levels
        ]
        if any(b <= a for a, b in zip(heights, heights[1:], strict=False)):
            wrong[uid] = list(note.flags)
    return wrong


def volumes_are_plausible(notes: Notes) -> Wrong:
    """Every whole vertebra has the volume of one."""
    wrong = {
        uid: [
            f"{name} {level.volume_ml:.1f} ml"
            for name, level in note.levels.items()
            if not is_plausible_volume(level.volume_ml, is_cut=level.is_cut)
        ]
        for uid, note in notes.items()
    }
    return {uid: names for uid, names in wrong.items() if names}


_OF_NOTES: Final[tuple[Callable[[Notes], Wrong], ...]] = (
    levels_are_found,
    levels_follow_each_other,
    volumes_are_plausible,
)
_AGREE: Final = "masks_agree_with_given"


def mask_check_specs(asset: str) -> list[dg.AssetCheckSpec]:
    """Return the checks that ``check_masks`` fills in, for an asset."""
    agree = "Predicted and given masks of a study overlap, level by level."
    told = {**{c.__name__: str(c.__doc__) for c in _OF_NOTES}, _AGREE: agree}
    return [
        dg.AssetCheckSpec(name, asset=asset, description=description)
        for name, description in told.items()
    ]


def check_masks(stores: Stores, notes: Notes) -> list[dg.AssetCheckResult]:
    """Return the results of all checks of the masks of some studies.

    Args:
        stores: Where given and predicted masks are.
        notes: Of the predicted masks.
    """
    results = [_warn(check.__name__, check(notes)) for check in _OF_NOTES]
    return [*results, _compare_with_given(stores, notes)]


def _compare_with_given(stores: Stores, notes: Notes) -> dg.AssetCheckResult:
    poor: Wrong = {}
    scores: list[float] = []
    both = [uid for uid in notes if stores.masks.read_note(uid)][:_COMPARED]
    for uid in both:
        predicted = stores.predicted_masks.read_volume(uid)
        given = stores.masks.read_volume(uid)
        levels = [level for level in range(1, 8) if (given == level).any()]
        dice = [dice_score(predicted == level, given == level) for level in levels]
        scores += dice
        if dice and float(np.mean(dice)) < _LEAST_DICE:
            poor[uid] = [f"Dice {np.mean(dice):.2f}"]
    mean = float(np.mean(scores)) if scores else 0.0
    return _warn(_AGREE, poor, {"compared": len(both), "dice": mean})


def _has_unexplained_gap(levels: Mapping[str, LevelNote]) -> bool:
    """Say whether a level is missing though the scan does not end before it."""
    shown = [name for name in LEVEL_NAMES if name in levels]
    if not shown:
        return True
    first, last = LEVEL_NAMES.index(shown[0]), LEVEL_NAMES.index(shown[-1])
    if last - first + 1 != len(shown):
        return True
    opens = first > 0 and not levels[shown[0]].is_cut
    ends = last < len(LEVEL_NAMES) - 1 and not levels[shown[-1]].is_cut
    return opens or ends


def _warn(
    name: str, wrong: Wrong, facts: Mapping[str, Any] | None = None
) -> dg.AssetCheckResult:
    examples = [f"{uid}: {'; '.join(why)}" for uid, why in list(wrong.items())[:_NAMED]]
    return dg.AssetCheckResult(
        check_name=name,
        passed=not wrong,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"studies": len(wrong), "examples": examples, **(facts or {})},
    )
