"""What ``csfd serve`` starts, and what it looks at before.

The page, the process that keeps the models in memory, and Dagster's code server and
daemon, which take an upload through the graph; Dagster's own UI where it is wanted.
"""

import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from csfd_core.errors import CsfdError, SettingsError
from csfd_core.settings import DicomSettings, OidcSettings, Settings, WebSettings
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from csfd_core.web.server import GRACE_S as WEB_GRACE_S
from csfd_core.web.server import require_safe_host, url_of
from csfd_dagster.supervisor import Service, answers, graph_services, ui_services

if TYPE_CHECKING:
    from csfd_core.web.database import Database

GRACE_S: Final = WEB_GRACE_S + 4.0  # for all: then what still runs is killed
_LEAST_FREE_GB: Final = 5
_PROBE: Final = ".csfd-probe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """What was found before the start; one that is no ``fault`` prevents nothing."""

    text: str
    is_fault: bool = True


def serve_services(
    web: WebSettings,
    folder: Path,
    *,
    has_predictor: bool = True,
    dicom: DicomSettings | None = None,
    ui_port: int | None = None,
) -> list[Service]:
    """Return the services of ``csfd serve``.

    Args:
        web: Where the page listens.
        folder: For sockets: nobody else may enter it.
        has_predictor: Whether models are kept in memory.
        dicom: Where the DICOM node listens; ``None``: it is not started.
        ui_port: Of Dagster's UI; ``None``: it is not started.

    Raises:
        SettingsError: If a port is taken, or OpenID Connect is set up by half.
    """
    from csfd_core.web.security.oidc.provider import open_provider

    require_port(web)
    open_provider(OidcSettings.read())  # refuses what is set up by half
    page = (_reachable(web.host), web.port)
    services = [*graph_services(folder)]
    if has_predictor:
        services.append(_predictor(folder))
    services.append(
        Service(
            name="web",
            command=[sys.executable, "-m", "csfd_core.web.server"],
            greeting=f"The reader's page is at {url_of(web)} (stop it with Ctrl+C).",
            is_ready=lambda: answers(_family_of(web.host), page),
        )
    )
    if dicom is not None:
        services.append(_node(dicom))
    if ui_port is not None:
        services += ui_services(ui_port, Settings.read().files_port, folder)
    return services


def _predictor(folder: Path) -> Service:
    socket_path = str(folder / "predictor.sock")
    # For runs as well: children of the code server.
    WebSettings.read(predictor_socket=socket_path).export("predictor_socket")
    return Service(
        name="predictor",
        command=[sys.executable, "-m", "csfd_core.inference.warm"],
        greeting="The predictor has its models in memory.",
        is_ready=lambda: answers(socket.AF_UNIX, socket_path),
    )


def _node(dicom: DicomSettings) -> Service:
    require_node(dicom)
    address = (_reachable(dicom.host), dicom.port)
    return Service(
        name="DICOM node",
        command=[sys.executable, "-m", "csfd_core.network.node"],
        greeting="The DICOM node receives studies, and sends results to its peers.",
        is_ready=lambda: answers(_family_of(dicom.host), address),
    )


def require_port(web: WebSettings) -> None:
    """Require that the page can listen where it is to.

    Raises:
        SettingsError: If it cannot.
    """
    remedy = "Give others with --port and --host."
    _require_place(web.host, web.port, "page", remedy)


def require_node(dicom: DicomSettings) -> None:
    """Require that the DICOM node can listen, and to whom it is to.

    Raises:
        SettingsError: If it cannot.
    """
    from csfd_core.network.callers import require_known_callers
    from csfd_core.network.tls import server_context

    require_known_callers(dicom)
    server_context(dicom)
    remedy = "Set CSFD_DICOM_PORT and CSFD_DICOM_HOST."
    _require_place(dicom.host, dicom.port, "DICOM node", remedy)


def _require_place(host: str, port: int, name: str, remedy: str) -> None:
    try:
        with socket.socket(_family_of(host)) as probe:
            # As servers do: a connection that has just ended does not keep a port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise SettingsError(
            f"The {name} cannot listen at port {port} of {host}: {error.strerror}. "
            f"{remedy}"
        ) from error


def make_first_user(database: "Database") -> str | None:
    """Make the first administrator; return their password, to be shown once."""
    from csfd_core.web.security.users import first_administrator

    with database.transaction() as connection:
        return first_administrator(connection)


def look_before(
    settings: Settings, web: WebSettings, dicom: DicomSettings | None = None
) -> list[Remark]:
    """Return what is missing or wrong, the faults first."""
    checks: list[Callable[[], Iterator[Remark]]] = [
        lambda: _told(lambda: require_safe_host(web)),
        lambda: _told(lambda: require_port(web)),
        lambda: _told(lambda: _require_database(web)),
        lambda: _told(_require_provider),
        lambda: _told(lambda: _require_key(settings)),
        lambda: _told(lambda: _require_writable(settings.inbox, "inbox", "CSFD_INBOX")),
        lambda: _told(lambda: _require_writable(settings.store, "store", "CSFD_STORE")),
        lambda: _room(settings),
    ]
    if dicom is not None:
        checks.append(lambda: _told(lambda: require_node(dicom)))
    remarks = [remark for check in checks for remark in check()]
    with suppress(CsfdError):  # of a store that cannot be read, which is told already
        remarks += _models(settings)
    return remarks


def _told(require: Callable[[], object]) -> Iterator[Remark]:
    try:
        require()
    except CsfdError as error:
        yield Remark(text=str(error))


def _require_database(web: WebSettings) -> None:
    from csfd_core.web.database import Database

    database = Database(web.database)
    try:
        with database.transaction():  # begins as a writer
            pass
    finally:
        database.close()


def _require_provider() -> None:
    """Require that an OpenID Connect provider, where one is set, can be asked."""
    from csfd_core.web.security.oidc.provider import open_provider

    provider = open_provider(OidcSettings.read())
    if provider is not None:
        provider.require_usable()


def _require_key(settings: Settings) -> None:
    from csfd_core.ingest.patients import read_secret

    read_secret(settings.key_file)


def _require_writable(url: str, name: str, variable: str) -> None:
    location = Location(url)
    try:
        location.write(_PROBE, b"")
        location.remove(_PROBE)
    except CsfdError as error:
        raise SettingsError(
            f"The {name} {location} cannot be written. Check {variable} and the rights "
            "of its folder."
        ) from error


def _room(settings: Settings) -> Iterator[Remark]:
    for name in ("inbox", "store"):
        location = Location(getattr(settings, name))
        if not location.is_local:
            continue
        folder = Path(location.url)
        while not folder.exists():
            folder = folder.parent
        free_gb = shutil.disk_usage(folder).free / 1e9
        if free_gb < _LEAST_FREE_GB:
            yield Remark(
                text=f"The disk of the {name} has {free_gb:.1f} GB left, a study takes "
                f"up to 1 GB. Make room for at least {_LEAST_FREE_GB} GB."
            )


def _models(settings: Settings) -> Iterator[Remark]:
    from csfd_core.registry.champion import ChampionRegistry
    from csfd_core.registry.serving import GENERAL_PROFILE, stand_in

    stores = Stores(Location(settings.store))
    if ChampionRegistry(stores, settings.mlflow_tracking_uri).is_begun:
        return
    if stand_in(stores) is not None:
        speaks = "the best of the comparison will speak"
    elif settings.profile == GENERAL_PROFILE:
        speaks = "the general classifier will speak, which has learnt from phantoms"
    else:
        speaks = "nothing can be predicted with the profile full"
    told = f"There is no champion yet: {speaks}. csfd run trains one."
    yield Remark(text=told, is_fault=False)


def _family_of(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - asked
