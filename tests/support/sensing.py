"""The sensor of new studies in tests: its ticks, and what follows in ingestion."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg

from csfd_core.store.locations import Location
from csfd_core.store.paths import LISTINGS
from csfd_core.store.stores import Stores
from csfd_dagster.definitions import build_defs
from csfd_dagster.engine import QUIET
from csfd_dagster.partitions import partition_ranges, range_tags
from csfd_dagster.resources.classification import ClassificationResource
from csfd_dagster.resources.segmentation import SegmentationResource
from csfd_dagster.resources.stores import (
    ExecutorResource,
    SourceResource,
    StoreResource,
)
from csfd_dagster.sensors import look_for_studies
from support.instances import small_instance

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


class Place(Sensing):
    """Source, inbox and store of a test in one folder, and Dagster on them."""

    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        self.root = root
        super().__init__(
            instance,
            {
                "source": SourceResource(
                    source_url=str(root / "source"), inbox_url=str(root / "inbox")
                ),
                "store": StoreResource(store_url=str(root / "store")),
                "executor": ExecutorResource(workers=1),
            },
        )

    @property
    def stores(self) -> Stores:
        return Stores(Location(self.root / "store"))

    def images(self, uid: str, where: str = "source") -> Path:
        return self.root / where / "train_images" / uid

    def look(self) -> str:
        """Let the sensor look once; return what it says first."""
        result = self.tick()
        assert result.skip_reason is not None
        return str(result.skip_reason.skip_message).partition(".")[0]

    def partitions(self) -> set[str]:
        return set(self.instance.get_dynamic_partitions("studies"))

    def stored(self) -> dict[str, tuple[str, int]]:
        """Content and time of every file but the notes on listings."""
        root = self.root / "store"
        return {
            str(path.relative_to(root)): (
                hashlib.sha256(path.read_bytes()).hexdigest(),
                path.stat().st_mtime_ns,
            )
            for path in root.rglob("*")
            if path.is_file() and LISTINGS not in str(path)
        }


@contextmanager
def open_place(root: Path) -> Iterator[Place]:
    """Open Dagster on what lies in a folder."""
    with small_instance(root / "home") as instance:
        yield Place(root, instance)


@contextmanager
def copy_of(place: Place, root: Path) -> Iterator[Place]:
    """Go on in a copy of a place that is closed."""
    shutil.copytree(place.root, root, dirs_exist_ok=True)
    with open_place(root) as copy:
        copy.cursor, copy.conditions = place.cursor, place.conditions
        copy.runs += place.runs
        yield copy
