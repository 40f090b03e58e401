"""Whether a challenger takes over from the champion: a pure function of their tables.

Both are scored on the same studies of the locked test set. The challenger must be
better by more than chance, and must not pay for it with missed fractures, probabilities
that mislead, or time. Every reason is a sentence made from the numbers; what the test
set cannot tell is a reason against.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import pandas as pd

from csfd_core.classification.ensemble_predictions import (
    WHATS,
    StudyRows,
    What,
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
)
from csfd_core.text import count
from csfd_core.vocabulary import LABEL_COLUMNS

_ROUNDING: Final = 1e-9  # of differences that are compared with a margin
_NAMES: Final[dict[What, str]] = {"vertebra": "vertebrae", "overall": "studies"}


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
    scores = {c.name: _scores(c, own) for c, own in zip(both, rows, strict=True)}
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
    found: dict[str, set[tuple[str, str, int]]] = {}
    labels = frame["label"].astype("Float64").fillna(-1).astype(int)
    columns = (frame["study_uid"], frame["level"], frame["patient"], labels)
    for uid, level, patient, label in zip(*columns, strict=True):
        found.setdefault(str(uid), set()).add((str(level), str(patient), int(label)))
    return found


def _restricted(contender: Contender, studies: set[str]) -> Contender:
    frame = contender.predictions
    own = frame[frame["study_uid"].isin(studies)].reset_index(drop=True)
    return replace(contender, predictions=own)


def _scores(contender: Contender, rows: StudyRows) -> dict[str, float]:
    every = np.arange(len(rows.study_uids))
    found: dict[str, float] = {"competition_log_loss": loss_statistic(rows)(every)}
    for what in WHATS:
        own = labelled_rows(contender.predictions, what)
        threshold = contender.thresholds[what]
        scores = score_binary(own.labels, own.probabilities, threshold)
        found |= {
            f"auc_{what}": scores.auroc,
            f"sensitivity_{what}": scores.sensitivity,
            f"specificity_{what}": scores.specificity,
            f"threshold_{what}": threshold,
            f"fractured_{what}": float(scores.positives),
        }
        if what == "vertebra":
            found["calibration_error"] = scores.calibration_error
    return {**found, "ms_per_study": contender.ms_per_study}


def _of_test_set(studies: int, subjects: int, config: PromotionConfig) -> Condition:
    return Condition(
        name="test_set",
        is_met=subjects >= config.least_subjects,
        sentence=f"The locked test set has {count(studies, 'study')} of "
        f"{count(subjects, 'subject')} to compare on; "
        f"{count(config.least_subjects, 'subject', 'is', 'are')} needed.",
    )


def _of_leakage(challenger: Contender) -> Condition:
    known = set(challenger.predictions["study_uid"]) & challenger.learnt_from
    return Condition(
        name="unseen_test_set",
        is_met=not known,
        sentence="The challenger was trained or calibrated on "
        f"{count(len(known), 'study')} of the locked test set; there must be none.",
    )


def _beats_prevalence(
    both: list[Contender], rows: list[StudyRows], config: PromotionConfig
) -> Condition:
    """Compare with saying for every study how often each label is 1."""
    (own,), (challenger,) = rows, both
    shares = np.array([challenger.prevalence[name] for name in LABEL_COLUMNS])
    known = replace(own, probabilities=np.broadcast_to(shares, own.labels.shape))
    found = _difference(own, known, config)
    scores = [loss_statistic(each)(np.arange(len(own.patients))) for each in rows]
    reference = scores[0] - found.estimate
    return Condition(
        name="loss",
        is_met=found.estimate < 0,
        sentence="There is no champion, so it is compared with the prevalences of its "
        f"training studies: its competition log loss is {scores[0]:.3f}, theirs "
        f"{reference:.3f}, {_told(found)}. It must be lower.",
    )


def _of_loss(
    both: list[Contender], rows: list[StudyRows], config: PromotionConfig
) -> Condition:
    theirs, own = rows
    found = _difference(own, theirs, config)
    every = np.arange(len(own.patients))
    losses = [loss_statistic(each)(every) for each in (own, theirs)]
    return Condition(
        name="loss",
        is_met=found.high < config.loss_margin,  # False where it is NaN
        sentence=f"The challenger's competition log loss is {losses[0]:.3f}, the "
        f"champion's {losses[1]:.3f}, {_told(found)}. The upper end must be below "
        f"{config.loss_margin:g}.",
    )


def _difference(
    own: StudyRows, other: StudyRows, config: PromotionConfig
) -> Difference:
    return paired_difference(
        own.patients,
        loss_statistic(own),
        loss_statistic(other),
        repeats=config.repeats,
        seed=config.seed,
    )


def _of_costs(
    theirs: Mapping[str, float], mine: Mapping[str, float], config: PromotionConfig
) -> list[Condition]:
    """Return the conditions on what a lower loss must not cost."""
    found = [_of_sensitivity(theirs, mine, what, config) for what in WHATS]
    grown = mine["calibration_error"] - theirs["calibration_error"]
    found.append(
        Condition(
            name="calibration",
            is_met=grown <= config.calibration_margin + _ROUNDING,
            sentence="The calibration error of its vertebrae is "
            f"{_number(mine['calibration_error'])}, the champion's "
            f"{_number(theirs['calibration_error'])}; it may be at most "
            f"{config.calibration_margin:g} larger.",
        )
    )
    allowed = np.fmax(  # which leaves out a time that nobody measured
        config.latency_factor * theirs["ms_per_study"], config.unhurried_ms
    )
    found.append(
        Condition(
            name="latency",
            is_met=bool(mine["ms_per_study"] <= allowed),
            sentence=f"It takes {_time(mine['ms_per_study'])} per study, the champion "
            f"{_time(theirs['ms_per_study'])}; {_time(allowed)} are allowed.",
        )
    )
    return found


def _of_sensitivity(
    theirs: Mapping[str, float],
    mine: Mapping[str, float],
    what: What,
    config: PromotionConfig,
) -> Condition:
    name = f"sensitivity_{what}"
    lost = theirs[name] - mine[name]
    count = int(mine[f"fractured_{what}"])
    return Condition(
        name=name,
        is_met=lost <= config.sensitivity_margin + _ROUNDING,  # False where it is NaN
        sentence=f"At its operating point it finds {_number(mine[name])} of the "
        f"{count} fractured {_NAMES[what]}, the champion {_number(theirs[name])}; it "
        f"may find at most {config.sensitivity_margin:g} less.",
    )


def _told(found: Difference) -> str:
    return (
        f"a difference of {found.estimate:+.3f} (95 % interval {found.low:+.3f} to "
        f"{found.high:+.3f}, p = {found.p_value:.3f})"
    )


def _number(value: float) -> str:
    return "an unknown share" if math.isnan(value) else f"{value:.3f}"


def _time(value: float) -> str:
    return "an unknown time" if math.isnan(value) else f"{value:.0f} ms"
