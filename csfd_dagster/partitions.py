"""Partitions, and how to ask for many of them with few runs.

One partition per study: a new study is a new partition, and lineage, retries and
quarantine speak of studies. A run covers a range of partitions, so that the cost of
starting it is shared; ranges are contiguous in the order in which studies were added.

Classifiers have one partition per fold: the one that they are trained without. All five
are cross-validation. Each fold is a run of its own, which waits for its turn, is killed
and taken up again, or goes to another machine, by itself. ``csfd run`` trains them one
after the other in its own process.
"""

import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Final

import dagster as dg

from csfd_core.vocabulary import FOLD_COUNT

STUDIES_PER_RUN: Final = 256

# Tags by which a run takes a range of partitions, named in Dagster's documentation.
_RANGE_START: Final = "dagster/asset_partition_range_start"
_RANGE_END: Final = "dagster/asset_partition_range_end"

# A beta parameter of @asset; Dagster would say so whenever the definitions load.
warnings.filterwarnings("ignore", "Parameter `backfill_policy`", dg.BetaWarning)

folds = dg.StaticPartitionsDefinition([f"fold_{index}" for index in range(FOLD_COUNT)])
studies = dg.DynamicPartitionsDefinition(name="studies")
MANY_STUDIES = dg.BackfillPolicy.multi_run(max_partitions_per_run=STUDIES_PER_RUN)

# Pools, of one run at a time each: ``dagster.yaml``.
TABLES: Final = "tables"  # files that everything else reads have one writer
TRAININGS: Final = "trainings"  # each uses all processors, or the GPU

EACH_FOLD = dg.BackfillPolicy.multi_run(max_partitions_per_run=1)


def fold_number(partition_key: str) -> int:
    """Return the fold of a partition."""
    return int(partition_key.removeprefix("fold_"))


def partition_ranges(
    ordered: Sequence[str], wanted: Collection[str], largest: int = STUDIES_PER_RUN
) -> Iterator[list[str]]:
    """Split wanted partitions into runs of neighbours, each of at most ``largest``.

    Args:
        ordered: All partitions in the order in which they were added.
        wanted: Those to cover; each must be among them.
        largest: Partitions per range.
    """
    chosen, current = set(wanted), list[str]()
    for key in ordered:
        if key in chosen and len(current) < largest:
            current.append(key)
            continue
        if current:
            yield current
        current = [key] if key in chosen else []
    if current:
        yield current


def range_tags(keys: Sequence[str]) -> dict[str, str]:
    """Return the run tags that select a contiguous range of partitions."""
    return {
        _RANGE_START: keys[0],
        _RANGE_END: keys[-1],
    }
