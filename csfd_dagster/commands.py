"""The commands of ``csfd`` that Dagster does: ``run``, ``ui``, ``serve``, ``simulate``.

They join the others through the entry point ``csfd.commands``, as the core never
imports Dagster. What a command needs is imported when it runs, so that ``csfd --help``
answers at once.
"""

import io
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csfd_core.cli.options import SourceOption, StoreOption
from csfd_core.vocabulary import FOLD_COUNT, Profile

if TYPE_CHECKING:
    from csfd_core.settings import Settings
    from csfd_core.store.locations import Location
    from csfd_dagster.durations import Durations
    from csfd_dagster.engine import Project


def register(app: typer.Typer) -> None:
    """Add the commands to ``csfd``."""
    app.command()(run)
    app.command()(ui)
    app.command()(serve)
    app.command()(predictor)
    app.command()(simulate)


def run(
    source: SourceOption = None,
    store: StoreOption = None,
    profile: Annotated[
        Profile | None,
        typer.Option(
            show_default="CSFD_PROFILE, else the store's, else demo",
            help="demo: models for two processors; full: for a GPU.",
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=FOLD_COUNT,
            show_default="CSFD_FOLDS, else 1",
            help="Folds to train classifiers of: 1 is quick, 5 is cross-validation, "
            "with mean and spread in the report.",
        ),
    ] = None,
) -> None:
    """Materialize the whole asset graph with Dagster: what is new or has changed.

    Example: `csfd run --source data/source --store data/store --folds 5`
    """
    prepare_environment(source, store, profile, folds)
    run_graph()


def ui(
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 3000,
    source: SourceOption = None,
    store: StoreOption = None,
) -> None:
    """Open Dagster's web UI on this project, with the daemon that runs its sensors."""
    prepare_environment(source, store)

    from csfd_core.cli.stores import open_stores
    from csfd_core.settings import Settings
    from csfd_dagster.instance.files import lay_instance
    from csfd_dagster.resources.mlflow import MlflowResource
    from csfd_dagster.supervisor import dagster_services, private_folder, supervise

    settings = Settings.read()
    open_stores(settings.store)  # which finishes what was cut off
    with private_folder() as folder:
        services = dagster_services(port, settings.files_port, folder)
        lay_instance(settings.dagster_home)
        MlflowResource().prepare()
        raise typer.Exit(supervise(services, folder, _say))


def serve(
    host: Annotated[
        str | None,
        typer.Option(
            show_default="CSFD_WEB_HOST, else 127.0.0.1",
            help="Address; one that other machines reach needs TLS in front.",
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(show_default="CSFD_WEB_PORT, else 8080", help="Port.")
    ] = None,
    source: SourceOption = None,
    store: StoreOption = None,
    check: Annotated[
        bool, typer.Option("--check", help="Say what is missing; start nothing.")
    ] = False,
    warm: Annotated[
        bool,
        typer.Option(
            "--predictor/--no-predictor",
            help="Keep the models in memory; without, each study loads them: later, "
            "and with 2 GB less.",
        ),
    ] = True,
    dicom: Annotated[
        bool,
        typer.Option("--dicom", help="Start the DICOM node as well: csfd receive."),
    ] = False,
    dagster_ui: Annotated[
        bool, typer.Option("--dagster-ui", help="Start Dagster's UI as well.")
    ] = False,
    ui_port: Annotated[int, typer.Option(help="Port of Dagster's UI.")] = 3000,
) -> None:
    """Start the reader's page, and keep all that it needs running.

    The first start makes the user admin and shows their password once.

    Example: `csfd serve --port 8080`
    """
    prepare_environment(source, store)

    from csfd_core.settings import DicomSettings, Settings, WebSettings
    from csfd_core.web.server import require_safe_host
    from csfd_dagster.serving import (
        GRACE_S,
        look_before,
        make_first_user,
        serve_services,
    )
    from csfd_dagster.supervisor import private_folder, supervise

    web = WebSettings.read(host=host, port=port)
    web.export("database")
    settings = Settings.read()
    node = DicomSettings.read() if dicom else None
    if check:
        remarks = look_before(settings, web, node)
        for remark in remarks:
            _say(remark.text)
        if any(remark.is_fault for remark in remarks):
            raise typer.Exit(1)
        _say("Ready to start: csfd serve.")
        return
    require_safe_host(web)
    with private_folder() as folder:
        services = serve_services(
            web,
            folder,
            has_predictor=warm,
            dicom=node,
            ui_port=ui_port if dagster_ui else None,
        )
        _prepare_serving(settings)
        from csfd_core.web.database import Database

        database = Database(web.database)
        password = make_first_user(database)
        database.close()
        if password is not None:
            _say(f"The first user is admin, password {password}")
            _say("It is shown this once. Change it after you have signed in.")
        raise typer.Exit(supervise(services, folder, _say, GRACE_S))


def predictor(store: StoreOption = None) -> None:
    """Keep the models in memory and predict uploads; `csfd serve` starts it."""
    prepare_environment(None, store)

    from csfd_core.inference.warm import main

    raise typer.Exit(main())


def _prepare_serving(settings: "Settings") -> None:
    """Make everything ready that the services expect to be there."""
    from csfd_core.cli.stores import open_stores
    from csfd_core.registry.profile import require_profile
    from csfd_dagster.instance.files import lay_instance
    from csfd_dagster.resources.mlflow import MlflowResource

    stores = open_stores(settings.store)  # which finishes what was cut off
    require_profile(stores, settings.profile)
    lay_instance(settings.dagster_home)
    MlflowResource().prepare()


def simulate(
    out: Annotated[
        Path, typer.Argument(help="New folder for everything; data/simulation if none.")
    ] = Path("data/simulation"),
    weeks: Annotated[int, typer.Option(min=6, help="Weeks after the start.")] = 13,
    start: Annotated[int, typer.Option(min=1, help="Studies at the start.")] = 80,
    retrain: Annotated[
        int, typer.Option(min=1, help="New labelled studies that start a training.")
    ] = 15,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same weeks.")] = 0,
) -> None:
    """Live through three months of a department on phantoms, in minutes.

    Studies arrive every week, some broken, half-copied or misread; labels are
    corrected, a patient withdraws consent, and in one week every label is wrong. The
    sensor, the retraining schedule and the decision on the champion are the real ones.
    Prints a table of the weeks; exits with 1 where something that must hold does not.

    Example: `csfd simulate data/simulation --weeks 13`
    """
    from csfd_dagster.simulation import weeks as simulation
    from csfd_dagster.simulation.plan import SimulationConfig

    config = SimulationConfig(weeks=weeks, start=start, retrain=retrain, seed=seed)
    root = out.expanduser().absolute()
    raise typer.Exit(simulation.simulate(root, config, _say))


def prepare_environment(
    source: str | None = None,
    store: str | None = None,
    profile: Profile | None = None,
    folds: int | None = None,
) -> None:
    """Settle where everything is, for this process and those that Dagster starts.

    Args:
        source: As ``CSFD_SOURCE``.
        store: As ``CSFD_STORE``.
        profile: As ``CSFD_PROFILE``; without either, the store's.
        folds: As ``CSFD_FOLDS``.

    Raises:
        SettingsError: If a setting cannot be used, or the store is of another profile.
    """
    from csfd_core.registry.profile import profile_of
    from csfd_core.settings import GROUPS, ClassificationSettings, Settings
    from csfd_core.store.locations import Location
    from csfd_core.store.stores import Stores

    settings = Settings.read(source=source, store=store, profile=profile)
    if "profile" not in settings.model_fields_set:
        stored_profile = profile_of(Stores(Location(settings.store)))
        settings = Settings.read(source=source, store=store, profile=stored_profile)
    settings.export("home", "dagster_home")
    for group in GROUPS:  # told at once, and not when a run has come as far
        group.read()
    ClassificationSettings.read(folds=folds).export()
    # Dagster ends a tick after a minute, and forgets what it has found. To list the
    # slices of a thousand studies on S3 takes longer; the sensor rests after it.
    os.environ.setdefault("DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS", "900")
    os.environ.setdefault("DAGSTER_SCHEDULE_GRPC_TIMEOUT_SECONDS", "900")
    # It would be the longest of these; who is asked to end ends as soon as before.
    os.environ.setdefault("DAGSTER_GRPC_SHUTDOWN_GRACE_PERIOD", "60")


def run_graph(resources: Mapping[str, Any] | None = None) -> None:
    """Materialize the graph: what is new or has changed; say what came of it.

    Args:
        resources: Used in place of those that read the environment.

    Raises:
        SourceError: If there are no studies.
        CsfdError: If a run failed.
    """
    import dagster as dg

    from csfd_core.registry.profile import require_profile
    from csfd_core.settings import Settings
    from csfd_dagster.engine import open_project, require_studies, run_everything
    from csfd_dagster.instance.files import lay_instance

    project = open_project(resources)
    require_studies(project.sources)
    settings = Settings.read()
    require_profile(project.stores, settings.profile)
    lay_instance(settings.dagster_home)
    with dg.DagsterInstance.get() as instance:
        durations = run_everything(project, instance, _say)
    _close(project, durations)


def _close(project: "Project", durations: "Durations") -> None:
    """Say what came of a run, where its time went, and where to look."""
    import pandas as pd
    import psutil

    from csfd_core.cli.console import print_durations, print_models
    from csfd_core.reports.comparison.report import MODELS_CSV
    from csfd_core.reports.page import INDEX
    from csfd_core.store.paths import COMPARISON_REPORT, EVERY_REPORT

    root = project.stores.root
    models = f"{COMPARISON_REPORT}/{MODELS_CSV}"
    if root.exists(models):
        frame = pd.read_csv(io.BytesIO(root.read(models)))
        kind = project.stores.metadata.read_data_kind()
        print_models(frame, kind, _loss_of_prevalences(root))
    _say(f"Store: {root}")
    for page in EVERY_REPORT:
        if root.exists(f"{page}/{INDEX}"):
            _say(f"Report: {root}/{page}/{INDEX}")
    whole_s = time.time() - psutil.Process().create_time()
    print_durations(durations.parts(whole_s))
    _say(
        "The page for readers: csfd serve. Dagster's UI: csfd ui. What the runs have "
        "recorded: make mlflow."
    )


def _loss_of_prevalences(root: "Location") -> float:
    """Return what the newest comparison says of the prevalences, NaN if nothing."""
    import pandas as pd

    from csfd_core.store.paths import COMPARISON_REPORT

    path = f"{COMPARISON_REPORT}/tables/references.csv"
    if not root.exists(path):
        return math.nan
    losses = pd.read_csv(io.BytesIO(root.read(path)), index_col="reference")
    return float(losses["competition_log_loss"].get("prevalence", math.nan))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
