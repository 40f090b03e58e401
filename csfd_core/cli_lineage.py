"""``csfd lineage``: what a prediction rests on, and what rests on a study."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csfd_core.errors import SettingsError

if TYPE_CHECKING:
    from rich.tree import Tree

    from csfd_core.registry.recorded import RecordedRuns
    from csfd_core.store.convert import Stores

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
_PIPED_WIDTH = 160  # a file or pipe has no width of its own


def register(app: typer.Typer) -> None:
    """Add the commands to ``csfd``."""
    app.add_typer(lineage_app)


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

    from csfd_core.registry.lineage import trace_prediction
    from csfd_core.registry.trees import prediction_tree

    stores, recorded = _open()
    found = trace_prediction(stores, name, recorded)
    _show(prediction_tree(found))
    _write(json_file, asdict(found))


@lineage_app.command()
def study(uid: StudyArgument, json_file: JsonOption = None) -> None:
    """Print the way forward: every model, report and prediction that used a study.

    Example: `csfd lineage study 1.2.826.0.1.3680043.11`
    """
    from dataclasses import asdict

    from csfd_core.registry.trees import usage_tree
    from csfd_core.registry.usage import trace_usage

    stores, recorded = _open()
    found = trace_usage(stores, uid, recorded)
    if not found.is_known:
        raise SettingsError(
            f"The store {stores.root} knows no study {uid}. Check CSFD_STORE."
        )
    _show(usage_tree(found))
    _write(json_file, asdict(found))


def _open() -> "tuple[Stores, RecordedRuns]":
    from csfd_core.registry.recorded import RecordedRuns
    from csfd_core.settings import Settings
    from csfd_core.store.convert import Stores
    from csfd_core.store.locations import Location

    settings = Settings.from_environment()
    stores = Stores(Location(settings.store))
    return stores, RecordedRuns(stores, settings.mlflow_tracking_uri)


def _show(tree: "Tree") -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPED_WIDTH, soft_wrap=True)
    console.print(tree)


def _write(path: Path | None, found: dict[str, Any]) -> None:
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"Cannot write {path}: {error.strerror}.") from error
