"""How long is a round of conditions, and how soon are runs asked for?

Studies that are known, made and unchanged cost time in each round; here many are known
and one arrives. Nothing is made: their events are written as the assets would have.
"""

import os
import tempfile
import time
from pathlib import Path
from unittest import mock

import dagster as dg

from benchmarks.harness import Result, spread
from csfd_dagster.definitions import build_defs
from csfd_dagster.instance.files import lay_instance
from csfd_dagster.partitions import studies

STUDIES = 2000
LARGEST_S = 2.0
ROUNDS = 5
_OF_STUDY = (
    "study_headers",
    "slice_store",
    "mask_store",
    "vertebra_masks",
    "vertebra_crops",
    "study_predictions",
)
_VERSION = "dagster/data_version"


def _history(instance: dg.DagsterInstance, uids: list[str]) -> None:
    """Write what Dagster knows of studies that were all made."""
    instance.add_dynamic_partitions(str(studies.name), uids)
    tags = {_VERSION: "1"}
    for uid in uids:
        instance.report_runless_asset_event(
            dg.AssetObservation("source_studies", partition=uid, tags=tags)
        )
    for name in _OF_STUDY:
        for uid in uids:
            instance.report_runless_asset_event(
                dg.AssetMaterialization(name, partition=uid, tags=tags)
            )
    for name in ("metadata_table", "segmentation_model", "champion_model"):
        instance.report_runless_asset_event(dg.AssetMaterialization(name, tags=tags))


def _arrive(instance: dg.DagsterInstance, uid: str) -> None:
    instance.add_dynamic_partitions(str(studies.name), [uid])
    instance.report_runless_asset_event(
        dg.AssetObservation("source_studies", partition=uid, tags={_VERSION: "1"})
    )


def run() -> Result:
    """Let studies arrive one by one; time the round that asks for each."""
    with tempfile.TemporaryDirectory() as name:
        lay_instance(Path(name))
        with mock.patch.dict(os.environ, {"DAGSTER_HOME": name}):
            seconds, processor = _rounds()
    return Result(
        question=f"One new study among {STUDIES}: the round that asks for all of it",
        target=f"below {LARGEST_S:.0f} s",
        met=sorted(seconds)[len(seconds) // 2] < LARGEST_S,
        data=f"{STUDIES} studies in Dagster's history, {len(_OF_STUDY)} assets each",
        measured={"round_s": spread(seconds), "of_it_processor_s": spread(processor)},
    )


def _rounds() -> tuple[list[float], list[float]]:
    defs = build_defs()
    selection = dg.AssetSelection.assets(*_OF_STUDY)
    seconds, processor = [], []
    with dg.DagsterInstance.get() as instance:
        _history(instance, [f"1.2.{number}" for number in range(STUDIES)])
        cursor = dg.evaluate_automation_conditions(
            defs, instance, asset_selection=selection
        ).cursor
        for number in range(ROUNDS):
            uid = f"1.3.{number}"
            _arrive(instance, uid)
            start, begun = time.perf_counter(), time.process_time()
            asked = dg.evaluate_automation_conditions(
                defs, instance, asset_selection=selection, cursor=cursor
            )
            seconds.append(time.perf_counter() - start)
            processor.append(time.process_time() - begun)
            cursor = asked.cursor
            for name in _OF_STUDY:
                wanted = asked.get_requested_partitions(dg.AssetKey(name))
                assert wanted == {uid}, (name, wanted)
    return seconds, processor
