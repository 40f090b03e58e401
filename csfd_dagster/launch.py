"""What ``csfd run``, ``csfd ui`` and ``csfd simulate`` start: Dagster on this project.

A module of its own, run in its own process, so that the core never imports Dagster.
"""

import argparse
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from csfd_core.cli.console import print_models
from csfd_core.errors import CsfdError
from csfd_core.reports.comparison.report import MODELS_CSV
from csfd_core.reports.page import INDEX
from csfd_core.settings import PROJECT_ROOT, Settings
from csfd_core.store.paths import COMPARISON_REPORT as COMPARISON
from csfd_core.store.paths import EVERY_REPORT
from csfd_dagster.engine import (
    Project,
    open_project,
    require_studies,
    run_everything,
)
from csfd_dagster.resources.mlflow import MlflowResource
from csfd_dagster.simulation.plan import SimulationConfig
from csfd_dagster.simulation.weeks import simulate
from csfd_dagster.supervisor import dagster_services, private_folder, supervise


def run(profile: str, resources: Mapping[str, Any] | None = None) -> int:
    """Materialize the graph: what is new or has changed, and what follows from it.

    Args:
        profile: Sizes of the models.
        resources: Used in place of those that read the environment.

    Returns:
        Exit status.
    """
    project = open_project(profile, resources)
    try:
        require_studies(project.sources)
        with dg.DagsterInstance.get() as instance:
            run_everything(project, instance, _say)
    except CsfdError as error:
        return _fail(str(error))
    _close(project)
    return 0


def _close(project: Project) -> None:
    """Say what came of a run, and where to look."""
    root = project.stores.root
    models = f"{COMPARISON}/{MODELS_CSV}"
    if root.exists(models):
        frame = pd.read_csv(io.BytesIO(root.read(models)))
        print_models(frame, project.stores.metadata.read_data_kind())
    _say(f"Store: {root}")
    for page in EVERY_REPORT:
        if root.exists(f"{page}/{INDEX}"):
            _say(f"Report: {root}/{page}/{INDEX}")
    _say("Dagster's UI: make ui. MLflow's UI: make mlflow. Reports: make serve.")


def ui(port: int) -> int:
    """Run Dagster's web UI, its daemon and the server of files, until interrupted."""
    files_port = Settings.from_environment().files_port
    with private_folder() as folder:
        services = dagster_services(port, files_port, folder)
        MlflowResource().prepare()
        return supervise(services, folder, _say)


def main() -> int:
    """Parse the arguments that ``csfd`` passes on."""
    parser = argparse.ArgumentParser(prog="csfd_dagster.launch")
    commands = parser.add_subparsers(dest="command", required=True)
    run_parser = commands.add_parser("run")
    run_parser.add_argument("--profile", choices=["demo", "full"], default="demo")
    ui_parser = commands.add_parser("ui")
    ui_parser.add_argument("--port", type=int, default=3000)
    weeks_parser = commands.add_parser("simulate")
    weeks_parser.add_argument("folder", type=Path)
    for name in ("weeks", "start", "retrain", "seed"):
        weeks_parser.add_argument(f"--{name}", type=int, required=True)
    arguments = parser.parse_args()
    os.environ.setdefault("DAGSTER_HOME", str(PROJECT_ROOT))
    try:
        if arguments.command == "run":
            return run(arguments.profile)
        if arguments.command == "simulate":
            return simulate(
                arguments.folder,
                SimulationConfig(
                    weeks=arguments.weeks,
                    start=arguments.start,
                    retrain=arguments.retrain,
                    seed=arguments.seed,
                ),
                _say,
            )
        return ui(arguments.port)
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
