"""Drift of the studies that came since the serving model was trained.

Reference: the good studies that the model was trained, stopped or calibrated on; for
probabilities those that it did not learn its weights from. Current: the good studies
that it has neither learnt from nor was scored on.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd

from csfd_core.classification.manifest import manifest_inputs
from csfd_core.data_kind import DataKind
from csfd_core.reports.drift.features import (
    FEATURES,
    GREY_LEVELS,
    Feature,
)
from csfd_core.reports.drift.grey import (
    mean_grey,
    median_of_tissue,
    read_grey_levels,
    tissue_shares,
)
from csfd_core.reports.drift.predictions import NewPredictions, predict_new
from csfd_core.reports.drift.reference import Serving, serving_of, unseen_probabilities
from csfd_core.reports.drift.statistics import (
    SIGNIFICANCE,
    Comparison,
    adjust,
    compare_histograms,
    compare_rates,
    compare_values,
)
from csfd_core.store.standing import usable_studies
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LABEL_COLUMNS

VERSION: Final = 1  # raised when the report shows something else of the same data
_MM_DIGITS: Final = 3  # of spacings; what differs less was written by another rounding
_GEOMETRY: Final = (
    "pixel_spacing_mm",
    "slice_spacing_mm",
    "slice_count",
    "z_extent_mm",
)

Verdict = Literal["no model", "nothing new", "too few", "steady", "drifted"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """What is known of a group of studies.

    Attributes:
        frame: One row per study (index ``study_uid``), one column per feature other
            than the histogram; NaN where unknown.
        grey: Shares of grey levels, columns 0 to 255, for studies with slices.
    """

    frame: pd.DataFrame
    grey: pd.DataFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found of one feature."""

    feature: Feature
    comparison: Comparison
    p_adjusted: float

    @property
    def is_judged(self) -> bool:
        """Say whether there are enough studies of both groups."""
        return math.isfinite(self.comparison.p)

    @property
    def is_significant(self) -> bool:
        """Say whether both groups differ by more than chance."""
        return self.is_judged and self.p_adjusted < SIGNIFICANCE

    @property
    def is_drifted(self) -> bool:
        """Say whether they differ by more than chance and by more than the margin."""
        return self.is_significant and self.comparison.effect >= self.comparison.margin


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Groups:
    """Good studies of the store by what the model knows of them.

    ``inputs`` is the identity of all that a report rests on.
    """

    serving: Serving | None
    reference: tuple[str, ...]
    current: tuple[str, ...]
    tested: tuple[str, ...]
    table: pd.DataFrame  # of the good studies, by ``study_uid``
    data_kind: DataKind
    inputs: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drift:
    """The result, and what its report shows."""

    groups: Groups
    findings: tuple[Finding, ...]  # one per feature, in their order
    reference: Sample
    current: Sample
    predictions: NewPredictions

    @property
    def drifted(self) -> list[Finding]:
        """Findings that are warned of."""
        return [finding for finding in self.findings if finding.is_drifted]

    @property
    def judged(self) -> list[Finding]:
        """Findings with enough studies."""
        return [finding for finding in self.findings if finding.is_judged]

    @property
    def verdict(self) -> Verdict:
        """What it comes to."""
        if self.groups.serving is None:
            return "no model"
        if not self.groups.current:
            return "nothing new"
        if not self.judged:
            return "too few"
        return "drifted" if self.drifted else "steady"


def group_studies(stores: Stores, tracking_uri: str) -> Groups:
    """Say which studies are compared with which; reads tables and cards only.

    Raises:
        SourceError: If the store has no table of studies yet.
        SettingsError: If MLflow cannot be used, or lost the champion.
    """
    table = stores.metadata.read_studies()
    table = usable_studies(table).drop_duplicates("study_uid")
    table = table.set_index("study_uid").sort_index()
    serving = serving_of(stores, tracking_uri)
    learnt: set[str] = set() if serving is None else serving.learnt_from
    tested: set[str] = set() if serving is None else serving.tested_on - learnt
    uids = [str(uid) for uid in table.index]
    facts = table[["content_hash", *_GEOMETRY, *LABEL_COLUMNS]].to_json(orient="split")
    named = None if serving is None else [serving.title, serving.model_ids]
    identity = [VERSION, named, sorted(learnt), sorted(tested), facts]
    identity.append(manifest_inputs(stores.root))
    text = json.dumps(identity)
    return Groups(
        serving=serving,
        reference=tuple(uid for uid in uids if uid in learnt),
        current=tuple(
            uid for uid in uids if serving and uid not in learnt and uid not in tested
        ),
        tested=tuple(uid for uid in uids if uid in tested),
        table=table,
        data_kind=stores.metadata.read_data_kind(),
        inputs=hashlib.sha256(text.encode()).hexdigest(),
    )


def observe_drift(stores: Stores, tracking_uri: str) -> Drift:
    """Compare the studies that came since with those that the model was trained on.

    Histograms and predictions that are missing are computed and kept in the store.

    Raises:
        SourceError: If the store has no table of studies yet.
        SettingsError: If MLflow cannot be used, or lost the champion.
        StoreError: If slices or the model's files are damaged.
    """
    groups = group_studies(stores, tracking_uri)
    serving = groups.serving
    if serving is None:
        probabilities, new = pd.DataFrame(), NewPredictions(frame=pd.DataFrame())
    else:
        probabilities = unseen_probabilities(serving)
        probabilities = probabilities[probabilities.index.isin(groups.table.index)]
        new = predict_new(stores, serving, groups.current, tracking_uri)
    reference = _sample(stores, groups.table, groups.reference, probabilities)
    current = _sample(stores, groups.table, groups.current, new.frame)
    return Drift(
        groups=groups,
        findings=tuple(judge(reference, current)),
        reference=reference,
        current=current,
        predictions=new,
    )


def judge(reference: Sample, current: Sample) -> list[Finding]:
    """Compare every feature, and correct for how many are compared."""
    compared = [_compare(feature, reference, current) for feature in FEATURES]
    adjusted = adjust([comparison.p for comparison in compared])
    return [
        Finding(feature=feature, comparison=comparison, p_adjusted=float(p))
        for feature, comparison, p in zip(FEATURES, compared, adjusted, strict=True)
    ]


def _compare(feature: Feature, reference: Sample, current: Sample) -> Comparison:
    if feature is GREY_LEVELS:
        return compare_histograms(
            tissue_shares(reference.grey.to_numpy()),
            tissue_shares(current.grey.to_numpy()),
        )
    before, after = reference.frame[feature.name], current.frame[feature.name]
    compare = compare_rates if feature.kind == "rate" else compare_values
    return compare(before.to_numpy(), after.to_numpy())


def _sample(
    stores: Stores,
    table: pd.DataFrame,
    study_uids: Sequence[str],
    probabilities: pd.DataFrame,
) -> Sample:
    """Put together what is known of studies.

    Out-of-sample probabilities are also there for test studies, which the group itself
    does not have: their other facts stay NaN.
    """
    grey = read_grey_levels(stores, study_uids)
    rows = table.loc[list(study_uids)]
    facts = rows[list(_GEOMETRY)].astype(np.float64).round(_MM_DIGITS)
    shares = grey.to_numpy()
    facts["grey_mean"] = pd.Series(mean_grey(shares), index=grey.index)
    facts["grey_tissue"] = pd.Series(median_of_tissue(shares), index=grey.index)
    for column in LABEL_COLUMNS:
        facts[f"label_{column}"] = rows[column].astype(np.float64)
    said = probabilities.reindex(columns=list(LABEL_COLUMNS)).add_prefix("probability_")
    frame = facts.join(said.astype(np.float64), how="outer")
    names = [feature.name for feature in FEATURES if feature is not GREY_LEVELS]
    frame.index.name = "study_uid"
    return Sample(frame=frame[names], grey=grey)
