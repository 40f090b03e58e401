"""Does the general segmentation hold on necks that no training draws?

Three sets of phantoms, kept apart by seed and by range: version 1, version 2 (what is
trained on) and foreign necks (outside of version 2's ranges in at least one respect:
height, bend, turn, cortex, soft tissue, kernel; two in five scans end within the column
at either end). Their masks are known, so levels are counted, not guessed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Result
from csfd_core.evaluation.segmentation_metrics import LevelScore, level_scores
from csfd_core.phantom.config import PhantomConfig
from csfd_core.phantom.volume import build_phantom_volume
from csfd_core.pretraining.phantoms import geometry_of, head_to_feet
from csfd_core.runtime.executors import completed, open_executor
from csfd_core.segmentation.bundle import builtin_location, read_bundle
from csfd_core.segmentation.predict import VertebraPredictor
from csfd_core.segmentation.reading import reduce_slices
from csfd_core.store.locations import Location
from csfd_core.vocabulary import LEVEL_NAMES

SEED = 91_000  # no training and no data set has it
NECKS = 60
LEAST_DICE = {"version 1": 0.9, "version 2": 0.92, "foreign": 0.88}
MOST_SWAPPED = 0.01
_LEAST_ML = 2.0  # of a level in view; slivers at the end of a scan are not scored
SETS = {
    "version 1": PhantomConfig(studies=NECKS, seed=SEED, version=1, masked_share=0.0),
    "version 2": PhantomConfig(studies=NECKS, seed=SEED, masked_share=0.0),
    "foreign": PhantomConfig(studies=NECKS, seed=SEED, foreign=True, masked_share=0.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Neck:
    """What the segmentation made of one neck."""

    scores: tuple[LevelScore, ...]  # of the levels that are in view
    invented: tuple[str, ...]  # levels that were found and are not in view
    is_flagged: bool  # in the mask, or by levels that are told as not assessed

    @property
    def is_shifted(self) -> bool:
        """Whether a level has the place of another."""
        return bool(self.invented) or any(score.is_swapped for score in self.scores)


def run() -> Result:
    """Segment every neck of the three sets."""
    measured = {name: measure(config, NECKS) for name, config in SETS.items()}
    return Result(
        question="Dice, swapped levels and flags of the general segmentation on "
        "ordinary and on foreign necks",
        target="; ".join(f"{k}: mean Dice at least {v}" for k, v in LEAST_DICE.items())
        + f"; swapped levels at most {MOST_SWAPPED:.0%}, none of them unflagged",
        met=all(_is_met(name, found) for name, found in measured.items()),
        data=f"{NECKS} demo phantoms of seed {SEED} in each set",
        measured=measured,
    )


def measure(
    config: PhantomConfig, necks: int, model: Path | None = None
) -> dict[str, Any]:
    """Segment some necks and sum up.

    Args:
        config: What to draw.
        necks: How many.
        model: Folder of the segmentation; the general one without it.
    """
    with open_executor(2) as executor:
        jobs = [(config, index, model) for index in range(necks)]
        found = [future.result() for _, future in completed(executor, _segment, jobs)]
    return _summary(found)


def _segment(job: tuple[PhantomConfig, int, Path | None]) -> Neck:
    config, index, model = job
    volume = build_phantom_volume(config, index)
    predictor = _predictor(model)
    grey, _ = head_to_feet(volume)
    given = volume.mask if volume.z_step_mm < 0 else volume.mask[::-1]
    geometry = geometry_of(volume)
    prediction = predictor.predict(
        reduce_slices(list(grey), geometry, predictor.step_mm)
    )
    voxel_ml = float(np.prod(geometry.spacing_zyx_mm)) / 1000
    in_view = np.bincount(given.ravel(), minlength=len(LEVEL_NAMES) + 1) * voxel_ml
    seen = {n for i, n in enumerate(LEVEL_NAMES, 1) if in_view[i] >= _LEAST_ML}
    absent = {n for i, n in enumerate(LEVEL_NAMES, 1) if in_view[i] == 0}
    scores = level_scores(prediction.mask, given, geometry.spacing_zyx_mm)
    found = {level.level for level in prediction.review.levels}
    return Neck(
        scores=tuple(score for score in scores if score.level in seen),
        invented=tuple(sorted(found & absent)),
        is_flagged=bool(prediction.review.flags) or found != set(LEVEL_NAMES),
    )


def _summary(necks: Sequence[Neck]) -> dict[str, Any]:
    scores = [score for neck in necks for score in neck.scores]
    shifted = [neck for neck in necks if neck.is_shifted]
    by_level = {
        name: [score.dice_score for score in scores if score.level == name]
        for name in LEVEL_NAMES
    }
    means = [
        np.mean([s.dice_score for s in neck.scores]) for neck in necks if neck.scores
    ]
    return {
        "levels": len(scores),
        "mean_dice": round(float(np.mean([s.dice_score for s in scores])), 3),
        "dice_by_level": {k: round(float(np.mean(v)), 3) for k, v in by_level.items()},
        "worst_neck": round(float(min(means)), 3),
        "surface_distance_mm": round(
            float(np.nanmean([s.surface_distance_mm for s in scores])), 2
        ),
        "swapped_share": round(float(np.mean([s.is_swapped for s in scores])), 4),
        "necks_with_shifted_levels": len(shifted),
        "of_these_not_flagged": sum(not neck.is_flagged for neck in shifted),
        "flagged_share": round(float(np.mean([n.is_flagged for n in necks])), 3),
    }


def _is_met(name: str, found: dict[str, Any]) -> bool:
    return bool(
        found["mean_dice"] >= LEAST_DICE[name]
        and found["swapped_share"] <= MOST_SWAPPED
        and found["of_these_not_flagged"] == 0
    )


@cache
def _predictor(model: Path | None) -> VertebraPredictor:
    where = builtin_location() if model is None else Location(model)
    predictor = VertebraPredictor(read_bundle(where))
    predictor.load()
    return predictor
