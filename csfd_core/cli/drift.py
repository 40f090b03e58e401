"""``csfd drift``: whether new studies are like those of the training."""

from typing import TYPE_CHECKING, Annotated

import typer

from csfd_core.text import count

if TYPE_CHECKING:
    from csfd_core.store.stores import Stores


def register(app: typer.Typer) -> None:
    """Add the command to ``csfd``."""
    app.command()(drift)


def drift(
    source: Annotated[
        str | None,
        typer.Option(
            help="Folder or s3:// URL whose studies that the store does not have are "
            "counted; else CSFD_SOURCE and CSFD_INBOX."
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(help="Store with the studies; else CSFD_STORE or data/store."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            help="Folder or s3:// URL for the report; else reports/drift in the store."
        ),
    ] = None,
) -> None:
    """Say whether the studies that came since are like those of the training.

    Compares the studies of the store that the champion has not seen with those that it
    was trained on: grey levels, spacing, size, label rates and predicted
    probabilities. A feature has drifted if both groups differ by more than chance
    (p corrected for all features) and by more than a margin. With fewer than ten new
    studies it says so instead of judging.

    Predicts new studies whose predictions are missing, and keeps them in the store.
    Exit status is 0 whether or not the data have drifted.

    Example: `csfd drift --store data/store --out drift`
    """
    from csfd_core.cli.console import print_drift
    from csfd_core.cli.stores import open_stores
    from csfd_core.reports.drift.observe import observe_drift
    from csfd_core.reports.drift.report import (
        explain_missing,
        report_location,
        summarize,
        to_frame,
        write_report,
    )
    from csfd_core.reports.page import INDEX
    from csfd_core.settings import Settings
    from csfd_core.store.locations import Location

    settings = Settings.read()
    stores = open_stores(store or settings.store)
    waiting = _not_ingested(stores, source, settings.source, settings.inbox)
    observed = observe_drift(stores, settings.mlflow_tracking_uri)
    location = report_location(stores) if out is None else Location(out)
    write_report(location, observed)
    print_drift(to_frame(observed))
    if observed.groups.serving is not None and observed.groups.serving.notice:
        typer.echo(observed.groups.serving.notice)
    typer.echo(summarize(observed))
    for line in (explain_missing(observed), waiting):
        if line:
            typer.echo(line)
    typer.echo(f"Verdict: {observed.verdict}.")
    typer.echo(f"Report: {location}/{INDEX}")


def _not_ingested(
    stores: "Stores", source: str | None, default: str, inbox: str
) -> str:
    """Say how many studies of the sources the comparison does not have, if any."""
    from csfd_core.store.source import Source, Sources
    from csfd_core.vocabulary import is_uid

    source_list = [Source(default), Source(inbox)]
    if source is not None:
        source_list = [Source(source).require()]
    folders = {f.name for f in Sources(source_list).studies() if is_uid(f.name)}
    known_uids = set(stores.metadata.study_uids()) | set(stores.withdrawn.study_uids())
    missing = len(folders - known_uids)
    if not missing:
        return ""
    return (
        f"The comparison leaves out {count(missing, 'study')} of the source, not in "
        "the store yet; csfd run takes up what is new."
    )
