"""From logits to probabilities of vertebrae and studies."""

import math
from dataclasses import asdict

import numpy as np
import pytest
from support.cards import classifier_card

from csfd_core.classification.card import Calibrations, ClassifierCard
from csfd_core.classification.probabilities import (
    Calibrated,
    ensemble_threshold,
    probabilities_of,
)
from csfd_core.evaluation.calibration import Calibration
from csfd_core.evaluation.metrics import competition_log_loss, operating_point
from csfd_core.evaluation.study_calibration import StudyCalibration
from csfd_core.vocabulary import LEVEL_NAMES, OVERALL

PREVALENCE = {
    OVERALL: 0.48,
    **dict(zip(LEVEL_NAMES, (0.07, 0.14, 0.04, 0.05, 0.08, 0.14, 0.19), strict=True)),
}
PLAIN = Calibrated(
    vertebra=Calibration(),
    overall=StudyCalibration(),
    prevalence=PREVALENCE,
    vertebra_point=operating_point([0, 1], [0.2, 0.6]),
    overall_point=operating_point([0, 1], [0.3, 0.9]),
)


def drawn(
    count: int = 200, seed: int = 0, sharpness: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose probability is true, times ``sharpness``, and labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1.5, 2.0, (count, 7))
    levels = (rng.random((count, 7)) < 1 / (1 + np.exp(-logits))).astype(float)
    return logits * sharpness, np.column_stack([levels.max(axis=1), levels])


def test_overall_is_the_chance_that_any_level_is_broken() -> None:
    logits, _ = drawn(3)
    found = probabilities_of(PLAIN, logits)
    for row, given in zip(found, logits, strict=True):
        levels = [1 / (1 + math.exp(-value)) for value in given]
        assert row[1:].tolist() == pytest.approx(levels)
        whole = math.prod(1 - p for p in levels)
        assert row[0] == pytest.approx(1 - whole, rel=1e-5)


def test_a_vertebra_that_was_not_assessed_has_the_prevalence_of_its_level() -> None:
    logits = np.full((2, 7), np.nan)
    logits[1, 2] = 3.0
    found = probabilities_of(PLAIN, logits)
    shares = [PREVALENCE[level] for level in LEVEL_NAMES]
    assert found[0, 1:].tolist() == pytest.approx(shares)
    assert found[0, 0] == pytest.approx(1 - math.prod(1 - p for p in shares), rel=1e-5)
    assert found[1, 3] == pytest.approx(1 / (1 + math.exp(-3)))
    assert found[1, [1, 2, 4]].tolist() == pytest.approx([0.07, 0.14, 0.05])


def test_no_studies_have_no_probabilities() -> None:
    assert probabilities_of(PLAIN, np.empty((0, 7))).shape == (0, 8)


def test_certain_logits_stay_within_zero_and_one() -> None:
    found = probabilities_of(PLAIN, np.array([[900.0] * 7, [-900.0] * 7]))
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1
    assert found[:, 0].round(3).tolist() == [1, 0]


def test_logits_that_are_too_sharp_are_calibrated() -> None:
    logits, labels = drawn(sharpness=3.0)
    found = Calibrated.fit(logits, labels, PREVALENCE)
    assert found.vertebra.temperature == pytest.approx(3.0, rel=0.25)
    fresh_logits, fresh = drawn(seed=1, sharpness=3.0)
    before = competition_log_loss(fresh, probabilities_of(PLAIN, fresh_logits))
    after = competition_log_loss(fresh, probabilities_of(found, fresh_logits))
    assert after < before - 0.05


def test_operating_points_are_those_of_the_calibrated_probabilities() -> None:
    logits, labels = drawn()
    found = Calibrated.fit(logits, labels, PREVALENCE)
    own = probabilities_of(found, logits)
    vertebra = operating_point(labels[:, 1:].ravel(), own[:, 1:].ravel())
    overall = operating_point(labels[:, 0], own[:, 0])
    assert asdict(found.vertebra_point) == pytest.approx(asdict(vertebra))
    assert asdict(found.overall_point) == pytest.approx(asdict(overall))


def test_unseen_and_unlabelled_vertebrae_fit_nothing() -> None:
    logits, labels = drawn()
    expected = Calibrated.fit(logits, labels, PREVALENCE)
    more_logits = np.vstack([logits, np.full((5, 7), np.nan), logits[:5]])
    unknown = np.full((5, 8), np.nan)
    more_labels = np.vstack([labels, np.hstack([unknown[:, :1], labels[:5, 1:]])])
    more_labels = np.vstack([more_labels, unknown])
    found = Calibrated.fit(more_logits, more_labels, PREVALENCE)
    assert found.vertebra == expected.vertebra
    assert found.overall == expected.overall


def test_a_validation_without_fractures_changes_no_probability() -> None:
    logits, labels = drawn(10)
    found = Calibrated.fit(logits, labels * 0, PREVALENCE)
    assert not found.vertebra.is_fitted
    assert found.vertebra_point.is_default
    expected = probabilities_of(PLAIN, logits)
    np.testing.assert_allclose(probabilities_of(found, logits), expected)


def test_what_was_fitted_comes_back_from_the_card() -> None:
    logits, labels = drawn()
    fitted = Calibrated.fit(logits, labels, PREVALENCE)
    card = classifier_card(
        calibration=Calibrations(vertebra=fitted.vertebra, overall=fitted.overall),
        thresholds={
            "vertebra": fitted.vertebra_point,
            "overall": fitted.overall_point,
        },
        bounds=fitted.bounds,
        prevalence=fitted.prevalence,
    )
    assert Calibrated.of(ClassifierCard.from_json(card.to_json())) == fitted


def test_the_prevalence_alone_scores_the_loss_of_the_prior() -> None:
    # A share of 1 in 4 of 400 studies at each level, all at one level per study.
    shares = dict.fromkeys(LEVEL_NAMES, 0.25)
    labels = np.zeros((400, 8))
    labels[:, 1:] = np.arange(400)[:, None] % 4 == 0
    labels[:, 0] = labels[:, 1:].max(axis=1)
    overall = 1 - 0.75**7
    calibrated = Calibrated(
        vertebra=Calibration(),
        overall=StudyCalibration(),
        prevalence={OVERALL: 0.25, **shares},
        vertebra_point=PLAIN.vertebra_point,
        overall_point=PLAIN.overall_point,
    )
    found = probabilities_of(calibrated, np.full((400, 7), np.nan))
    # Weights 7 and seven times 1, so that overall and levels count the same; doubled
    # for positives, which are all or none within a study.
    broken = (-math.log(overall) - math.log(0.25)) / 2
    whole = (-math.log(1 - overall) - math.log(0.75)) / 2
    expected = broken / 4 + whole * 3 / 4
    assert competition_log_loss(labels, found) == pytest.approx(expected, rel=1e-4)


def test_an_ensembles_threshold_is_the_mean_of_its_folds_within_0_and_1() -> None:
    assert ensemble_threshold([0.2, 0.4]) == pytest.approx(0.3)
    assert ensemble_threshold([0.9, 3.0]) == 1.0
    assert ensemble_threshold([-2.0]) == 0.0
    assert ensemble_threshold([]) == 0.5
