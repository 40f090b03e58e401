"""What ``csfd run`` and ``csfd ui`` start: Dagster on this project.

A module of its own, run in its own process, so that the core never imports Dagster.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

import dagster as dg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph

from csfd_core.eda.report import is_current
from csfd_core.errors import CsfdError
from csfd_core.settings import PROJECT_ROOT
from csfd_core.store.convert import Stores, StudyTask, needs_work
from csfd_core.store.source import Sources
from csfd_core.store.studies_table import studies_table_inputs
from csfd_core.vocabulary import is_uid
from csfd_dagster.definitions import build_defs
from csfd_dagster.mlflow_resource import MlflowResource
from csfd_dagster.partitions import partition_ranges, range_tags, studies
from csfd_dagster.resources import SourceResource, StoreResource

QUIET = {"loggers": {"console": {"config": {"log_level": "WARNING"}}}}


def run(profile: str) -> int:
    """Materialize the graph: partitions of new and changed studies, then the rest.

    Returns:
        Exit status.
    """
    source, store = SourceResource().open(), StoreResource()
    stores = store.open()
    tasks = [
        StudyTask(folder, stores, store.conversion())
        for folder in source.studies()
        if is_uid(folder.name)
    ]
    if not tasks:
        places = " and ".join(str(location) for location in source.locations)
        return _fail(f"There are no studies in {places}. Make some with csfd phantom.")
    MlflowResource().prepare()
    defs = build_defs()
    job = defs.resolve_job_def("everything")
    graph = defs.resolve_asset_graph()
    by_study = [k for k in graph.materializable_asset_keys if _is_by_study(graph, k)]
    others = [k for k in graph.materializable_asset_keys if k not in set(by_study)]
    with dg.DagsterInstance.get() as instance:
        name = str(studies.name)
        known = list(instance.get_dynamic_partitions(name))
        new = [t.folder.name for t in tasks if t.folder.name not in set(known)]
        instance.add_dynamic_partitions(name, new)
        wanted = {task.folder.name for task in tasks if needs_work(task)} | set(new)
        _say(f"{len(tasks)} studies, {len(wanted)} new or changed (profile {profile}).")
        runs = [
            (f"{len(keys)} studies", by_study, range_tags(keys))
            for keys in partition_ranges([*known, *new], wanted)
        ]
        if wanted or not _tables_are_current(stores, source):
            runs.append(("Tables and reports", others, {}))
        for what, selection, tags in runs:
            result = job.execute_in_process(
                instance=instance,
                asset_selection=selection,
                tags=tags,
                run_config=QUIET,
                raise_on_error=False,
            )
            if not result.success:
                return _fail(f"Run {result.run_id} failed; look at it in csfd ui.")
            _say(f"{what}: done (run {result.run_id}).")
    _say(f"Store: {stores.root}")
    return 0


def _tables_are_current(stores: Stores, sources: Sources) -> bool:
    """Say whether the table of studies and the report on it are what they would be."""
    inputs = studies_table_inputs(stores, sources)
    if inputs != stores.metadata.read_studies_inputs():
        return False
    return is_current(sources, stores)


def _is_by_study(graph: BaseAssetGraph, key: dg.AssetKey) -> bool:
    return bool(graph.get(key).partitions_def == studies)


def ui(port: int) -> NoReturn:
    """Become Dagster's web UI and daemon, until interrupted."""
    MlflowResource().prepare()
    _say(f"Dagster's UI is at http://127.0.0.1:{port} (stop it with Ctrl+C).")
    program = str(Path(sys.executable).parent / "dagster")
    workspace = ["--workspace", str(PROJECT_ROOT / "workspace.yaml")]
    place = ["--host", "127.0.0.1", "--port", str(port)]
    os.execv(program, [program, "dev", *place, *workspace])


def main() -> int:
    """Parse the arguments that ``csfd`` passes on."""
    parser = argparse.ArgumentParser(prog="csfd_dagster.launch")
    commands = parser.add_subparsers(dest="command", required=True)
    run_parser = commands.add_parser("run")
    run_parser.add_argument("--profile", choices=["demo", "full"], default="demo")
    ui_parser = commands.add_parser("ui")
    ui_parser.add_argument("--port", type=int, default=3000)
    arguments = parser.parse_args()
    os.environ.setdefault("DAGSTER_HOME", str(PROJECT_ROOT))
    try:
        if arguments.command == "run":
            return run(arguments.profile)
        ui(arguments.port)
    except CsfdError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return 130


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _fail(text: str) -> int:
    sys.stderr.write(f"csfd: {text}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
