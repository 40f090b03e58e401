"""What follows from what: the automation conditions of the assets, and nothing else.

The daemon evaluates them at every tick, ``csfd run`` in its own process (``engine``).
What has changed outside is told by observations of the assets in ``assets/sources.py``;
a retraining begins with the assets that its schedule materializes.

A condition counts from when its asset was last asked for or made, not from the first
evaluation: what is missing when the daemon starts is made as well.
"""

from collections.abc import Sequence
from functools import reduce
from itertools import chain
from operator import and_
from typing import Any, Final

import dagster as dg

AC: Final = dg.AutomationCondition

# Tag of the runs that nobody asked for: they follow from others.
ASKED_BY: Final = "csfd/asked_by"
CONDITIONS: Final = "conditions"
_BACKFILL: Final = "dagster/backfill"  # Dagster's own tag, named in its documentation


def follows(
    *renewed_by: str,
    needs: Sequence[str] = (),
    some_of: Sequence[str | Sequence[str]] = (),
    by_content: bool = False,
) -> dg.AutomationCondition:
    """Make what is missing once it can be made, and anew when a parent was renewed.

    A partition is made anew with the same partition of its parent; an asset without
    partitions with any.

    Args:
        renewed_by: Parents whose renewal remakes the asset. A model is none for what
            belongs to a study: a new model does not silently remake all studies.
        needs: Parents that must be there, or be made in the same run.
        some_of: Parents, or groups of which one counts, of which something must be
            there. Partitions that are missing, as those of a study that failed, hold
            nothing back.
        by_content: Made anew only where the data version of a parent has changed.
    """
    triggers: list[Any] = [AC.missing().newly_true()]
    if renewed_by:
        parents = _assets(renewed_by)
        renewed = AC.any_deps_updated()
        if by_content:
            renewed = AC.any_deps_match(AC.data_version_changed())
        triggers.append(renewed.allow(parents))
    trigger = triggers[0] if len(triggers) == 1 else triggers[0] | triggers[1]
    wanted: list[Any] = [trigger.since(AC.newly_requested() | AC.newly_updated())]
    if needs:
        wanted.append(~AC.any_deps_missing().allow(_assets(needs)))
    groups = [[group] if isinstance(group, str) else list(group) for group in some_of]
    for group in groups:
        wanted.append(AC.any_deps_match(~AC.missing()).allow(_assets(group)))
    if waits_for := [*renewed_by, *chain.from_iterable(groups)]:
        wanted.append(~AC.any_deps_in_progress().allow(_assets(waits_for)))
    wanted.append(~AC.in_progress())
    condition: dg.AutomationCondition = reduce(and_, wanted)
    return condition


def is_asked_by_conditions(run: dg.DagsterRun) -> bool:
    """Say whether nobody asked for what a run makes: it follows from something else.

    A run of a backfill counts as well: it may come to an asset before what it needs,
    and the conditions make the asset later.
    """
    return run.tags.get(ASKED_BY) == CONDITIONS or _BACKFILL in run.tags


def _assets(names: Sequence[str]) -> dg.AssetSelection:
    return dg.AssetSelection.assets(*names)
