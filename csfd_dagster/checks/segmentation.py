"""Asset checks: what must hold of the segmentation as a whole."""

from collections.abc import Iterator, Mapping, Sequence

import dagster as dg
import numpy as np

from csfd_core.evaluation.folds import assign_folds
from csfd_core.evaluation.segmentation_metrics import dice_score
from csfd_core.segmentation.model_store import ModelStore
from csfd_core.segmentation.postprocess import is_plausible_volume
from csfd_core.store.notes import LevelNote, PredictedMaskNote
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES
from csfd_dagster.resources.stores import StoreResource

_LEAST_DICE = 0.5  # against a given mask; less is another grid or another level
_COMPARED = 12  # studies whose given masks are read


@dg.asset_check(asset="segmentation_model", blocking=True)
def no_test_study_trained(store: StoreResource) -> dg.AssetCheckResult:
    """No study of the locked test set, and no patient of it, was trained on."""
    stores = store.open()
    folds = assign_folds(stores.metadata.read_studies())
    locked = set(folds["study_uid"][folds["is_test"]])
    fold_of = dict(zip(folds["study_uid"], folds["fold"], strict=True))
    leaked, crossed = [], []
    for fold, card in ModelStore(stores.root).cards().items():
        trained = {*card["training_studies"], *card["validation_studies"]}
        leaked += sorted(trained & locked)
        crossed += [uid for uid in card["training_studies"] if fold_of.get(uid) == fold]
    return dg.AssetCheckResult(
        passed=not (leaked or crossed),
        metadata={
            "locked": len(locked),
            "leaked": leaked[:5],
            "of_the_held_out_fold": crossed[:5],
        },
    )


@dg.asset_check(asset="vertebra_masks")
def levels_are_found(store: StoreResource) -> dg.AssetCheckResult:
    """C1 to C7 are found wherever the scan goes on above and below."""
    missing = {
        uid: note.flags
        for uid, note in _notes(store.open())
        if _has_unexplained_gap(note.levels)
    }
    return _warn(missing, "incomplete")


@dg.asset_check(asset="vertebra_masks")
def levels_follow_each_other(store: StoreResource) -> dg.AssetCheckResult:
    """Each level lies below the one before it."""
    wrong = {}
    for uid, note in _notes(store.open()):
        levels = note.levels
        heights = [
            levels[name].centre_zyx_mm[0] for name in LEVEL_NAMES if name in levels
        ]
        if any(b <= a for a, b in zip(heights, heights[1:], strict=False)):
            wrong[uid] = note.flags
    return _warn(wrong, "out_of_order")


@dg.asset_check(asset="vertebra_masks")
def volumes_are_plausible(store: StoreResource) -> dg.AssetCheckResult:
    """Every whole vertebra has the volume of one."""
    wrong = {
        uid: [
            f"{name} {level.volume_ml:.1f} ml"
            for name, level in note.levels.items()
            if not is_plausible_volume(level.volume_ml, is_cut=level.is_cut)
        ]
        for uid, note in _notes(store.open())
    }
    return _warn({uid: names for uid, names in wrong.items() if names}, "implausible")


@dg.asset_check(asset="vertebra_masks")
def masks_agree_with_given(store: StoreResource) -> dg.AssetCheckResult:
    """Predicted and given masks of a study overlap, level by level."""
    stores = store.open()
    poor, scores = {}, []
    both = [uid for uid, _ in _notes(stores) if stores.masks.read_note(uid)]
    for uid in both[:_COMPARED]:
        found = stores.predicted_masks.read_volume(uid)
        given = stores.masks.read_volume(uid)
        levels = [level for level in range(1, 8) if (given == level).any()]
        dice = [dice_score(found == level, given == level) for level in levels]
        scores += dice
        if dice and float(np.mean(dice)) < _LEAST_DICE:
            poor[uid] = [f"Dice {np.mean(dice):.2f}"]
    result = _warn(poor, "poor")
    mean = float(np.mean(scores)) if scores else 0.0
    return dg.AssetCheckResult(
        passed=result.passed,
        severity=result.severity,
        metadata={**result.metadata, "compared": len(both[:_COMPARED]), "dice": mean},
    )


def _notes(stores: Stores) -> Iterator[tuple[str, PredictedMaskNote]]:
    """Yield the note of every study that has a predicted mask."""
    for uid in stores.metadata.study_uids():
        note = stores.predicted_masks.read_note(uid)
        if note is not None:
            yield uid, note


def _has_unexplained_gap(levels: Mapping[str, LevelNote]) -> bool:
    """Say whether a level is missing though the scan does not end before it."""
    found = [name for name in LEVEL_NAMES if name in levels]
    if not found:
        return True
    first, last = LEVEL_NAMES.index(found[0]), LEVEL_NAMES.index(found[-1])
    if last - first + 1 != len(found):
        return True
    opens = first > 0 and not levels[found[0]].is_cut
    ends = last < len(LEVEL_NAMES) - 1 and not levels[found[-1]].is_cut
    return opens or ends


def _warn(wrong: Mapping[str, Sequence[str]], name: str) -> dg.AssetCheckResult:
    examples = [f"{uid}: {'; '.join(why)}" for uid, why in list(wrong.items())[:5]]
    return dg.AssetCheckResult(
        passed=not wrong,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={f"studies_{name}": len(wrong), "examples": examples},
    )


SEGMENTATION_CHECKS = [
    no_test_study_trained,
    levels_are_found,
    levels_follow_each_other,
    volumes_are_plausible,
    masks_agree_with_given,
]
