"""What an audit comes to, in words that are chosen by its numbers."""

import math
from typing import Final

from csfd_core.evaluation.bootstrap import Interval
from csfd_core.reports.leakage.audit import Audit, ProtocolResult
from csfd_core.reports.leakage.protocols import FIRST_ATTEMPT, RANDOM_SLICES

_BY_HEART: Final = 0.99  # AUC on the training slices
_CHANCE: Final = 0.5


def explain(audit: Audit) -> str:
    """Explain in one paragraph what each protocol reports, and why."""
    by_name = {result.protocol: result for result in audit.results}
    parts = [
        _setting(audit),
        _first_attempt(by_name[FIRST_ATTEMPT]),
        _random(by_name[RANDOM_SLICES]),
        _honest(audit.honest),
        _pretended(audit),
    ]
    return " ".join(part for part in parts if part)


def tell_auc(auc: Interval) -> str:
    """Return an AUC with its interval, as it stands in a sentence."""
    if math.isnan(auc.low):
        return f"{auc.estimate:.3f}"
    return f"{auc.estimate:.3f} (95 % interval {auc.low:.3f} to {auc.high:.3f})"


def share_of(share: float) -> str:
    """Return a share to stand before "of", never rounded to all or nothing."""
    if math.isnan(share) or share == 0:
        return "none"
    if share == 1:
        return "all"
    if 0 < share < 0.005:
        return "less than 1 %"
    if 0.995 <= share < 1:
        return "more than 99 %"
    return f"{share * 100:.0f} %"


def _setting(audit: Audit) -> str:
    studies = audit.slices["study_uid"].nunique()
    patients = audit.slices["patient"].nunique()
    return (
        f"Three protocols train the same network for {audit.config.steps} steps on "
        f"the same {len(audit.slices)} slices of {studies} studies ({patients} "
        "patients), each slice labelled as its study is."
    )


def _first_attempt(result: ProtocolResult) -> str:
    text = (
        "The first attempt takes its three sets from the start of one stream, so that "
        f"{share_of(result.slices_seen_in_training)} of its test slices are training "
        "slices;"
    )
    if math.isnan(result.auc.estimate):
        return f"{text} its AUC is undefined, {_why_undefined(result)}."
    text += f" it reports an AUC of {tell_auc(result.auc)}."
    if result.training_auc >= _BY_HEART:
        return (
            f"{text} The network knows its training slices by heart (AUC "
            f"{result.training_auc:.3f} on them), and that is all this number says."
        )
    return (
        f"{text} The network has not learnt its training slices by heart (AUC "
        f"{result.training_auc:.3f} on them); with a longer training this number could "
        "still rise."
    )


def _random(result: ProtocolResult) -> str:
    text = (
        "Slices dealt out at random share "
        + ("no slice" if result.slices_seen_in_training == 0 else "slices")
        + f" between the sets, but {share_of(result.patients_seen_in_training)} of the "
        "test patients have other slices in training;"
    )
    if math.isnan(result.auc.estimate):
        return f"{text} the AUC is undefined, {_why_undefined(result)}."
    return f"{text} the AUC is {tell_auc(result.auc)}."


def _honest(result: ProtocolResult) -> str:
    if math.isnan(result.auc.estimate):
        return (
            f"Split by patient, the AUC is undefined, {_why_undefined(result)}: what "
            "the other protocols pretend cannot be measured on these data."
        )
    text = (
        f"Split by patient, {share_of(result.patients_seen_in_training)} of the "
        f"{result.test_patients} test patients are in training, and the same network "
        f"gives an AUC of {tell_auc(result.auc)},"
    )
    auc = result.auc
    if math.isnan(auc.low):
        return f"{text} of a single patient and so without an interval."
    if auc.low > _CHANCE:
        return f"{text} better than guessing on patients it has never seen."
    if auc.high < _CHANCE:
        return f"{text} worse than guessing on patients it has never seen."
    return f"{text} not to be told from guessing (0.5)."


def _pretended(audit: Audit) -> str:
    """Say how much more than the honest one each other protocol reports."""
    if math.isnan(audit.honest.auc.estimate):
        return ""
    groups: dict[str, list[str]] = {"more": [], "same": [], "less": []}
    for result in audit.results:
        gap = result.pretended
        if math.isnan(gap.estimate):
            continue
        told = f"{result.title.lower()} {_signed(gap.estimate)}"
        if not math.isnan(gap.low):
            told += f" ({_signed(gap.low)} to {_signed(gap.high)})"
        groups[_standing(gap)].append(told)
    parts = []
    if groups["more"]:
        parts.append(
            f"What is reported above that, {' and '.join(groups['more'])}, is "
            "pretended: it comes from a test set that was seen in training, and the "
            "network does not have it on new patients."
        )
    if groups["same"]:
        parts.append(
            "Not to be told from the split by patient: "
            f"{' and '.join(groups['same'])}. That makes such a test set no better: it "
            "cannot tell learning from memory."
        )
    if groups["less"]:
        parts.append(f"Below the split by patient: {' and '.join(groups['less'])}.")
    return " ".join(parts)


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _standing(gap: Interval) -> str:
    if gap.low > 0:
        return "more"
    if gap.high < 0:
        return "less"
    return "same"


def _why_undefined(result: ProtocolResult) -> str:
    if not result.test_slices:
        return "as there are no test slices"
    if not result.training_slices:
        return "as there are no training slices"
    return "as its test slices are of one class only"
