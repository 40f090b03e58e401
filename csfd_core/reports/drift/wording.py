"""What an observation comes to, in words that are chosen by its numbers."""

import math

from csfd_core.reports.drift.features import (
    FEATURES,
    GEOMETRY,
    INTENSITY,
    LABELS,
    Feature,
)
from csfd_core.reports.drift.observe import Drift, Finding, Groups, counted, few_of
from csfd_core.reports.drift.statistics import LEAST_STUDIES
from csfd_core.text import count


def summarize(drift: Drift) -> str:
    """Say in one paragraph whether the new studies are like those of the training."""
    serving = drift.groups.serving
    if serving is None:
        return (
            "No classifier was trained yet, so there is nothing to compare new studies "
            "with. Train one with csfd run."
        )
    new, old = len(drift.groups.current), len(drift.groups.reference)
    if not new:
        return (
            f"Every good study of the store was there when {serving.title} was "
            "trained: nothing new to judge."
        )
    came = count(new, "study", "has come", "have come")
    begin = f"{came} since {serving.title} was trained on {old}. "
    if drift.verdict == "too few":
        return (
            f"{begin}That is too few to judge: at least {LEAST_STUDIES} are needed in "
            "either group."
        )
    judged, drifted = len(drift.judged), drift.drifted
    unjudged = len(FEATURES) - judged
    note = f" {unjudged} more cannot be judged yet." if unjudged else ""
    if not drifted:
        return f"{begin}None of {judged} features has drifted.{note}"
    names = ", ".join(name_of(finding.feature) for finding in drifted)
    have = "has" if len(drifted) == 1 else "have"
    return (
        f"{begin}{len(drifted)} of {judged} features {have} drifted: {names}.{note} "
        "How well the model does on such studies was never measured."
    )


def explain(finding: Finding) -> str:
    """Say why a feature is warned of, or is not."""
    found = finding.comparison
    if not finding.is_judged:
        fewer = "reference" if found.current_n >= LEAST_STUDIES else "new"
        count = found.reference_n if fewer == "reference" else found.current_n
        return (
            f"not judged: {count} {fewer} {counted(finding.feature.group)}, at least "
            f"{LEAST_STUDIES} are needed"
        )
    effect = "Cohen's h" if finding.feature.kind == "rate" else "PSI"
    size = f"{effect} {found.effect:.2f}"
    p = f"adjusted p {_small(finding.p_adjusted)}"
    if finding.is_drifted:
        return f"{size} (margin {found.margin:g}), {p}"
    if finding.is_significant:
        return f"more than chance ({p}), but {size} is below {found.margin:g}"
    return f"no more than chance: {p}, {size}"


def tell(finding: Finding) -> str:
    """Return the sentence of a finding that was judged."""
    found, feature = finding.comparison, finding.feature
    standing = "drifted" if finding.is_drifted else "not drifted"
    return (
        f"{feature.title}: {_value(feature, found.current_mean)} in "
        f"{found.current_n} new {counted(feature.group)}, "
        f"{_value(feature, found.reference_mean)} in {found.reference_n} of the "
        f"reference; {standing} ({explain(finding)})."
    )


def tell_group(group: str, drift: Drift) -> str:
    """Say what was found of a group of features, a sentence each."""
    own = [f for f in drift.findings if f.feature.group == group]
    few = few_of(group, own)
    if few is not None and drift.groups.serving is not None:
        parts = [
            f"{few} new {counted(group)}: too few to judge, {LEAST_STUDIES} are needed."
        ]
    else:
        parts = [tell(finding) for finding in own if finding.is_judged]
        unjudged = [f for f in own if not f.is_judged]
        if unjudged and parts:
            names = ", ".join(name_of(finding.feature) for finding in unjudged)
            parts.append(f"Not judged, of too few studies: {names}.")
    return " ".join(parts) or "There is nothing to compare."


def tell_missing(drift: Drift) -> str:
    """Say which new studies have no prediction, and why; nothing where all have."""
    new = drift.predictions
    if not new.missing:
        return ""
    return (
        f"{len(new.missing)} of {len(drift.groups.current)} new studies have no "
        f"prediction: {new.why_missing}."
    )


def name_of(feature: Feature) -> str:
    """Return a title as it stands inside a sentence."""
    title = feature.title
    return title[:1].lower() + title[1:]


def group_title(group: str) -> str:
    """Return the title of the section of a group."""
    if group == INTENSITY:
        return "Intensities"
    if group == GEOMETRY:
        return "Spacing and size"
    return "Label rates" if group == LABELS else "Predicted probabilities"


def reference_fact(groups: Groups) -> str:
    """Say in short what the reference is."""
    if groups.serving is None:
        return "none: no classifier was trained yet"
    return (
        f"{count(len(groups.reference), 'study')} that {groups.serving.title} was "
        "trained, stopped or calibrated on"
    )


def _small(p: float) -> str:
    return "below 0.0001" if p < 1e-4 else f"{p:.2g}"


def _value(feature: Feature, mean: float) -> str:
    if math.isnan(mean):
        return "unknown"
    if feature.kind == "rate":
        return f"{mean * 100:.0f} %"
    unit = f" {feature.unit}" if feature.unit else ""
    return f"mean {mean:.3g}{unit}" if abs(mean) < 1000 else f"mean {mean:.0f}{unit}"
