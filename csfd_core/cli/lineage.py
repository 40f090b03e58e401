"""What a prediction rests on, what rests on a study, and taking a study out.

``csfd lineage`` and ``csfd withdraw``.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csfd_core.errors import SettingsError

if TYPE_CHECKING:
    from rich.tree import Tree

    from csfd_core.lineage.forward import Use
    from csfd_core.lineage.mlflow_records import RecordedRuns
    from csfd_core.lineage.withdrawal import Consequences
    from csfd_core.store.stores import Stores

lineage_app = typer.Typer(
    name="lineage",
    help="From a prediction back to its data, from a study on to what used it.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

JsonOption = Annotated[
    Path | None, typer.Option("--json", help="Also write it as JSON, with all studies.")
]
StudyArgument = Annotated[
    str, typer.Argument(metavar="UID", help="StudyInstanceUID.", show_default=False)
]
_LISTED = 50  # lines under a heading, at most
_PIPED_WIDTH = 160  # a file or pipe has no width of its own


def register(app: typer.Typer) -> None:
    """Add the commands to ``csfd``."""
    app.add_typer(lineage_app)
    app.command()(withdraw)


@lineage_app.command()
def prediction(
    name: Annotated[
        str,
        typer.Argument(metavar="ID", help="UID of a study, or a prediction's JSON."),
    ],
    json_file: JsonOption = None,
) -> None:
    """Print the way back: models, MLflow runs, code, manifest, training studies, study.

    Says of every study that a model has seen whether it has changed or was withdrawn
    since.

    Example: `csfd lineage prediction 1.2.826.0.1.3680043.11 --json lineage.json`
    """
    from dataclasses import asdict

    from csfd_core.lineage.back import trace_prediction
    from csfd_core.lineage.trees import prediction_tree

    stores, recorded = _open()
    traced = trace_prediction(stores, name, recorded)
    _show(prediction_tree(traced))
    _write(json_file, asdict(traced))


@lineage_app.command()
def study(uid: StudyArgument, json_file: JsonOption = None) -> None:
    """Print the way forward: every model, report and prediction that used a study.

    Example: `csfd lineage study 1.2.826.0.1.3680043.11`
    """
    from dataclasses import asdict

    from csfd_core.lineage.forward import trace_usage
    from csfd_core.lineage.trees import usage_tree

    stores, recorded = _open()
    usage = trace_usage(stores, uid, recorded)
    if not usage.is_known:
        raise SettingsError(
            f"The store {stores.root} knows no study {uid}. Check CSFD_STORE."
        )
    _show(usage_tree(usage))
    _write(json_file, asdict(usage))


def withdraw(
    uid: StudyArgument,
    reason: Annotated[
        str,
        typer.Option(help="Why; it is recorded. No names.", show_default=False),
    ],
    by: Annotated[
        str,
        typer.Option(help="Who; else the user of this process.", show_default=False),
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Take a study out for good, as when a patient withdraws consent.

    Removes it from the store and records the UID, so that it is never taken up again.
    In the cards of models, in MLflow and in Dagster's history a digest takes the place
    of the UID. Its files in the source are not deleted. Names the models and reports
    that have used it. What was cut off is finished by the next command.

    Example: `csfd withdraw 1.2.826.0.1.3680043.11 --reason "consent withdrawn"`
    """
    from csfd_core.lineage.forward import files_of
    from csfd_core.lineage.redaction import all_records
    from csfd_core.lineage.withdrawal import foresee
    from csfd_core.lineage.withdrawal import withdraw as take_out
    from csfd_core.registry.history import this_user
    from csfd_core.settings import Settings
    from csfd_core.store.source import Source, Sources

    if not reason.strip():
        raise SettingsError("A withdrawal needs a reason. Say it with --reason.")
    settings = Settings.read()
    stores, recorded = _open()
    sources = Sources([Source(settings.source), Source(settings.inbox)])
    consequences = foresee(stores, sources, uid, recorded)
    _tell(consequences)
    if not yes:
        typer.confirm(f"Withdraw study {uid} for good?", abort=True)
    who = by or this_user()
    records = all_records(settings.mlflow_tracking_uri)
    done = take_out(stores, uid, reason, who, records, typer.echo)
    if left := files_of(stores, uid):
        raise SettingsError(
            f"{left[0]} of study {uid} was written again meanwhile. Stop what is "
            "running and repeat the command."
        )
    typer.echo(f"Withdrawn {done.at} by {done.by}: {done.reason}")


def _tell(consequences: "Consequences") -> None:
    """Print what a withdrawal removes, what it does not, and what it makes stale."""
    uid = consequences.usage.study_uid
    if (earlier := consequences.usage.withdrawal) is not None:
        typer.echo(f"It was withdrawn {earlier.at} by {earlier.by}: {earlier.reason}")
    _list(f"Files of study {uid} to remove from the store", consequences.usage.holds)
    _list("Files in the source, which csfd never deletes", consequences.in_sources)
    _list("Models to train again", [_line(use) for use in consequences.to_train_again])
    _list(
        "Reports and predictions to make again",
        [_line(use) for use in consequences.to_make_again],
    )
    _list("Other studies of the same patient, which stay", consequences.siblings)
    typer.echo(
        "Reports that name or show it are removed with it: csfd run makes that on the "
        "data again, csfd ui the others. csfd run makes again what is stale; frozen "
        "versions stay until others take their place. In the cards of models, MLflow "
        "and Dagster's history a digest takes the place of its UID; copies of reports "
        "in MLflow are removed."
    )


def _line(use: "Use") -> str:
    return f"{use.kind} {use.name}: {', '.join(use.how)}"


def _list(title: str, lines: Sequence[str]) -> None:
    typer.echo(f"{title}: {len(lines) or 'none'}")
    for line in lines[:_LISTED]:
        typer.echo(f"  {line}")
    if len(lines) > _LISTED:
        typer.echo(f"  and {len(lines) - _LISTED} more: csfd lineage study UID --json")


def _open() -> "tuple[Stores, RecordedRuns]":
    from csfd_core.cli.stores import open_stores
    from csfd_core.lineage.mlflow_records import RecordedRuns
    from csfd_core.settings import Settings

    settings = Settings.read()
    stores = open_stores(settings.store)
    return stores, RecordedRuns(stores, settings.mlflow_tracking_uri)


def _show(tree: "Tree") -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPED_WIDTH, soft_wrap=True)
    console.print(tree)


def _write(path: Path | None, values: dict[str, Any]) -> None:
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"Cannot write {path}: {error.strerror}.") from error
