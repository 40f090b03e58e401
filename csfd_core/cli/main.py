"""The ``csfd`` command.

Each command parses its arguments, calls the core and prints what came of it. What a
command needs is imported when it runs, so that ``csfd --help`` answers at once. Other
packages add commands through the entry point ``csfd.commands``, as ``csfd_dagster``
does: each names a function that takes the application.
"""

import json
import os
import sys
from collections import Counter
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from csfd_core.cli import champion as cli_champion
from csfd_core.cli import drift as cli_drift
from csfd_core.cli import export as cli_export
from csfd_core.cli import lineage as cli_lineage
from csfd_core.cli import move as cli_move
from csfd_core.cli import node as cli_node
from csfd_core.cli import predict as cli_models
from csfd_core.cli import web as cli_web
from csfd_core.cli.options import DaskOption, SourceOption, StoreOption, WorkersOption
from csfd_core.errors import (
    TOO_LITTLE_MEMORY,
    CsfdError,
    SettingsError,
    SourceError,
    is_want_of_memory,
)
from csfd_core.ingest.outcomes import Outcome
from csfd_core.text import count
from csfd_core.vocabulary import Profile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor

    from csfd_core.store.stores import Stores

app = typer.Typer(
    name="csfd",
    help="Find and locate cervical spine fractures in CT: from DICOM to models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog="Settings come from environment variables (CSFD_SOURCE, CSFD_STORE, "
    "CSFD_PROFILE and others: see the README) and, for S3, from the AWS_* variables. "
    "Everything lies below the current folder, or CSFD_HOME.",
)

SourceArgument = Annotated[
    str, typer.Argument(metavar="SOURCE", help="Folder or s3:// URL with studies.")
]


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to write; made if absent.")],
    studies: Annotated[int, typer.Option(min=1, help="Studies in the folder.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 0,
    profile: Annotated[
        Profile,
        typer.Option(help="demo: small and fast; full: 512x512, 69-1082 slices."),
    ] = "demo",
    version: Annotated[
        int,
        typer.Option(
            "--phantom-version",
            min=1,
            max=2,
            help="2: as various as published anatomy; 1: the phantom up to csfd 0.2.",
        ),
    ] = 2,
    foreign: Annotated[
        bool,
        typer.Option(
            "--foreign",
            help="Necks outside of what any training draws: very short or long, bent, "
            "turned, sharp or soft, scans that end within the column.",
        ),
    ] = False,
    locked: Annotated[
        int,
        typer.Option(min=0, help="Of the studies, at least so many to be locked test."),
    ] = 0,
    workers: WorkersOption = None,
) -> None:
    """Write synthetic CT studies of the neck, in the layout of the RSNA data set.

    Calling it again with more studies adds the new ones and keeps the others.

    Example: `csfd phantom data/source --studies 24 --seed 0`
    """
    from csfd_core.cli.console import study_progress
    from csfd_core.cli.phantoms import with_locked
    from csfd_core.phantom.config import VERSIONS, PhantomConfig
    from csfd_core.phantom.source import PhantomStudy, write_phantom_source

    if foreign and version != VERSIONS[-1]:
        raise typer.BadParameter(
            f"only version {VERSIONS[-1]} draws foreign necks. Received version "
            f"{version}.",
            param_hint="--foreign",
        )
    config = PhantomConfig(
        studies=studies, seed=seed, profile=profile, version=version, foreign=foreign
    )
    with (
        _open_executor(studies, workers, None) as executor,
        study_progress("Phantom", studies) as progress,
    ):

        def count(study: PhantomStudy) -> None:
            progress.advance(1, study.slice_count, study.size_bytes)

        written = [
            study
            for part in with_locked(config, locked)
            for study in write_phantom_source(
                out, part, executor=executor, on_study=count
            )
        ]
    fractured = sum(study.labels["patient_overall"] for study in written)
    masked = sum(study.has_mask for study in written)
    typer.echo(
        f"{len(written)} synthetic studies in {out}: {fractured} with fractures, "
        f"{masked} with masks."
    )


@app.command()
def inspect(
    source: SourceArgument,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the report as JSON.")
    ] = None,
    workers: WorkersOption = None,
    dask: DaskOption = None,
) -> None:
    """Read the headers of every study, order and check them; write nothing.

    Studies that cannot be trusted are listed as quarantined, with a code, what was seen
    and what to do about it.

    Example: `csfd inspect data/source --json report.json`
    """
    from csfd_core.cli.console import print_studies, study_progress
    from csfd_core.ingest.gather import gather_studies, require_some
    from csfd_core.ingest.inspect import InspectedStudy, add_labels, inspect_folders
    from csfd_core.store.source import Source

    origin = Source(source).require()
    folders, notes = gather_studies(origin)
    if not origin.has_labels():
        require_some(folders, origin)
    studies: list[InspectedStudy] = []
    with (
        _open_executor(len(folders), workers, dask) as executor,
        study_progress("Inspect", len(folders)) as progress,
    ):
        for inspected in inspect_folders(folders, executor):
            studies += inspected
            slices = sum(study.slice_count for study in inspected)
            progress.advance(1, slices, 0)
    studies.sort(key=lambda study: (study.folder, study.study_uid))
    studies, others = add_labels(studies, origin)
    notes += others
    print_studies(studies, notes)
    if json_file is not None:
        report = {"studies": [study.to_dict() for study in studies], "notes": notes}
        _write_json(json_file, report)


@app.command()
def convert(
    source: SourceArgument,
    store: Annotated[
        str, typer.Argument(metavar="STORE", help="Folder or s3:// URL to fill.")
    ],
    workers: WorkersOption = None,
    dask: DaskOption = None,
    jpeg_quality: Annotated[
        int | None,
        typer.Option(min=1, max=100, show_default="CSFD_JPEG_QUALITY, else 96"),
    ] = None,
) -> None:
    """Fill the slice and mask stores without Dagster.

    Studies that are up to date are left alone, so that an interrupted conversion goes
    on where it stopped. Quarantined studies are reported and do not stop the others.

    Example: `csfd convert s3://bucket/rsna s3://bucket/store`
    """
    from csfd_core.cli.console import study_progress
    from csfd_core.cli.stores import open_stores
    from csfd_core.ingest.convert import convert_studies, study_tasks
    from csfd_core.ingest.gather import gather_studies, require_some
    from csfd_core.ingest.outcomes import StudyOutcome
    from csfd_core.ingest.presence import presence_notes
    from csfd_core.ingest.studies_table import write_studies_table
    from csfd_core.settings import Settings
    from csfd_core.store.slices import ConversionSettings
    from csfd_core.store.source import Source, Sources

    origin = Source(source).require()
    stores = open_stores(store)
    quality = Settings.read(jpeg_quality=jpeg_quality).jpeg_quality
    settings = ConversionSettings(jpeg_quality=quality)
    folders, notes = gather_studies(origin)
    require_some(folders, origin)
    tasks = study_tasks(folders, stores, settings)
    outcomes: list[StudyOutcome] = []
    with (
        _open_executor(len(tasks), workers, dask, stores) as executor,
        study_progress("Convert", len(tasks)) as progress,
    ):
        for outcome in convert_studies(tasks, executor):
            outcomes.append(outcome)
            is_new = outcome.action == Outcome.WRITTEN
            slices = outcome.slice_count if is_new else 0
            progress.advance(1, slices, outcome.source_bytes if is_new else 0)
    sources = Sources([origin])
    _, others = write_studies_table(stores, sources)
    notes += others
    notes += presence_notes(stores, sources)
    for outcome in sorted(outcomes, key=lambda outcome: outcome.study_uid):
        if outcome.action == Outcome.QUARANTINED:
            typer.echo(f"quarantined {outcome.study_uid}: {outcome.codes[0]}")
    for note in notes:
        typer.echo(note)
    counts = Counter(outcome.action for outcome in outcomes)
    withdrawn = stores.withdrawn.study_uids()
    left_out = sum(folder.name in withdrawn for folder in folders)
    left_out += counts[Outcome.WITHDRAWN]
    if left_out:
        typer.echo(f"{count(left_out, 'withdrawn study', 'is', 'are')} left out.")
    failed = counts[Outcome.FAILED]
    typer.echo(
        f"{count(counts[Outcome.WRITTEN], 'study')} written, "
        f"{counts[Outcome.UNCHANGED]} unchanged, "
        f"{counts[Outcome.QUARANTINED]} quarantined, {failed} failed in {store}."
    )
    if failed:
        first = next(o for o in outcomes if o.action == Outcome.FAILED)
        raise SourceError(
            f"{count(failed, 'study')} failed; the first: {first.message} Run "
            "the same command again to go on."
        )


@app.command()
def eda(
    source: SourceOption = None,
    store: StoreOption = None,
    out: Annotated[
        str | None,
        typer.Option(help="Folder or s3:// URL; else reports/eda in the store."),
    ] = None,
) -> None:
    """Write the report on the data: labels, geometry, images, boxes, quality.

    Works on a label table alone; what needs images then says so.

    Example: `csfd eda --source data/source --store data/store`
    """
    from csfd_core.cli.stores import open_stores
    from csfd_core.reports.eda.report import write_eda_report
    from csfd_core.settings import Settings
    from csfd_core.store.locations import Location
    from csfd_core.store.source import Source, Sources

    settings = Settings.read()
    source_list = [Source(source or settings.source).require()]
    if source is None:
        source_list.append(Source(settings.inbox))
    report = write_eda_report(
        Sources(source_list),
        open_stores(store or settings.store),
        None if out is None else Location(out),
    )
    typer.echo(f"{report.numbers}.")
    typer.echo(f"Report: {report.page_path}")


cli_models.register(app)
cli_champion.register(app)
cli_lineage.register(app)
cli_drift.register(app)
cli_export.register(app)
cli_move.register(app)
cli_web.register(app)
cli_node.register(app)
for _entry_point in entry_points(group="csfd.commands"):
    _entry_point.load()(app)


def main() -> NoReturn:
    """Run ``csfd``; every failure on purpose is one line and exit status 1."""
    # TensorFlow's notices on instructions and rounding are no news to a user.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        app(prog_name="csfd")
    except CsfdError as error:
        _fail(str(error))
    except Exception as error:
        if _is_debugged():
            raise
        if is_want_of_memory(error):
            _fail(TOO_LITTLE_MEMORY)
        _fail(
            f"Unexpected {type(error).__name__}. Set CSFD_DEBUG=1 to see where it "
            "happened."
        )
    sys.exit(0)


def _is_debugged() -> bool:
    from csfd_core.settings import DiagnosticSettings

    try:
        return DiagnosticSettings.read().debug
    except SettingsError:
        return True


def _fail(message: str) -> NoReturn:
    typer.echo(f"csfd: {' '.join(message.split())}", err=True)
    sys.exit(1)


@contextmanager
def _open_executor(
    tasks: int, workers: int | None, dask: str | None, stores: "Stores | None" = None
) -> "Iterator[Executor]":
    """Open what the work on studies is done by, as options or settings say.

    What goes into a store needs workers that see it and have the secret for patients.
    """
    from csfd_core.ingest.patients import own_secret
    from csfd_core.runtime.study_map import StudyMap, Work

    opened = StudyMap.read(workers=workers, dask=dask).open(
        Work.FILES,
        tasks,
        store=None if stores is None else stores.root.folder,
        secret=None if stores is None else own_secret,
    )
    with opened as executor:
        yield executor


def _write_json(path: Path, report: dict[str, object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"Cannot write {path}: {error.strerror}.") from error


if __name__ == "__main__":
    main()
