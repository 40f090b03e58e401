"""The sensor of new studies in tests: its ticks, and what follows in ingestion."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import dagster as dg

from csfd_dagster.definitions import build_defs
from csfd_dagster.engine import QUIET
from csfd_dagster.partitions import partition_ranges, range_tags
from csfd_dagster.resources.classification import ClassificationResource
from csfd_dagster.resources.segmentation import SegmentationResource
from csfd_dagster.sensors import look_for_studies

INGESTION = dg.AssetSelection.groups("ingest") - dg.AssetSelection.assets("store_audit")


@dataclass
class Sensing:
    """A sensor and the conditions of ingestion on one instance."""

    instance: dg.DagsterInstance
    resources: dict[str, Any]
    cursor: str | None = None
    runs: list[dg.ExecuteInProcessResult] = field(default_factory=list)
    conditions: Any = None  # where their evaluation goes on

    @cached_property
    def defs(self) -> dg.Definitions:
        """The definitions on the resources."""
        return build_defs(self.resources)

    def tick(self) -> dg.SensorResult:
        """Let the sensor look once, and keep what it tells as the daemon does."""
        used = {
            "source": self.resources["source"],
            "store": self.resources["store"],
            "segmentation": SegmentationResource(),
            "classification": ClassificationResource(),
        }
        with dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor
        ) as context:
            result = look_for_studies(context, **used)
        assert isinstance(result, dg.SensorResult)
        assert not result.run_requests  # it tells, and asks for nothing
        self.cursor = result.cursor
        for change in result.dynamic_partitions_requests or []:
            keys = list(change.partition_keys)
            if isinstance(change, dg.AddDynamicPartitionsRequest):
                self.instance.add_dynamic_partitions("studies", keys)
            else:
                for key in keys:
                    self.instance.delete_dynamic_partition("studies", key)
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        return result

    def follow(self) -> list[set[str]]:
        """Evaluate the conditions until they ask for nothing; do what they ask for.

        Returns:
            Of each round the assets that were asked for.
        """
        defs = self.defs
        rounds = []
        while True:
            asked = dg.evaluate_automation_conditions(
                defs, self.instance, asset_selection=INGESTION, cursor=self.conditions
            )
            self.conditions = asked.cursor
            wanted: dict[frozenset[str | None], list[dg.AssetKey]] = {}
            for key in defs.resolve_asset_graph().toposorted_asset_keys:
                if partitions := frozenset(asked.get_requested_partitions(key)):
                    wanted.setdefault(partitions, []).append(key)
            if not wanted:
                return rounds
            rounds.append(
                {k.to_user_string() for keys in wanted.values() for k in keys}
            )
            for partitions, keys in wanted.items():
                self._make(keys, {key for key in partitions if key is not None})

    def settle(self, ticks: int = 3) -> str:
        """Let the sensor look, and do what follows; return its last word."""
        reason = ""
        for _ in range(ticks):
            result = self.tick()
            reason = str(result.skip_reason and result.skip_reason.skip_message)
            self.follow()
        return reason

    def _make(self, keys: list[dg.AssetKey], partitions: set[str]) -> None:
        if not partitions:
            self.run({}, keys)
            return
        known = self.instance.get_dynamic_partitions("studies")
        for part in partition_ranges(known, partitions):
            self.run(range_tags(part), keys)

    def run(
        self, tags: dict[str, str], selection: Any = None
    ) -> dg.ExecuteInProcessResult:
        """Run the job of ingestion, or some of its assets."""
        job = self.defs.resolve_job_def("ingestion")
        result = job.execute_in_process(
            instance=self.instance,
            tags=tags,
            asset_selection=selection,
            run_config=QUIET,
            raise_on_error=False,
        )
        self.runs.append(result)
        return result
