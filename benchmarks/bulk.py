"""How long is a tick, and how large its cursor, when very many studies arrive at once?

Studies of files without pixels lie in the source. The sensor looks until all are taken
up, and what it tells is recorded as the daemon does; meanwhile the store gets of each
study what would have been made of it. Beside it the same without limits, as it was.
"""

import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from unittest import mock

import dagster as dg

from benchmarks.harness import Result
from benchmarks.scale import write_fake_source, write_fake_stored, write_pattern
from csfd_core.store import paths
from csfd_core.store.locations import Location
from csfd_core.store.source import StudyFolder
from csfd_core.store.stores import Stores
from csfd_dagster import sensors
from csfd_dagster.instance.files import lay_instance
from csfd_dagster.partitions import studies
from csfd_dagster.resources.classification import ClassificationResource
from csfd_dagster.resources.segmentation import SegmentationResource
from csfd_dagster.resources.stores import SourceResource, StoreResource

STUDIES: Final = 10_000
LONGEST_S: Final = 60.0  # after which Dagster ends a tick
_MANY: Final = 10**9
_NO_LIMITS: Final = {"_AT_ONCE": _MANY, "_WATCHED": _MANY, "_UNDER_WAY": _MANY}
_SOURCE_STUDIES: Final = dg.AssetKey("source_studies")
_ENVIRONMENT: Final = {"CSFD_SETTLE_S": "0", "DAGSTER_EVENT_BATCH_SIZE": "256"}


def run() -> Result:
    """Let all arrive, with the limits of the sensor and without."""
    limited, unlimited = _arrive({}), _arrive(_NO_LIMITS)
    return Result(
        question=f"{STUDIES:,} studies that arrive at once: the longest tick",
        target=f"below {LONGEST_S:.0f} s",
        met=limited["longest_tick_s"] < LONGEST_S,
        data="files without pixels, 4 a study; the store gets what it would hold",
        measured={"limited": limited, "alternative, no limits": unlimited},
    )


def _arrive(limits: dict[str, int]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "home").mkdir()
        lay_instance(root / "home")
        environment = {
            **_ENVIRONMENT,
            "DAGSTER_HOME": str(root / "home"),
            "CSFD_INBOX": str(root / "inbox"),
        }
        with ExitStack() as stack:
            stack.enter_context(mock.patch.dict(os.environ, environment))
            stack.enter_context(mock.patch("os.fsync"))
            for limit, value in {"_LONG_LOOK_S": _MANY, **limits}.items():
                stack.enter_context(mock.patch.object(sensors, limit, value))
            instance = stack.enter_context(dg.DagsterInstance.get())
            return _Department(root, instance).take_up_all()


class _Department:
    """Source, store and sensor of one measurement."""

    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.stores = Stores(Location(root / "store"))
        self.pattern = write_pattern(root, self.stores)
        self.waiting: dict[str, StudyFolder] = {}
        for index in range(STUDIES):
            study = write_fake_source(root, index)
            self.waiting[study.name] = study
        self.cursor: str | None = None
        self.resources: dict[str, Any] = {
            "source": SourceResource(source_url=str(root / "source")),
            "store": StoreResource(store_url=str(root / "store")),
            "segmentation": SegmentationResource(),
            "classification": ClassificationResource(),
        }

    def take_up_all(self) -> dict[str, float]:
        """Look until nothing waits; return what that took."""
        seconds, cursors = [], []
        while self.waiting:
            begun = time.perf_counter()
            taken_up = self._tick()
            seconds.append(time.perf_counter() - begun)
            cursors.append(len(self.cursor or ""))
            for uid in taken_up:
                self._make(self.waiting.pop(uid))
        return {
            "ticks": len(seconds),
            "longest_tick_s": round(max(seconds), 1),
            "all_ticks_s": round(sum(seconds), 1),
            "largest_cursor_kb": round(max(cursors) / 1e3, 1),
            "cursors_kb": round(sum(cursors) / 1e3, 1),
        }

    def _tick(self) -> list[str]:
        """Let the sensor look, and record what it tells; return what it takes up."""
        with dg.build_sensor_context(self.instance, cursor=self.cursor) as context:
            result = sensors.look_for_studies(context, **self.resources)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        for change in result.dynamic_partitions_requests or []:
            keys = list(change.partition_keys)
            self.instance.add_dynamic_partitions(str(studies.name), keys)
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        told = [e for e in result.asset_events if e.asset_key == _SOURCE_STUDIES]
        return [str(event.partition) for event in told]

    def _make(self, study: StudyFolder) -> None:
        write_fake_stored(self.stores, self.pattern, study)
        for folder in (paths.PREDICTED_MASKS, paths.CROPS):
            self.stores.root.write(f"{folder}/{study.name}.parquet", b"made")
