"""The competition's loss: its two known numbers, by hand, and missing labels."""

import math

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import sklearn.metrics as sk
from support.material import require_material

from csfd_core.evaluation.metrics import competition_log_loss, study_log_losses
from csfd_core.vocabulary import LABEL_COLUMNS

Vector = npt.NDArray[np.float64]


def simulate_table(n: int = 60, seed: int = 0) -> tuple[Vector, Vector]:
    rng = np.random.default_rng(seed)
    probabilities = rng.uniform(0.01, 0.99, (n, 8))
    return (rng.random((n, 8)) < 0.3).astype(np.float64), probabilities


def real_labels() -> Vector:
    table = pd.read_csv(require_material("rsna2022", "train.csv"))
    return table[list(LABEL_COLUMNS)].to_numpy(dtype=np.float64)


def test_one_half_everywhere_scores_ln_2_on_any_table() -> None:
    for seed in range(5):
        labels, _ = simulate_table(seed=seed)
        half = np.full(labels.shape, 0.5)
        assert competition_log_loss(labels, half) == pytest.approx(math.log(2))


def test_real_labels_give_the_two_known_losses() -> None:
    labels = real_labels()
    half = np.full(labels.shape, 0.5)
    assert round(competition_log_loss(labels, half), 4) == 0.6931
    prevalences = np.broadcast_to(labels.mean(axis=0), labels.shape)
    assert round(competition_log_loss(labels, prevalences), 4) == 0.5638


def test_competition_loss_of_one_study_by_hand() -> None:
    labels = [[1, 0, 1, 0, 0, 0, 0, 0]]
    probabilities = [[0.8, 0.1, 0.6, 0.1, 0.1, 0.1, 0.1, 0.1]]
    weighted = 14 * -math.log(0.8) + 2 * -math.log(0.6) + 6 * -math.log(0.9)
    expected = weighted / (14 + 2 + 6)
    assert competition_log_loss(labels, probabilities) == pytest.approx(expected)


def test_competition_loss_agrees_with_weighted_log_loss_of_scikit_learn() -> None:
    labels, probabilities = simulate_table()
    losses = study_log_losses(labels, probabilities)
    for row, loss in enumerate(losses):
        weights = np.array([7, 1, 1, 1, 1, 1, 1, 1]) * (1 + labels[row])
        expected = sk.log_loss(
            labels[row], probabilities[row], sample_weight=weights, labels=[0, 1]
        )
        assert loss == pytest.approx(expected)
    assert competition_log_loss(labels, probabilities) == pytest.approx(losses.mean())


def test_a_missing_label_is_left_out_with_its_weight_and_probability() -> None:
    labels, probabilities = simulate_table(n=3)
    labels[1, 0], probabilities[1, 0] = math.nan, math.nan
    weights = 1 + labels[1, 1:]
    expected = sk.log_loss(
        labels[1, 1:], probabilities[1, 1:], sample_weight=weights, labels=[0, 1]
    )
    assert study_log_losses(labels, probabilities)[1] == pytest.approx(expected)


def test_a_study_without_labels_is_nan_and_left_out_of_the_mean() -> None:
    labels, probabilities = simulate_table(n=4)
    expected = study_log_losses(labels, probabilities)
    labels[2] = math.nan
    losses = study_log_losses(labels, probabilities)
    assert np.isnan(losses).tolist() == [False, False, True, False]
    mean = expected[[0, 1, 3]].mean()
    assert competition_log_loss(labels, probabilities) == pytest.approx(mean)
    assert math.isnan(competition_log_loss(labels[2:3], probabilities[2:3]))
    assert math.isnan(competition_log_loss(np.empty((0, 8)), np.empty((0, 8))))


def test_certain_and_wrong_probabilities_cost_much_but_not_infinitely() -> None:
    labels = np.zeros((1, 8))
    assert competition_log_loss(labels, labels) == pytest.approx(0, abs=1e-12)
    assert competition_log_loss(labels, 1 - labels) == pytest.approx(36.04, abs=0.01)


def test_a_flipped_label_raises_the_competition_loss() -> None:
    labels, _ = simulate_table()
    probabilities = np.where(labels == 1, 0.9, 0.1)
    before = competition_log_loss(labels, probabilities)
    labels[5, 3] = 1 - labels[5, 3]
    assert competition_log_loss(labels, probabilities) > before


def test_competition_loss_refuses_unusable_tables() -> None:
    labels, probabilities = simulate_table(n=2)
    with pytest.raises(ValueError, match=r"patient_overall, C1.*\(2, 7\) and \(2, 7\)"):
        competition_log_loss(labels[:, 1:], probabilities[:, 1:])
    with pytest.raises(ValueError, match=r"\(2, 8\) and \(1, 8\)"):
        competition_log_loss(labels, probabilities[:1])
    with pytest.raises(ValueError, match=r"are they logits.*first: \[5.0, 5.0"):
        competition_log_loss(labels, np.full((2, 8), 5.0))
    probabilities[0, 0] = math.nan
    with pytest.raises(ValueError, match=r"Received 1 others of 16, first: \[nan\]"):
        competition_log_loss(labels, probabilities)
    with pytest.raises(ValueError, match=r"`labels` must be 0 or 1.*first: \[-1.0"):
        competition_log_loss(np.where(labels == 1, 1, -1), np.full((2, 8), 0.5))
