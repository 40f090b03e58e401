"""What each figure shows: facts counted in its table, said by ``eda.jinja``."""

from dataclasses import dataclass
from itertools import combinations
from typing import Final

import pandas as pd

from csfd_core.dicom.findings import Status
from csfd_core.reports.eda.quality import syntax_name
from csfd_core.reports.eda.statistics import chance_correlation
from csfd_core.reports.extremes import Extremes
from csfd_core.reports.palette import UNKNOWN
from csfd_core.text import Prose
from csfd_core.vocabulary import LEVEL_NAMES

say: Final = Prose("csfd_core.reports", "eda")


@dataclass(frozen=True, slots=True)
class LevelShare:
    """A row of ``fracture_share``."""

    level: str
    studies: int
    fractured: int
    share: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True, slots=True)
class Quality:
    """How many studies are quarantined, lack labels or are there twice."""

    quarantined: int
    unlabelled: int
    copies: int
    rising: int  # whose instance numbers rise from feet to head
    has_direction: bool


def say_fracture_share(share: pd.DataFrame) -> str:
    """Overall share with its interval; the most and the least affected level."""
    overall, *levels = [LevelShare(*row) for row in share.itertuples(index=False)]
    labelled = [row for row in levels if row.studies]
    ends = Extremes.of((r.level for r in labelled), (r.share for r in labelled))
    is_any = any(row.fractured for row in labelled)
    return say("fracture_share", overall=overall, ends=ends if is_any else None)


def say_fractures_per_level(counts: pd.DataFrame, *, is_labelled: bool = True) -> str:
    """The range from the lowest to the highest level."""
    ends = Extremes.of(counts["level"], counts["fractures"])
    total = int(counts["fractures"].sum())
    return say("fractures_per_level", is_labelled=is_labelled, total=total, ends=ends)


def say_levels_per_study(counts: pd.DataFrame) -> str:
    """How many studies have none, one and several; the most in one study."""
    studies = [int(number) for number in counts["studies"]]
    most = max((levels for levels, number in enumerate(studies) if number), default=0)
    return say("levels_per_study", studies=studies, total=sum(studies), most=most)


def say_correlation(correlation: pd.DataFrame, studies_count: int) -> str:
    """The strongest and the weakest pair of levels, and what may be chance."""
    pairs = list(combinations(range(len(LEVEL_NAMES)), 2))
    values = correlation.loc[list(LEVEL_NAMES), list(LEVEL_NAMES)].to_numpy()
    return say(
        "label_correlation",
        studies=studies_count,
        limit=chance_correlation(studies_count),
        ends=Extremes.of(
            (f"{LEVEL_NAMES[one]} with {LEVEL_NAMES[other]}" for one, other in pairs),
            (float(values[pair]) for pair in pairs),
        ),
    )


def say_geometry(summary: pd.DataFrame) -> str:
    """Median and mean of the slices, and the ranges of the rest."""
    slices, *rest = summary.itertuples(index=False)
    lengths = [row for row in rest if row.unit == "mm" and row.n]
    return say("geometry", slices=slices, lengths=lengths)


def say_boxes(boxes: pd.DataFrame, per_level: pd.DataFrame) -> str:
    """How many boxes, on which levels, how large, how deep."""
    given = per_level[(per_level["level"] != UNKNOWN) & (per_level["boxes"] > 0)]
    sizes = boxes[["width_mm", "height_mm", "width", "height"]].median()
    return say(
        "boxes",
        boxes=len(boxes),
        studies=boxes["study_uid"].nunique(),
        given=int(given["boxes"].sum()),
        ends=Extremes.of(given["level"], given["boxes"]),
        sizes=sizes.to_dict(),
        depth=boxes["depth"].dropna().quantile([0.1, 0.9]).tolist(),
    )


def say_quality(
    studies: pd.DataFrame, quality: pd.DataFrame, syntaxes: pd.DataFrame | None
) -> str:
    """Quarantine, labels, copies, direction and compression."""
    counts = quality.set_index(["topic", "item"])["studies"].to_dict()
    codes = [row for row in quality.itertuples() if row.topic == "quarantined for"]
    topic = "instance numbers rise"
    told = Quality(
        quarantined=counts.get(("standing", Status.QUARANTINED), 0),
        unlabelled=counts.get(("labels", "missing or incomplete"), 0),
        copies=counts.get(("content", "same slices as another study"), 0),
        rising=counts.get((topic, "feet to head"), 0),
        has_direction=bool((quality["topic"] == topic).any()),
    )
    common = None
    if syntaxes is not None and len(syntaxes):
        common = syntaxes.sort_values("slices", ascending=False).iloc[0]
    return say(
        "quality",
        has_images=not studies["slice_count"].isna().all(),
        studies=len(studies),
        quality=told,
        code=codes[0] if codes else None,
        syntax=None if common is None else syntax_name(common["transfer_syntax_uid"]),
        of_syntax=0 if common is None else int(common["slices"]),
        slices=0 if syntaxes is None else int(syntaxes["slices"].sum()),
    )
