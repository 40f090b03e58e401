"""Peers: the archives that results may be sent to.

Some are named by ``CSFD_DICOM_PEERS``; these rows follow the setting, and a password in
it never enters the database. Others are kept on the page for administrators. Whether
results go to a peer by themselves is said on that page for either.
"""

import ipaddress
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

import sqlalchemy as sa

from csfd_core.errors import SettingsError
from csfd_core.settings.page import AE_TITLE
from csfd_core.web.database import peers

_NAME: Final = re.compile(r"[\w][\w .()-]{0,58}[\w)]|\w")
_HOST: Final = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|[0-9A-Fa-f:]+"
)
_CONFIGURED: Final = re.compile(
    r"(?P<tls>tls:)?(?P<ae>.{1,16})@(?P<host>\[[^\]]+\]|[^:@]+):(?P<port>[0-9]{1,5})"
)
_MOST_PORT: Final = 65535
_LONGEST_URL: Final = 500
_FORM: Final = "name=AE@host:port, name=tls:AE@host:port or name=https://…"


class PeerKind(StrEnum):
    """How a peer takes results."""

    C_STORE = "c-store"
    STOW = "stow"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerEndpoint:
    """What a peer is called and where it is.

    Attributes:
        name: For people.
        kind: C-STORE or STOW-RS.
        ae_title: Of the peer; for C-STORE alone, as are host, port and TLS.
        host: Name or address.
        port: TCP port.
        is_tls: Whether it speaks TLS.
        url: Base of its DICOMweb service, with a password where one is needed.
    """

    name: str
    kind: PeerKind
    ae_title: str = ""
    host: str = ""
    port: int = 0
    is_tls: bool = False
    url: str = ""

    def __post_init__(self) -> None:
        """Check all of it.

        Raises:
            SettingsError: If something cannot be meant; it never repeats a URL.
        """
        if _NAME.fullmatch(self.name) is None:
            raise SettingsError(
                "A peer's name has 1 to 60 letters, digits, spaces, dots, hyphens or "
                "brackets."
            )
        if self.kind == PeerKind.STOW:
            _require_url(self.name, self.url)
            return
        if re.fullmatch(AE_TITLE, self.ae_title) is None:
            raise SettingsError(
                f"Peer {self.name!r} needs an application entity title of 1 to 16 "
                "printable characters."
            )
        is_host = _HOST.fullmatch(self.host) is not None
        if not is_host or not 0 < self.port <= _MOST_PORT:
            raise SettingsError(
                f"Peer {self.name!r} needs a host name or address, and a port from 1 "
                f"to {_MOST_PORT}."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A peer as the database knows it.

    Attributes:
        id: Its number.
        endpoint: What it is called and where it is.
        is_automatic: Results go there by themselves.
        automatic_since: From when on: what was done before stays.
        is_active: Results may go there at all.
        is_configured: It is named by ``CSFD_DICOM_PEERS``.
        echo_asked_at: When an administrator last asked whether it answers.
        echo_at: When the node last knew.
        echo_told: What it knew then, a sentence.
    """

    id: int
    endpoint: PeerEndpoint
    is_automatic: bool
    automatic_since: float
    is_active: bool
    is_configured: bool
    echo_asked_at: float | None
    echo_at: float | None
    echo_told: str

    @property
    def name(self) -> str:
        """What it is called."""
        return self.endpoint.name

    @property
    def address(self) -> str:
        """Where it is, for people."""
        endpoint = self.endpoint
        if endpoint.kind == PeerKind.STOW:
            return endpoint.url
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        spoken = "tls:" if endpoint.is_tls else ""
        return f"{spoken}{endpoint.ae_title}@{host}:{endpoint.port}"

    @property
    def is_asked(self) -> bool:
        """Whether somebody waits to be told whether it answers."""
        asked = self.echo_asked_at
        return asked is not None and (self.echo_at is None or self.echo_at < asked)


def configured_endpoints(text: str) -> list[PeerEndpoint]:
    """Return the peers of ``CSFD_DICOM_PEERS``.

    Raises:
        SettingsError: If it cannot be read; it names the peer, never its address.
    """
    endpoints = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, equals, where = (part.strip() for part in entry.partition("="))
        if not equals:
            raise SettingsError(f"CSFD_DICOM_PEERS has an entry that is not {_FORM}.")
        endpoints.append(_configured_place(name, where))
    names = [endpoint.name for endpoint in endpoints]
    if len(set(names)) < len(names):
        raise SettingsError("CSFD_DICOM_PEERS names two peers alike.")
    return endpoints


def all_peers(connection: sa.Connection, *, active: bool = False) -> list[Peer]:
    """Return the peers by name.

    Args:
        connection: Of a transaction.
        active: Only those to which results may go.
    """
    wanted = sa.select(peers).order_by(peers.c.name)
    if active:
        wanted = wanted.where(peers.c.is_active)
    return [_to_peer(row) for row in connection.execute(wanted)]


def follow_setting(
    connection: sa.Connection, endpoints: Sequence[PeerEndpoint]
) -> None:
    """Let the database know the peers that a setting names, and forget none.

    A peer that the setting has ceased to name stays, switched off, with what was sent
    to it. One of the page with the same name becomes that of the setting.
    """
    by_name = {peer.name: peer for peer in all_peers(connection)}
    for endpoint in endpoints:
        values = {**_columns(endpoint), "is_configured": True}
        peer = by_name.get(endpoint.name)
        if peer is None:
            with suppress(sa.exc.IntegrityError), connection.begin_nested():
                connection.execute(peers.insert().values(**values))
        elif not peer.is_configured or _columns(peer.endpoint) != _columns(endpoint):
            same = peers.c.id == peer.id
            connection.execute(
                peers.update().where(same).values(is_active=True, **values)
            )
    named = {endpoint.name for endpoint in endpoints}
    gone = [p.id for p in by_name.values() if p.is_configured and p.name not in named]
    if gone:
        connection.execute(
            peers.update()
            .where(peers.c.id.in_(gone))
            .values(is_active=False, is_configured=False)
        )


def add_peer(connection: sa.Connection, endpoint: PeerEndpoint) -> int:
    """Add a peer; return its number.

    Raises:
        SettingsError: If there is one of this name, or its URL holds a password.
    """
    if "@" in urlsplit(endpoint.url).netloc:
        raise SettingsError(
            "A URL with a password belongs into CSFD_DICOM_PEERS: the database keeps "
            "none."
        )
    try:
        with connection.begin_nested():
            made = connection.execute(peers.insert().values(**_columns(endpoint)))
    except sa.exc.IntegrityError:
        raise SettingsError("There is a peer of this name already.") from None
    (number,) = made.inserted_primary_key or (0,)
    return int(number)


def change_peer(
    connection: sa.Connection, peer_id: int, *, is_active: bool, is_automatic: bool
) -> bool:
    """Say what may go to a peer; return whether there is one."""
    same = peers.c.id == peer_id
    if is_automatic:
        begun = peers.update().where(same, sa.not_(peers.c.is_automatic))
        connection.execute(begun.values(automatic_since=time.time()))
    values = {"is_active": is_active, "is_automatic": is_automatic}
    changed = peers.update().where(same).values(**values)
    return connection.execute(changed).rowcount == 1


def ask_echo(connection: sa.Connection, peer_id: int) -> bool:
    """Ask the node whether a peer answers; return whether there is such a peer."""
    changed = peers.update().where(peers.c.id == peer_id)
    return connection.execute(changed.values(echo_asked_at=time.time())).rowcount == 1


def tell_echo(connection: sa.Connection, peer_id: int, told: str) -> None:
    """Say whether a peer answers."""
    changed = peers.update().where(peers.c.id == peer_id)
    connection.execute(changed.values(echo_at=time.time(), echo_told=told))


def _configured_place(name: str, where: str) -> PeerEndpoint:
    if where.startswith(("https://", "http://")):
        return PeerEndpoint(name=name, kind=PeerKind.STOW, url=where)
    match = _CONFIGURED.fullmatch(where)
    if match is None:
        raise SettingsError(f"Peer {name[:60]!r} of CSFD_DICOM_PEERS is not {_FORM}.")
    return PeerEndpoint(
        name=name,
        kind=PeerKind.C_STORE,
        ae_title=match["ae"].strip(),
        host=match["host"].strip("[]"),
        port=int(match["port"]),
        is_tls=match["tls"] is not None,
    )


def _require_url(name: str, url: str) -> None:
    """Require the base of a DICOMweb service that names nobody to others.

    Raises:
        SettingsError: If it is none; it does not repeat it.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    is_plain = host is not None and not parts.query and not parts.fragment
    if not is_plain or len(url) > _LONGEST_URL or any(c.isspace() for c in url):
        raise SettingsError(
            f"Peer {name!r} needs the address of its DICOMweb service, such as "
            "https://archive.example/dicom-web."
        )
    if parts.scheme != "https" and not (
        parts.scheme == "http" and _is_loopback(host or "")
    ):
        raise SettingsError(
            f"Peer {name!r} needs https://: results name the patient. http:// is for "
            "this machine alone."
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def without_password(url: str) -> str:
    """Return a URL without user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _columns(endpoint: PeerEndpoint) -> dict[str, Any]:
    return {
        "name": endpoint.name,
        "kind": str(endpoint.kind),
        "ae_title": endpoint.ae_title,
        "host": endpoint.host,
        "port": endpoint.port,
        "is_tls": endpoint.is_tls,
        "url": without_password(endpoint.url),
    }


def _to_peer(row: sa.Row[Any]) -> Peer:
    return Peer(
        id=row.id,
        endpoint=PeerEndpoint(
            name=row.name,
            kind=PeerKind(row.kind),
            ae_title=row.ae_title,
            host=row.host,
            port=row.port,
            is_tls=row.is_tls,
            url=row.url,
        ),
        is_automatic=row.is_automatic,
        automatic_since=row.automatic_since,
        is_active=row.is_active,
        is_configured=row.is_configured,
        echo_asked_at=row.echo_asked_at,
        echo_at=row.echo_at,
        echo_told=row.echo_told,
    )
