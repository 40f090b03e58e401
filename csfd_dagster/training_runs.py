"""Runs that train ask for a GPU: the run coordinator of a cluster on Kubernetes.

There a run is a pod, and what a pod is given is read from the tags of its run. Who asks
for a run, a condition, a schedule or a person, knows nothing of pods; so the tag is set
here, on the way into the queue. ``deploy/helm/values.yaml`` names this class.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import dagster as dg

from csfd_dagster.jobs import TRAINED, retraining

POD: Final = "dagster-k8s/config"  # named in Dagster's documentation
_GIVEN: Final = "pod_of_trainings"


class TrainingRunCoordinator(dg.QueuedRunCoordinator):
    """Dagster's queue, which also says what the pod of a training needs."""

    _pod: Mapping[str, Any]

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """What Dagster's queue may be given, and the pod of a training."""
        fields: Any = super().config_type()
        field = dg.Field(
            dg.Permissive(),  # type: ignore[no-untyped-call]  # Dagster's own
            default_value={},
            description="As the tag dagster-k8s/config of a run.",
        )
        return {**fields, _GIVEN: field}

    @classmethod
    def from_config_value(
        cls,
        inst_data: Any,
        config_value: Mapping[str, Any],  # noqa: ANN401 - as Dagster
    ) -> "TrainingRunCoordinator":
        """Make the coordinator that ``dagster.yaml`` names."""
        coordinator = super().from_config_value(inst_data, config_value)
        coordinator._pod = config_value.get(_GIVEN) or {}
        return coordinator

    def submit_run(self, context: dg.SubmitRunContext) -> dg.DagsterRun:
        """Put a run into the queue; one that trains with what its pod needs."""
        run = context.dagster_run
        if self._pod and trains(run) and POD not in run.tags:
            self._instance.add_run_tags(run.run_id, {POD: json.dumps(dict(self._pod))})
        return super().submit_run(context)


def trains(run: dg.DagsterRun) -> bool:
    """Say whether a run trains a network."""
    trained = {dg.AssetKey(name) for name in TRAINED}
    return run.job_name == retraining.name or bool(
        trained & set(run.asset_selection or ())
    )
