"""Planted: studies of another kind, judged by what comes with csfd.

An ordinary phantom has numbers like any other. Noise, a head, a chest and a belly have
none, or say first that they are unlike the training; and what is hard to read, as metal
or fused levels, ends in a result.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pytest
from support import foreign

from csfd_core.classification.ensemble import Ensemble
from csfd_core.crops.study import MaskedStudy
from csfd_core.dicom.pixels import window_to_uint8
from csfd_core.inference.judgement import Judgement, judge_study
from csfd_core.phantom.config import PhantomConfig
from csfd_core.phantom.volume import build_phantom_volume
from csfd_core.registry.serving import open_general
from csfd_core.segmentation.bundle import builtin_location, read_bundle
from csfd_core.segmentation.columns import TWO_NECKS
from csfd_core.segmentation.postprocess import Review
from csfd_core.segmentation.predict import VertebraPredictor
from csfd_core.segmentation.reading import reduce_slices
from csfd_core.vocabulary import BONE_WINDOW, LEVEL_NAMES

pytestmark = pytest.mark.slow
SEED: Final = 31  # no general model has learnt from it
Hounsfield = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Neck:
    """An ordinary phantom, head to feet."""

    hounsfield: Hounsfield
    mask: npt.NDArray[np.uint8]
    spacing_zyx_mm: foreign.Triple


Judge = Callable[[Hounsfield, foreign.Triple], tuple[Judgement, Review]]


@pytest.fixture(scope="module")
def neck() -> Neck:
    """A whole neck without a fracture."""
    whole = dict.fromkeys(LEVEL_NAMES, 0)
    config = PhantomConfig(studies=1, seed=SEED)
    found = build_phantom_volume(config, 0, labels=whole)
    order = slice(None, None, -1 if found.z_step_mm > 0 else 1)
    return Neck(
        hounsfield=found.hounsfield[order].astype(np.float32),
        mask=found.mask[order],
        spacing_zyx_mm=found.spacing_zyx_mm,
    )


@pytest.fixture(scope="module")
def judge() -> Judge:
    predictor = VertebraPredictor(read_bundle(builtin_location()))
    ensemble: Ensemble = open_general()

    def judged(
        hounsfield: Hounsfield, spacing_zyx_mm: foreign.Triple
    ) -> tuple[Judgement, Review]:
        geometry = foreign.geometry_of(hounsfield.shape, spacing_zyx_mm)
        grey = window_to_uint8(hounsfield, BONE_WINDOW)
        found = predictor.predict(reduce_slices(grey, geometry, predictor.step_mm))
        study = MaskedStudy(
            grey=grey,
            mask=found.mask,
            geometry=geometry,
            levels=found.review.notes(),
        )
        return judge_study(study, ensemble), found.review

    return judged


def test_an_ordinary_neck_is_like_the_training(neck: Neck, judge: Judge) -> None:
    found, review = judge(neck.hounsfield, neck.spacing_zyx_mm)
    assert found.assessed == LEVEL_NAMES
    assert found.unlike.score is not None
    assert not found.unlike.is_above
    assert found.unlike.warnings == ()
    assert review.flags == ()


@pytest.mark.parametrize(
    ("volume", "spacing_zyx_mm"),
    [
        (foreign.noise(), (2.0, 1.0, 1.0)),
        (foreign.noise(seed=1), (2.0, 1.0, 1.0)),
        (foreign.head(), (1.5, 1.0, 1.0)),
        (foreign.chest(), (2.5, 0.9, 0.9)),
        (foreign.abdomen(), (5.0, 0.8, 0.8)),
    ],
    ids=["noise", "other noise", "head", "chest", "belly of 5 mm"],
)
def test_a_study_of_another_kind_is_unlike_or_has_no_numbers(
    judge: Judge, volume: Hounsfield, spacing_zyx_mm: foreign.Triple
) -> None:
    found, _ = judge(volume, spacing_zyx_mm)
    if found.assessed:
        assert found.unlike.is_above
        assert found.assessment.needs_eyes((), found.unlike.warnings)[0].startswith(
            "This study is unlike"
        )
    else:
        assert set(found.assessment.probabilities.values()) == {None}


def test_a_neck_in_slices_of_5_mm_is_said_to_be_below_what_was_trained(
    neck: Neck, judge: Judge
) -> None:
    gap, row_mm, column_mm = neck.spacing_zyx_mm
    together = round(5.0 / gap)
    count = len(neck.hounsfield) // together
    shape = (count, together, *neck.hounsfield.shape[1:])
    thick = neck.hounsfield[: count * together].reshape(shape).mean(axis=1)
    found, _ = judge(thick, (gap * together, row_mm, column_mm))
    assert found.assessed
    assert "below what was trained" in found.unlike.warnings[-1]


def test_two_necks_in_one_volume_are_not_judged(neck: Neck, judge: Judge) -> None:
    both = np.concatenate([neck.hounsfield, neck.hounsfield], axis=2)
    found, review = judge(both, neck.spacing_zyx_mm)
    assert review.flags == (TWO_NECKS,)
    assert found.assessment.needs_eyes(review.flags) == (TWO_NECKS,)
    assert set(found.assessment.probabilities.values()) == {None}


def test_metal_over_three_levels_is_told(neck: Neck, judge: Judge) -> None:
    """Rods and screws, and the dark and bright streaks on their slices."""
    metal = neck.hounsfield.copy()
    where = np.argwhere((neck.mask >= 4) & (neck.mask <= 6))
    (top, front, left), (end, back, right) = where.min(axis=0), where.max(axis=0)
    middle = (left + right) // 2
    for side in (middle - 12, middle + 12):
        metal[top:end, back - 10 : back - 2, side - 4 : side + 4] = 3071
    streaks = np.where(np.arange(metal.shape[2]) % 6 < 3, 500.0, -500.0)
    metal[top:end:3, front:back] += streaks.astype(np.float32)
    found, review = judge(np.clip(metal, -1024, 3071), neck.spacing_zyx_mm)
    assert found.assessed
    (told,) = [flag for flag in review.flags if flag.startswith("Metal lies at ")]
    assert "C4, C5 and C6" in told or "C5 and C6" in told or "C4 and C5" in told
    numbers = [p for p in found.assessment.probabilities.values() if p is not None]
    assert np.isfinite(numbers).all()
    assert found.unlike.score is not None


def test_fused_levels_end_in_a_result(neck: Neck, judge: Judge) -> None:
    """C4 and C5 as one block of bone."""
    fused = neck.hounsfield.copy()
    block = np.isin(neck.mask, (4, 5))
    rows = np.flatnonzero(block.any(axis=(1, 2)))
    outline = block[rows[0] : rows[-1] + 1].any(axis=0)
    part = fused[rows[0] : rows[-1] + 1]
    part[:, outline] = np.maximum(part[:, outline], 350.0)
    found, _ = judge(fused, neck.spacing_zyx_mm)
    assert found.assessed
    numbers = [p for p in found.assessment.probabilities.values() if p is not None]
    assert np.isfinite(numbers).all()
