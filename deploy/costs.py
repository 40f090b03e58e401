"""What 2,019, 100,000 and 1,000,000 studies cost, computed from what was measured.

``python -m deploy.costs`` prints the tables of ``docs/scale.md``. Each figure names its
source: a benchmark, a run of the cluster demo, or an assumption to be replaced by your
own. Money is the list price of a large provider, without discounts.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

STUDIES: Final = (2_019, 100_000, 1_000_000)
SLICES: Final = 352  # of a study: 711,601 in 2,019
MONTH_H: Final = 730.0
WORKERS: Final = (8, 64, 256)  # processors, for each number of studies
_GB: Final = 1e9


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that the table is computed from."""

    value: float
    unit: str
    what: str
    source: str


# By name; in the order in which the page shows them.
FIGURES: Final = {
    "slice_kb": Figure(72.8, "KB", "a slice in the store", "`size.json`"),
    "source_mb": Figure(
        0.525,
        "MB",
        "a slice in the source, uncompressed",
        "512 × 512 × 2 bytes, header",
    ),
    "crops_mb": Figure(
        1.6,
        "MB",
        "crops and masks of a study",
        "3.3 GB of 2,019 studies, `pipeline.json`",
    ),
    "history_kb": Figure(69.0, "KB", "Dagster's history of a study", "60 demo studies"),
    "scan_s": Figure(
        0.67, "s", "headers of a study, on one processor", "`headers.json`"
    ),
    "convert_s": Figure(
        0.33, "s", "slices of a study, on one processor, uncompressed", "`convert.json`"
    ),
    "jpeg2000_s": Figure(
        10.3, "s", "more where it is JPEG 2000, read once", "`predict.json`"
    ),
    "predict_s": Figure(
        3.3, "s", "mask, crops and prediction, on one processor", "`predict.json`"
    ),
    "dagster_s": Figure(0.039, "s", "Dagster's part", "`orchestration.json`"),
    "gets": Figure(
        SLICES + 500,
        "",
        "GET requests of a study",
        "one a slice; the rest at most what 6 studies took in the cluster demo",
    ),
    "puts": Figure(
        237,
        "",
        "PUT and LIST requests of a study",
        "6 studies in the cluster demo, looks of the sensors included",
    ),
    "folds": Figure(5, "", "folds of each network", "`CSFD_FOLDS=5`"),
    "gpu_segmentation_h": Figure(
        3.6, "GPU h", "a fold of the segmentation", "**assumed**: 26,100 steps of 0.5 s"
    ),
    "gpu_classifier_h": Figure(
        1.3, "GPU h", "a fold of a classifier", "**assumed**: 24,000 steps of 0.2 s"
    ),
    "classifiers": Figure(5, "", "classifiers", "the graph"),
    "storage_usd": Figure(0.023, "$/GB month", "object storage", "**assumed** price"),
    "put_usd": Figure(0.005, "$/1,000", "PUT and LIST", "**assumed** price"),
    "get_usd": Figure(0.0004, "$/1,000", "GET", "**assumed** price"),
    "cpu_usd": Figure(0.05, "$/h", "a processor with 4 GB", "**assumed** price"),
    "gpu_usd": Figure(
        1.2, "$/h", "a GPU of 24 GB with 8 processors", "**assumed** price"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a number of studies takes."""

    studies: int
    source_tb: float
    store_tb: float
    history_gb: float
    processor_h: float
    processor_h_jpeg2000: float
    workers: int
    ingest_h: float
    dagster_h: float
    gpu_h: float
    gets_million: float
    puts_million: float
    once_usd: float
    month_usd: float


def cost_of(studies: int, workers: int) -> Cost:
    """Compute what a number of studies takes, each of which is taken up once.

    Args:
        studies: How many.
        workers: Processors that work on them at a time.
    """
    value = {name: figure.value for name, figure in FIGURES.items()}
    source_gb = studies * SLICES * value["source_mb"] / 1e3
    store_gb = studies * (SLICES * value["slice_kb"] / 1e6 + value["crops_mb"] / 1e3)
    names = ("scan_s", "convert_s", "predict_s", "dagster_s")
    processor_h = studies * sum(value[name] for name in names) / 3600
    gpu_h = value["folds"] * (
        value["gpu_segmentation_h"] + value["classifiers"] * value["gpu_classifier_h"]
    )
    gets, puts = studies * value["gets"], studies * value["puts"]
    once = (
        processor_h * value["cpu_usd"]
        + gpu_h * value["gpu_usd"]
        + gets / 1000 * value["get_usd"]
        + puts / 1000 * value["put_usd"]
    )
    return Cost(
        studies=studies,
        source_tb=source_gb / 1000,
        store_tb=store_gb / 1000,
        history_gb=studies * value["history_kb"] / 1e6,
        processor_h=processor_h,
        processor_h_jpeg2000=processor_h + studies * value["jpeg2000_s"] / 3600,
        workers=workers,
        ingest_h=processor_h / workers,
        dagster_h=studies * value["dagster_s"] / 3600,
        gpu_h=gpu_h,
        gets_million=gets / 1e6,
        puts_million=puts / 1e6,
        once_usd=once,
        month_usd=(source_gb + store_gb) * value["storage_usd"],
    )


def page() -> str:
    """Return the two tables as the page has them."""
    return "\n".join([*_figures(), "", *_costs()])


def _figures() -> Iterator[str]:
    yield "| figure | of what | from |"
    yield "|---|---|---|"
    for figure in FIGURES.values():
        value = f"{figure.value:,g} {figure.unit}".strip()
        yield f"| {value} | {figure.what} | {figure.source} |"


def _costs() -> Iterator[str]:
    found = [cost_of(n, w) for n, w in zip(STUDIES, WORKERS, strict=True)]
    yield "| | " + " | ".join(f"{cost.studies:,} studies" for cost in found) + " |"
    yield "|---|" + "---:|" * len(found)
    rows = {
        "source, uncompressed": [f"{c.source_tb:,.1f} TB" for c in found],
        "store": [f"{c.store_tb:,.2f} TB" for c in found],
        "Dagster's history": [f"{c.history_gb:,.1f} GB" for c in found],
        "GET requests": [f"{c.gets_million:,.1f} million" for c in found],
        "PUT and LIST requests": [f"{c.puts_million:,.2f} million" for c in found],
        "processor hours": [f"{c.processor_h:,.0f}" for c in found],
        "the same, JPEG 2000": [f"{c.processor_h_jpeg2000:,.0f}" for c in found],
        "workers": [f"{c.workers}" for c in found],
        "hours of these workers": [f"{c.ingest_h:,.1f}" for c in found],
        "hours of Dagster, one run at a time": [f"{c.dagster_h:,.1f}" for c in found],
        "GPU hours of one training": [f"{c.gpu_h:,.0f}" for c in found],
        "money, once": [f"$ {c.once_usd:,.0f}" for c in found],
        "money, each month": [f"$ {c.month_usd:,.0f}" for c in found],
    }
    for name, values in rows.items():
        yield f"| {name} | " + " | ".join(values) + " |"


if __name__ == "__main__":
    sys.stdout.write(f"{page()}\n")
