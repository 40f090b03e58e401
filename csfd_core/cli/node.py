"""``csfd receive``: the DICOM node from the command line."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to ``csfd``."""
    app.command()(receive)


def receive(
    host: Annotated[
        str | None,
        typer.Option(
            show_default="CSFD_DICOM_HOST, else 127.0.0.1",
            help="Address; one that other machines reach needs CSFD_DICOM_CALLERS.",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(show_default="CSFD_DICOM_PORT, else 11112", help="Port."),
    ] = None,
    ae_title: Annotated[
        str | None,
        typer.Option(
            show_default="CSFD_DICOM_AE_TITLE, else CSFD",
            help="Application entity title of this node.",
        ),
    ] = None,
) -> None:
    """Receive CT studies by C-STORE, and send results to the peers.

    Every image is de-identified before it is stored. A study is accepted when no image
    of it has come for CSFD_QUIET_S seconds; `csfd serve` then takes it through the
    graph. `csfd serve --dicom` starts the node as well.

    Example: `csfd receive --port 11112`
    """
    from csfd_core.network.node import be_discreet, leave, run
    from csfd_core.settings import DicomSettings

    settings = DicomSettings.read(host=host, port=port, ae_title=ae_title)
    be_discreet()
    run(settings, typer.echo)
    leave(0)
