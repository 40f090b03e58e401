"""``csfd champion``: who serves, who challenges, and changing that by hand."""

import json
from typing import TYPE_CHECKING, Annotated, Final

import typer

from csfd_core.errors import SettingsError

if TYPE_CHECKING:
    from csfd_core.registry.champion import ChampionRegistry, Version
    from csfd_core.registry.history import Change

champion_app = typer.Typer(
    name="champion",
    help="The model that serves: see it, and change it by hand.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

ReasonOption = Annotated[
    str, typer.Option(help="Why; it is recorded.", show_default=False)
]
ByOption = Annotated[
    str, typer.Option(help="Who; else the user of this process.", show_default=False)
]
_SCORES: Final = ("competition_log_loss", "auc_vertebra", "sensitivity_vertebra")


def register(app: typer.Typer) -> None:
    """Add the commands to ``csfd``."""
    app.add_typer(champion_app)


@champion_app.command()
def show() -> None:
    """Print champion, challenger, their scores, and every change of these titles.

    Example: `csfd champion show`
    """
    from csfd_core.registry.appointment import standing_of
    from csfd_core.registry.history import Alias

    registry = _open()
    if not registry.is_begun:
        typer.echo("There is no champion yet. Materialize champion_model: csfd run.")
        return
    for alias in Alias:
        version = registry.holder(alias)
        typer.echo(f"{alias}: {'none' if version is None else version.title}")
        if version is not None:
            _show_decision(version)
    for problem in standing_of(registry)[1]:
        typer.echo(f"It may not serve: {problem}")
    typer.echo("history:")
    for change in registry.history():
        _show_change(change)


@champion_app.command()
def promote(
    version: Annotated[int, typer.Argument(min=1, help="As csfd champion show says.")],
    reason: ReasonOption,
    by: ByOption = "",
) -> None:
    """Make a version the champion, whatever was decided.

    Its files must be whole, and it must not have seen the locked test set.

    Example: `csfd champion promote 3 --reason "Reads C7 better on our scanner."`
    """
    from csfd_core.registry.appointment import promote_by_hand
    from csfd_core.registry.history import this_user

    registry = _open_begun()
    _show_change(promote_by_hand(registry, version, by or this_user(), reason))


@champion_app.command()
def rollback(reason: ReasonOption, by: ByOption = "") -> None:
    """Give the title back to the champion before the present one.

    A version that lost the title so does not get it again by itself.

    Example: `csfd champion rollback --reason "Misses fractures of C1."`
    """
    from csfd_core.registry.appointment import roll_back
    from csfd_core.registry.history import this_user

    _show_change(roll_back(_open_begun(), by or this_user(), reason))


def _open() -> "ChampionRegistry":
    from csfd_core.cli.stores import open_stores
    from csfd_core.registry.champion import ChampionRegistry
    from csfd_core.settings import Settings

    settings = Settings.read()
    stores = open_stores(settings.store)
    return ChampionRegistry(stores, settings.mlflow_tracking_uri)


def _open_begun() -> "ChampionRegistry":
    registry = _open()
    if not registry.is_begun:
        raise SettingsError(
            f"The store {registry.stores.root} has no registered version yet. "
            "Materialize champion_model: csfd run."
        )
    return registry


def _show_decision(version: "Version") -> None:
    """Print what was decided when the version was the challenger."""
    from csfd_core.registry.contest import DECISION_TAG
    from csfd_core.registry.decision import DecisionNote

    text = version.tags.get(DECISION_TAG)
    if text is None:
        return
    note = DecisionNote.read(json.loads(text), f"The tag of {version.title}")
    for name, scores in note.scores.items():
        told = ", ".join(f"{key} {_number(scores[key])}" for key in _SCORES)
        typer.echo(f"  {name} on {note.studies} test studies: {told}")
    typer.echo(f"  decided: {note.verdict}")
    for condition in note.conditions:
        mark = "met" if condition.is_met else "NOT MET"
        typer.echo(f"  {mark}: {condition.sentence}")


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _show_change(change: "Change") -> None:
    before = "none" if change.before is None else change.before
    after = "none" if change.after is None else f"{change.after} {change.model}".strip()
    typer.echo(
        f"  {change.at} {change.alias}: {before} -> {after}, {change.action} "
        f"({change.kind}) by {change.by}: {change.reason}"
    )
