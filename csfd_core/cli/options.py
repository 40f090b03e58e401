"""Options that several commands have."""

from typing import Annotated

import typer

SourceOption = Annotated[
    str | None, typer.Option(help="Source; else CSFD_SOURCE or data/source.")
]
StoreOption = Annotated[
    str | None, typer.Option(help="Store; else CSFD_STORE or data/store.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        show_default="CSFD_WORKERS, else 0",
        help="Processes to use; 0 takes one per processor.",
    ),
]
DaskOption = Annotated[
    str | None,
    typer.Option(
        metavar="tcp://HOST:PORT",
        show_default="CSFD_DASK",
        help="Dask scheduler to use instead.",
    ),
]
