"""Whether a challenger takes over from the champion: a pure function of their tables.

Both are scored on the same studies of the locked test set. The challenger must be
better by more than chance, and must not pay for it with missed fractures, probabilities
that mislead, or time. Every reason is a sentence made from the numbers; what the test
set cannot tell is a reason against.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import pandas as pd

from csfd_core.classification.card import WHATS, What
from csfd_core.classification.ensemble_predictions import (
    StudyRows,
    labelled_rows,
    to_study_rows,
)
from csfd_core.classification.score_tables import loss_statistic
from csfd_core.evaluation.bootstrap import Difference, paired_difference
from csfd_core.evaluation.metrics import score_binary
from csfd_core.registry.decision import (
    Condition,
    Contender,
    Decision,
    PromotionConfig,
    say,
)
from csfd_core.vocabulary import LABEL_COLUMNS

_ROUNDING: Final = 1e-9  # of differences that are compared with a margin
_NOUNS: Final[dict[What, str]] = {"vertebra": "vertebra", "overall": "study"}


def decide(
    champion: Contender | None,
    challenger: Contender,
    config: PromotionConfig | None = None,
) -> Decision:
    """Decide whether the challenger takes over.

    Args:
        champion: Who holds the title, ``None`` where nobody does; the challenger must
            then beat the prevalences of its training studies.
        challenger: Who may take over.
        config: What it must reach.

    Returns:
        The decision. Studies that one of the two lacks, or has other labels of, count
        for neither.
    """
    config = config or PromotionConfig()
    both = [challenger] if champion is None else [champion, challenger]
    studies = _common_studies(both)
    both = [_restricted(contender, studies) for contender in both]
    rows = [to_study_rows(contender.predictions) for contender in both]
    subjects = len(set(rows[0].patients))
    scores = {c.name: _scores(c, r) for c, r in zip(both, rows, strict=True)}
    conditions = [
        _of_test_set(len(studies), subjects, config),
        _of_leakage(challenger),
    ]
    if subjects >= config.least_subjects:
        loss = _beats_prevalence if champion is None else _of_loss
        conditions.append(loss(both, rows, config))
        mine = scores[challenger.name]
        if champion is not None:
            conditions += _of_costs(scores[champion.name], mine, config)
    return Decision(
        promoted=all(condition.is_met for condition in conditions),
        challenger=challenger.name,
        champion=None if champion is None else champion.name,
        studies=len(studies),
        subjects=subjects,
        conditions=tuple(conditions),
        scores=scores,
        config=config,
    )


def _common_studies(both: list[Contender]) -> set[str]:
    """Return the studies that all have, of one patient and with the same labels."""
    first, *rest = [_facts(contender.predictions) for contender in both]
    return {
        uid
        for uid, facts in first.items()
        if all(other.get(uid) == facts for other in rest)
        and any(label >= 0 for _, _, label in facts)
    }


def _facts(frame: pd.DataFrame) -> dict[str, set[tuple[str, str, int]]]:
    facts: dict[str, set[tuple[str, str, int]]] = {}
    labels = frame["label"].astype("Float64").fillna(-1).astype(int)
    columns = (frame["study_uid"], frame["level"], frame["patient"], labels)
    for uid, level, patient, label in zip(*columns, strict=True):
        facts.setdefault(str(uid), set()).add((str(level), str(patient), int(label)))
    return facts


def _restricted(contender: Contender, studies: set[str]) -> Contender:
    frame = contender.predictions
    shared = frame[frame["study_uid"].isin(studies)].reset_index(drop=True)
    return replace(contender, predictions=shared)


def _scores(contender: Contender, rows: StudyRows) -> dict[str, float]:
    numbers = {"competition_log_loss": _loss_of(rows)}
    for what in WHATS:
        labelled = labelled_rows(contender.predictions, what)
        threshold = contender.thresholds[what]
        scores = score_binary(labelled.labels, labelled.probabilities, threshold)
        numbers |= {
            f"auc_{what}": scores.auroc,
            f"sensitivity_{what}": scores.sensitivity,
            f"specificity_{what}": scores.specificity,
            f"threshold_{what}": threshold,
            f"fractured_{what}": float(scores.positives),
        }
        if what == "vertebra":
            numbers["calibration_error"] = scores.calibration_error
    return {**numbers, "ms_per_study": contender.ms_per_study}


def _of_test_set(studies: int, subjects: int, config: PromotionConfig) -> Condition:
    return Condition(
        name="test_set",
        is_met=subjects >= config.least_subjects,
        sentence=say("test_set", studies=studies, subjects=subjects, config=config),
    )


def _of_leakage(challenger: Contender) -> Condition:
    leaked = set(challenger.predictions["study_uid"]) & challenger.learnt_from
    return Condition(
        name="unseen_test_set",
        is_met=not leaked,
        sentence=say("unseen_test_set", leaked=len(leaked)),
    )


def _beats_prevalence(
    both: list[Contender], rows: list[StudyRows], config: PromotionConfig
) -> Condition:
    """Compare with saying for every study how often each label is 1."""
    (mine,), (challenger,) = rows, both
    shares = np.array([challenger.prevalence[name] for name in LABEL_COLUMNS])
    prior = replace(mine, probabilities=np.broadcast_to(shares, mine.labels.shape))
    difference = _difference(mine, prior, config)
    loss = _loss_of(mine)
    return Condition(
        name="loss",
        is_met=difference.estimate < 0,
        sentence=say(
            "first_loss",
            loss=loss,
            reference=loss - difference.estimate,
            difference=difference,
        ),
    )


def _of_loss(
    both: list[Contender], rows: list[StudyRows], config: PromotionConfig
) -> Condition:
    theirs, mine = rows
    difference = _difference(mine, theirs, config)
    return Condition(
        name="loss",
        is_met=difference.high < config.loss_margin,  # False where it is NaN
        sentence=say(
            "loss",
            loss=_loss_of(mine),
            reference=_loss_of(theirs),
            difference=difference,
            config=config,
        ),
    )


def _loss_of(rows: StudyRows) -> float:
    return loss_statistic(rows)(np.arange(len(rows.study_uids)))


def _difference(
    mine: StudyRows, other: StudyRows, config: PromotionConfig
) -> Difference:
    return paired_difference(
        mine.patients,
        loss_statistic(mine),
        loss_statistic(other),
        repeats=config.repeats,
        seed=config.seed,
    )


def _of_costs(
    theirs: Mapping[str, float], mine: Mapping[str, float], config: PromotionConfig
) -> list[Condition]:
    """Return the conditions on what a lower loss must not cost."""
    conditions = [_of_sensitivity(theirs, mine, what, config) for what in WHATS]
    errors = mine["calibration_error"], theirs["calibration_error"]
    conditions.append(
        Condition(
            name="calibration",
            is_met=errors[0] - errors[1] <= config.calibration_margin + _ROUNDING,
            sentence=say(
                "calibration", mine=errors[0], theirs=errors[1], config=config
            ),
        )
    )
    times = mine["ms_per_study"], theirs["ms_per_study"]
    allowed = float(  # leaving out a time that nobody measured
        np.fmax(config.latency_factor * times[1], config.unhurried_ms)
    )
    conditions.append(
        Condition(
            name="latency",
            is_met=times[0] <= allowed,
            sentence=say("latency", mine=times[0], theirs=times[1], allowed=allowed),
        )
    )
    return conditions


def _of_sensitivity(
    theirs: Mapping[str, float],
    mine: Mapping[str, float],
    what: What,
    config: PromotionConfig,
) -> Condition:
    name = f"sensitivity_{what}"
    return Condition(
        name=name,
        # False where one of them is NaN.
        is_met=theirs[name] - mine[name] <= config.sensitivity_margin + _ROUNDING,
        sentence=say(
            "sensitivity",
            mine=mine[name],
            theirs=theirs[name],
            fractured=int(mine[f"fractured_{what}"]),
            noun=_NOUNS[what],
            config=config,
        ),
    )
