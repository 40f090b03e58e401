"""``csfd move``: a store, a source or an inbox to another place, as it is."""

from typing import Annotated

import typer
from rich.filesize import decimal

from csfd_core.errors import SourceError
from csfd_core.text import count


def register(app: typer.Typer) -> None:
    """Add the command to ``csfd``."""
    app.command()(move)


def move(
    origin: Annotated[
        str,
        typer.Argument(
            metavar="FROM", help="Folder or s3:// URL of a store, a source or an inbox."
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(metavar="TO", help="New folder or s3:// URL, or one to go on."),
    ],
    remove: Annotated[
        bool,
        typer.Option("--remove", help="Remove the original once all of it is there."),
    ] = False,
) -> None:
    """Move a store, a source or an inbox between folders and S3; nothing is made anew.

    Everything is copied and compared; the original stays unless --remove is given, now
    or in a later call. Called again, it goes on where it stopped. End csfd serve first.

    Example: `csfd move data/store s3://bucket/csfd-store`
    """
    from csfd_core.cli.console import byte_progress
    from csfd_core.store.locations import Location
    from csfd_core.store.moving import (
        copy_files,
        finish_move,
        plan_move,
        remove_original,
        tell_others,
    )

    ends = Location(origin), Location(target)
    try:
        planned = plan_move(*ends)
        record = planned.record
        if not record.is_finished:
            with byte_progress("Move", planned.size_bytes) as progress:
                copy_files(planned, progress)
            record = finish_move(planned)
        elif not remove and (told := tell_others(planned)):
            raise SourceError(
                f"This move was finished at {record.finished}, and since then: {told} "
                "Move to a new place to have it all."
            )
        typer.echo(
            f"The {record.kind} is in {ends[1]}: {count(record.files, 'file')}, "
            f"{decimal(record.size_bytes)}, all of them as they were."
        )
        if remove:
            with byte_progress("Remove", planned.size_bytes) as progress:
                left = remove_original(planned, progress)
            typer.echo(f"What was in {ends[0]} is removed.")
            if left:
                remainder = count(left, "file", "lies", "lie")
                typer.echo(f"{remainder} outside of it behind links, and stay.")
    except KeyboardInterrupt:
        typer.echo("Interrupted. Run the same command again to go on.", err=True)
        raise typer.Exit(130) from None
