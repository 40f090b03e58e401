"""How far a study lies from what a classifier has learnt, and what is told of it."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.covariance import LedoitWolf
from support.cards import classifier_card
from support.drawn_crops import (
    CROPS,
    draw_vertebra,
    manifest_of,
    put_bright_classifier,
    write_store,
)
from support.measured import (
    QUIET_LOGITS,
    draw_logits,
    draw_studies,
    draw_study,
    drawn_reference,
)

from csfd_core.classification.card import ClassifierCard
from csfd_core.classification.config import ClassifierConfig
from csfd_core.classification.fit import fit_classifier, plan_classifier
from csfd_core.classification.general import general_card
from csfd_core.classification.reference import (
    LEAST_HELD_OUT,
    LEAST_TRAINING,
    QUIET,
    Deviation,
    learn_reference,
    quiet_logit,
)
from csfd_core.classification.study_facts import (
    LEVEL_FACTS,
    MeasuredStudy,
    SeenStudy,
    measure_study,
)
from csfd_core.classification.unlike import (
    NOTHING_TO_MEASURE,
    Unlike,
    Verdict,
    verdict_of,
)
from csfd_core.vocabulary import LEVEL_NAMES

UNKNOWN = np.full(7, np.nan)


def test_the_distance_is_mahalanobis_as_scikit_learn_has_it() -> None:
    """An oracle with other means: standardized with NumPy, judged by scikit-learn."""
    training = draw_studies(50, 3)
    reference = learn_reference(training, draw_studies(20, 4), draw_logits(20, 5))
    assert reference is not None
    levels = {n: np.stack([one.levels[n] for one in training]) for n in LEVEL_FACTS}

    def row(study: MeasuredStudy) -> list[float]:
        z = {}
        for name, known in levels.items():
            first = 1 if name == "spacing" else 0  # nothing lies above C1
            usual, own = known[:, first:], study.levels[name][first:]
            z[name] = (own - usual.mean(axis=0)) / usual.std(axis=0, ddof=1)
        medians = [float(np.median(z[name])) for name in LEVEL_FACTS]
        uneven = [math.log(z[name].std() + 0.1) for name in ("volume", "spacing")]
        return [*medians, *uneven, z["confidence"].min(), study.pixel, study.gap]

    def soft(z: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        half = np.abs(z) / 2
        return np.sign(z) * 2 * np.log(half + np.sqrt(half**2 + 1))

    table = np.array([row(one) for one in training])
    mean, spread = table.mean(axis=0), table.std(axis=0, ddof=1)
    oracle = LedoitWolf(assume_centered=True).fit(soft((table - mean) / spread))
    for study in draw_studies(5, 6):
        found = reference.distance(study, UNKNOWN)
        assert found is not None
        z = soft((np.array([row(study)]) - mean) / spread)
        expected = math.sqrt(oracle.mahalanobis(z)[0] / z.size)
        assert found.score == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("held_out", [5, 20, 60])
def test_about_one_ordinary_study_in_a_hundred_lies_above_the_limit(
    held_out: int,
) -> None:
    """Also where few were held out: then the limit lies higher, never too low."""
    above = []
    for seed in range(0, 40, 10):
        reference = drawn_reference(training=100, held_out=held_out, seed=seed)
        found = [
            reference.distance(study, logits)
            for study, logits in zip(
                draw_studies(250, seed + 5), draw_logits(250, seed + 6), strict=True
            )
        ]
        above += [one.is_above for one in found if one is not None]
    assert np.mean(above) <= 0.03


@pytest.mark.parametrize(
    ("fact", "shift", "told"),
    [
        ("volume", -9.0, "vertebrae are smaller"),
        ("around", 9.0, "what surrounds the bone is brighter"),
        ("confidence", -9.0, "levels are less certain"),
        ("gap", 1.0, "slices lie farther apart"),
        ("pixel", 1.0, "pixels are larger"),
    ],
)
def test_a_study_that_differs_in_one_fact_is_far_and_the_fact_is_named(
    fact: str, shift: float, told: str
) -> None:
    reference = drawn_reference()
    study = draw_study(np.random.default_rng(9), **{fact: shift})
    found = reference.distance(study, QUIET_LOGITS)
    assert found is not None
    assert found.is_above
    assert told in [one.told.partition(" (")[0] for one in found.farthest]
    assert found.farthest[0].spreads * shift > 0


def test_four_fractures_make_no_study_unlike_and_seven_suspicions_do() -> None:
    """As on foreign anatomy, where every vertebra is called fractured."""
    reference = drawn_reference()
    study = draw_studies(1, 1)[0]
    plain = reference.distance(study, QUIET_LOGITS)
    broken = QUIET_LOGITS.copy()
    broken[3:] = 9.0
    every = reference.distance(study, np.full(7, 9.0))
    assert plain is not None
    assert every is not None
    assert quiet_logit(broken) == quiet_logit(QUIET_LOGITS)
    assert reference.distance(study, broken) == plain
    assert every.score > plain.score
    assert every.is_above
    assert every.farthest[0].fact == QUIET
    assert "also the least suspicious vertebrae" in every.farthest[0].told


def test_a_study_without_a_vertebra_is_not_measured() -> None:
    reference = drawn_reference()
    empty = measure_study(
        SeenStudy(
            vertebrae={},
            confidences={},
            shares={},
            spacing_zyx_mm=(5.0, 1.0, 1.0),
            crop=CROPS,
        )
    )
    assert reference.distance(empty, UNKNOWN) is None
    told = Unlike.of([reference], empty, [UNKNOWN], None)
    assert (told.score, told.told) == (None, NOTHING_TO_MEASURE)
    assert told.to_json()["above"] is None


def test_few_levels_are_measured_by_what_they_show() -> None:
    reference = drawn_reference()
    study = draw_studies(1, 12)[0]
    for values in study.levels.values():
        values[1:] = np.nan
    found = reference.distance(study, UNKNOWN)
    assert found is not None
    assert not found.is_above


def test_of_too_few_studies_nothing_is_learnt() -> None:
    enough = draw_studies(LEAST_TRAINING, 0)
    held_out, logits = draw_studies(LEAST_HELD_OUT, 1), draw_logits(LEAST_HELD_OUT, 2)
    assert learn_reference(enough, held_out, logits) is not None
    assert learn_reference(enough[:-1], held_out, logits) is None
    assert learn_reference(enough, held_out[:-1], logits[:-1]) is None


def test_sizes_and_grey_levels_are_those_of_the_crops() -> None:
    vertebra = draw_vertebra(False, np.random.default_rng(0))
    bright = replace(vertebra, images=vertebra.images + 40)
    found = [
        measure_study(
            SeenStudy(
                vertebrae={"C4": one},
                confidences={"C4": 0.9},
                shares={},
                spacing_zyx_mm=(4.0, 3.0, 3.0),
                crop=CROPS,
            )
        )
        for one in (vertebra, bright)
    ]
    dark, light = (study.levels for study in found)
    at = LEVEL_NAMES.index("C4")
    pixels = np.count_nonzero(vertebra.masks)
    assert math.exp(dark["volume"][at]) == pytest.approx(pixels * 2.0 * 4.0 / 1000)
    inside = vertebra.images[:, 1][vertebra.masks > 0]
    assert dark["bone_middle"][at] == np.median(inside)
    for name in ("bone_dark", "bone_middle", "bone_bright", "around"):
        assert light[name][at] == dark[name][at] + 40
    for name in ("edges", "along", "grain", "volume"):
        assert light[name][at] == pytest.approx(dark[name][at])
    assert np.isnan(np.delete(dark["volume"], at)).all()
    assert (found[0].gap, found[0].pixel) == (math.log(4), math.log(3))


def test_a_scan_that_is_finer_than_the_crops_is_not_unlike_for_it() -> None:
    fine, finer = (
        measure_study(
            SeenStudy(
                vertebrae={},
                confidences={},
                shares={},
                spacing_zyx_mm=(mm, mm, mm),
                crop=CROPS,
            )
        )
        for mm in (0.3, 0.6)
    )
    assert (fine.pixel, fine.gap) == (finer.pixel, finer.gap)


def test_slices_thicker_than_any_of_the_training_are_told() -> None:
    reference = drawn_reference()
    study = draw_studies(1, 1)[0]

    def told(gap_mm: float) -> str:
        return Unlike.of([reference], study, [QUIET_LOGITS], gap_mm).thick

    assert 1.5 < reference.coarsest_mm < 3
    assert told(reference.coarsest_mm) == ""
    sentence = told(5.0)
    assert sentence.startswith("Slices lie 5.0 mm apart, below what was trained")
    assert f"at most {reference.coarsest_mm:.1f} mm" in sentence


def test_an_ensemble_is_the_mean_of_those_of_its_members_that_can_tell() -> None:
    near, far = drawn_reference(seed=0), replace(drawn_reference(seed=30), limit=0.1)
    study = draw_studies(1, 1)[0]
    logits = [QUIET_LOGITS] * 3
    one = near.distance(study, QUIET_LOGITS)
    other = far.distance(study, QUIET_LOGITS)
    assert one is not None
    assert other is not None
    found = Unlike.of([near, None, far], study, logits, None)
    assert found.score == pytest.approx((one.score + other.score) / 2, abs=1e-3)
    assert found.limit == pytest.approx((near.limit + 0.1) / 2, abs=1e-3)
    assert found.farthest == other.farthest  # of the member that is the surest


def test_the_verdict_is_that_a_person_must_look_before_it_is_any_other() -> None:
    above, below = Unlike(score=2, limit=1), Unlike(score=1, limit=1)
    told = {"patient_overall": 0.9, "C1": 0.9}
    assert verdict_of(above, told, ["C1"]) == Verdict.NEEDS_EYES
    assert verdict_of(above, told, []) == Verdict.NEEDS_EYES
    assert verdict_of(below, told, ["C1"]) == Verdict.SUSPICIOUS
    assert verdict_of(below, told, []) == Verdict.NOT_SUSPICIOUS
    assert verdict_of(above, dict.fromkeys(told), []) == Verdict.NOT_ASSESSED


@pytest.mark.parametrize(
    "unlike",
    [
        Unlike(
            score=2.5,
            limit=1.8,
            farthest=(Deviation(fact="grain", spreads=-4.2),),
        ),
        Unlike(score=None, limit=None, why_not=NOTHING_TO_MEASURE),
    ],
)
def test_what_is_told_of_a_study_is_read_from_its_json_again(unlike: Unlike) -> None:
    again = Unlike.from_json(json.loads(json.dumps(unlike.to_json())))
    assert again == unlike
    assert again.told == unlike.told


def test_a_reference_comes_back_with_its_card() -> None:
    card = classifier_card(reference=drawn_reference())
    text = card.to_json()
    assert json.loads(text)["reference"]["limit"] == card.reference.limit
    assert ClassifierCard.from_json(text) == card


def test_a_card_of_before_has_no_reference_and_keeps_its_calibration() -> None:
    card = general_card("triplanar_cnn")
    assert card is not None
    written = json.loads(card.to_json())
    del written["reference"]
    read = ClassifierCard.from_json(json.dumps({**written, "schema_version": 3}))
    assert read.reference is None
    assert read.calibration == card.calibration
    assert read.calibration.overall.any_weight != 1.0  # or it would prove nothing


def test_every_training_learns_the_reference_of_its_own_studies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_bright_classifier(monkeypatch)
    stores = write_store(tmp_path, 60)
    config = ClassifierConfig(epochs=1)
    plan = plan_classifier("basic_cnn", 0, config, manifest_of(stores))
    card = fit_classifier(stores, plan).card
    assert card.reference is not None
    assert card.reference.training == len(card.training_studies)
    assert card.reference.held_out == len(card.validation_studies)
    assert card.reference.limit < math.inf
    assert card.reference.coarsest_mm == 0  # no spacing is known of drawn crops
