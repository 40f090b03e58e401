"""Where the time of a run of everything went, as Dagster's events tell it.

What a step took is what lies between its start and its end in the history. What is left
of the clock is the start of the process, and the rounds of the conditions.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

import dagster as dg

from csfd_core.classification.classifiers import CLASSIFIERS

REST: Final = "start, and what is due"
_REPORTS: Final = "reports"
_CHECKS: Final = "checks"
# Steps that are told together; classifiers are told by name, what is left are checks.
_TOGETHER: Final = {
    "study_headers": "ingestion",
    "metadata_table": "ingestion",
    "slice_store": "ingestion",
    "mask_store": "ingestion",
    "segmentation_model": "segmentation",
    "vertebra_masks": "masks",
    "vertebra_crops": "crops",
    "training_manifest": "crops",
    "eda_report": _REPORTS,
    "mask_overlay_video": _REPORTS,
    "leakage_audit": _REPORTS,
    "comparison_report": _REPORTS,
    "data_drift": _REPORTS,
    "store_audit": _REPORTS,
    "champion_model": "champion and predictions",
    "unseen_predictions": "champion and predictions",
    "study_predictions": "champion and predictions",
}


class Durations:
    """Seconds of every step, added up over runs."""

    def __init__(self) -> None:
        """Start with none."""
        self._seconds: dict[str, float] = defaultdict(float)

    def add(self, instance: dg.DagsterInstance, run_id: str) -> None:
        """Add the steps of a run; those that have not ended took no time."""
        for step in instance.get_run_step_stats(run_id):
            if step.start_time is not None and step.end_time is not None:
                self._seconds[step.step_key] += step.end_time - step.start_time

    def parts(self, whole_s: float) -> Mapping[str, float]:
        """Return the seconds of each part, in the order of the work, and of the rest.

        Args:
            whole_s: What all of it took by the clock.
        """
        return dict(self._parts(whole_s))

    def _parts(self, whole_s: float) -> Iterator[tuple[str, float]]:
        together: dict[str, float] = defaultdict(float)
        for step, seconds in self._seconds.items():
            own_name = step if step in CLASSIFIERS else _CHECKS
            together[_TOGETHER.get(step, own_name)] += seconds
        names = list(dict.fromkeys(_TOGETHER.values()))
        first = names[: names.index(_REPORTS)]
        classifiers = [name for name in CLASSIFIERS if name in together]
        for name in (*first, *classifiers, *names[names.index(_REPORTS) :], _CHECKS):
            if name in together:
                yield name, together[name]
        yield REST, max(0.0, whole_s - sum(together.values()))
