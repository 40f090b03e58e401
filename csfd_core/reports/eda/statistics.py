"""Numbers of the exploratory analysis: tables from the table of studies.

Pure functions of data frames; nothing is read or drawn here. ``studies`` is always the
table of studies, or a part of it, with the columns of ``STUDIES_COLUMNS``; labels may
be null. Shares stand with Wilson's 95 % confidence interval, which also holds for few
studies and for shares near 0.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from csfd_core.evaluation.intervals import wilson_interval
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES

# What is described of the geometry: column, name, unit.
MEASURES: Final = (
    ("slice_count", "Slices per study", "slices"),
    ("slice_thickness_mm", "Slice thickness", "mm"),
    ("pixel_spacing_mm", "Pixel spacing", "mm"),
    ("z_extent_mm", "Extent along z", "mm"),
)


_QUANTILES: Final = {
    "min": 0.0,
    "q25": 0.25,
    "median": 0.5,
    "q75": 0.75,
    "p95": 0.95,
    "max": 1.0,
}
_DESCRIPTION: Final = ("measure", "unit", "n", "mean", "sd", *_QUANTILES)


def label_matrix(studies: pd.DataFrame) -> pd.DataFrame:
    """Return the labels as floats, 0, 1 or NaN, overall first."""
    return pd.DataFrame(
        {
            name: studies[name].to_numpy(dtype=np.float64, na_value=np.nan)
            for name in LABEL_COLUMNS
        },
        index=studies.index,
    )


def fracture_share(studies: pd.DataFrame) -> pd.DataFrame:
    """Return the share of fractured studies, overall and per level.

    Returns:
        ``level, studies, fractured, share, ci_low, ci_high``; studies are those with
        a label for the level.
    """
    labels = label_matrix(studies)
    fractured, count = labels.sum().to_numpy(), labels.count().to_numpy()
    low, high = wilson_interval(fractured, count)
    share = np.divide(
        fractured, count, where=count > 0, out=np.full(len(count), np.nan)
    )
    return pd.DataFrame(
        {
            "level": list(LABEL_COLUMNS),
            "studies": count,
            "fractured": fractured.astype(np.int64),
            "share": share,
            "ci_low": low,
            "ci_high": high,
        }
    )


def fractures_per_level(studies: pd.DataFrame) -> pd.DataFrame:
    """Return ``level, fractures``, lowest first; equal levels keep their order."""
    counts = label_matrix(studies)[list(LEVEL_NAMES)].sum().astype(np.int64)
    ordered = counts.sort_values(kind="stable")
    return pd.DataFrame({"level": ordered.index, "fractures": ordered.to_numpy()})


def levels_per_study(studies: pd.DataFrame) -> pd.DataFrame:
    """Return how many studies have 0, 1 ... 7 fractured levels.

    Returns:
        ``fractured_levels, studies, share``; only studies with a label for each level
        count.
    """
    levels = label_matrix(studies)[list(LEVEL_NAMES)].dropna()
    per_study = levels.sum(axis=1).astype(np.int64)
    counts = np.bincount(per_study, minlength=len(LEVEL_NAMES) + 1)
    total = int(counts.sum())
    share = counts / total if total else np.full(len(counts), np.nan)
    return pd.DataFrame(
        {
            "fractured_levels": np.arange(len(counts)),
            "studies": counts,
            "share": share,
        }
    )


def label_correlation(studies: pd.DataFrame) -> pd.DataFrame:
    """Return Pearson's correlation of the labels, one row per study.

    Only studies with all labels count, each once, however many slices it has. A label
    that never changes has no correlation: NaN.
    """
    return label_matrix(studies).dropna().corr()


def chance_correlation(studies_count: int) -> float:
    """Return the size up to which a coefficient of so many studies may be chance.

    The two-sided 5 % point of Student's t for one coefficient between unrelated
    labels; NaN for fewer than three studies.
    """
    if studies_count < 3:
        return float("nan")
    from scipy.stats import t as student

    freedom = studies_count - 2
    t = float(student.ppf(0.975, freedom))
    return t / float(np.sqrt(freedom + t**2))


def describe_geometry(studies: pd.DataFrame) -> pd.DataFrame:
    """Describe slices per study, thickness, spacing and extent, one row each.

    Returns:
        ``measure, unit, n, mean, sd, min, q25, median, q75, p95, max``; sd with n - 1,
        quantiles by linear interpolation.
    """
    rows = []
    for column, name, unit in MEASURES:
        values = measured(studies, column)
        row: dict[str, object] = {"measure": name, "unit": unit, "n": len(values)}
        if len(values):
            quantiles = np.quantile(values, list(_QUANTILES.values()))
            sd = values.std(ddof=1) if len(values) > 1 else np.nan
            row |= {"mean": values.mean(), "sd": sd}
            row |= dict(zip(_QUANTILES, quantiles, strict=True))
        rows.append(row)
    columns = list(_DESCRIPTION)
    return pd.DataFrame(rows, columns=columns)


def measured(studies: pd.DataFrame, column: str) -> npt.NDArray[np.float64]:
    """Return the values of a column that are there, as floats."""
    values = pd.to_numeric(studies[column]).to_numpy(dtype=np.float64, na_value=np.nan)
    return np.asarray(values[np.isfinite(values)], dtype=np.float64)


def geometry_bins(studies: pd.DataFrame) -> pd.DataFrame:
    """Count studies in bins of each measure: ``measure, unit, low, high, studies``."""
    parts = []
    for column, name, unit in MEASURES:
        values = measured(studies, column)
        if not len(values):
            continue
        counts, edges = np.histogram(values, bins=bin_edges(values))
        part = {"low": edges[:-1], "high": edges[1:], "studies": counts}
        parts.append(pd.DataFrame({"measure": name, "unit": unit, **part}))
    columns = ["measure", "unit", "low", "high", "studies"]
    return (
        pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    )


def bin_edges(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the edges of 5 to 30 equal bins that hold all values."""
    count = min(30, max(5, len(values) // 4))
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6 * max(1.0, abs(high)):
        half = max(0.5, abs(low) * 0.05)
        return np.linspace(low - half, low + half, count + 1)
    return np.linspace(low, high, count + 1)
