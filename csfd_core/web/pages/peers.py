"""The page of peers: the archives that results may go to, and whether they answer."""

import time
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from fastapi.responses import RedirectResponse

from csfd_core.errors import SettingsError
from csfd_core.settings import DicomSettings
from csfd_core.web.audit import Action, record
from csfd_core.web.delivery.peers import (
    Peer,
    PeerEndpoint,
    PeerKind,
    add_peer,
    all_peers,
    ask_echo,
    change_peer,
    configured_endpoints,
    follow_setting,
)
from csfd_core.web.delivery.planning import NO_KEY
from csfd_core.web.pages.moments import ago
from csfd_core.web.pages.render import render
from csfd_core.web.security.sessions import (
    Session,
    require_administrator,
    require_form,
    require_session,
    services_of,
)
from csfd_core.web.services import Services

router = APIRouter(prefix="/admin/peers")

_PATIENCE_S: Final = 90.0  # after which nobody is expected to answer any more

MyServices = Annotated[Services, Depends(services_of)]
MyForm = Annotated[Session, Depends(require_form)]
MySession = Annotated[Session, Depends(require_session)]


@router.get("")
def show_peers(request: Request, session: MySession, services: MyServices) -> Response:
    """Show where results may go."""
    require_administrator(session)
    return _page(request, session, services)


@router.post("")
def add(
    request: Request,
    services: MyServices,
    session: MyForm,
    name: Annotated[str, Form(max_length=100)],
    kind: Annotated[PeerKind, Form()],
    ae_title: Annotated[str, Form(max_length=40)] = "",
    host: Annotated[str, Form(max_length=300)] = "",
    port: Annotated[str, Form(max_length=10)] = "",
    is_tls: Annotated[bool, Form()] = False,
    url: Annotated[str, Form(max_length=600)] = "",
) -> Response:
    """Add a peer."""
    require_administrator(session)
    is_stow = kind == PeerKind.STOW
    number = int(port) if port.isascii() and port.isdigit() else 0
    try:
        endpoint = PeerEndpoint(
            name=name.strip(),
            kind=kind,
            ae_title="" if is_stow else ae_title.strip(),
            host="" if is_stow else host.strip(),
            port=0 if is_stow else number,
            is_tls=is_tls and not is_stow,
            url=url.strip() if is_stow else "",
        )
        with services.database.transaction() as connection:
            peer_id = add_peer(connection, endpoint)
            record(connection, session.user.id, Action.PEER_ADDED, str(peer_id))
    except SettingsError as error:
        return _page(request, session, services, told=str(error))
    return RedirectResponse("/admin/peers", 303)


@router.post("/{peer_id}")
def change(
    peer_id: int,
    services: MyServices,
    session: MyForm,
    is_active: Annotated[bool, Form()] = False,
    is_automatic: Annotated[bool, Form()] = False,
) -> Response:
    """Say what may go to a peer, and what goes by itself."""
    require_administrator(session)
    with services.database.transaction() as connection:
        is_there = change_peer(
            connection, peer_id, is_active=is_active, is_automatic=is_automatic
        )
        if is_there:
            record(connection, session.user.id, Action.PEER_CHANGED, str(peer_id))
    return _back(is_there=is_there)


@router.post("/{peer_id}/echo")
def echo(peer_id: int, services: MyServices, session: MyForm) -> Response:
    """Ask the DICOM node whether a peer answers; this process does not call it."""
    require_administrator(session)
    with services.database.transaction() as connection:
        is_there = ask_echo(connection, peer_id)
    return _back(is_there=is_there)


def _back(*, is_there: bool) -> Response:
    if not is_there:
        raise HTTPException(404, "There is no such peer.")
    return RedirectResponse("/admin/peers", 303)


def _page(
    request: Request, session: Session, services: Services, told: str = ""
) -> Response:
    settings = DicomSettings.read()
    with services.database.transaction() as connection:
        try:
            follow_setting(connection, configured_endpoints(settings.peers))
        except SettingsError as error:
            told = told or str(error)
        peers = all_peers(connection)
    rows = [{"peer": peer, "answers": _answers(peer)} for peer in peers]
    page = render(
        request,
        session,
        "peers.html",
        rows=rows,
        is_waiting=any(peer.is_asked and not _is_late(peer) for peer in peers),
        why_not="" if settings.vault_key else NO_KEY,
        ae_title=settings.ae_title,
        told=told,
    )
    page.status_code = 422 if told else 200
    return page


def _answers(peer: Peer) -> str:
    """Say what is known of whether a peer answers."""
    if peer.is_asked:
        if _is_late(peer):
            return "The DICOM node has not looked: is csfd receive running?"
        return "Being asked…"
    if peer.echo_at is None:
        return ""
    moment = ago(peer.echo_at)
    return f"{peer.echo_told} ({moment}{'' if moment == 'just now' else ' ago'})"


def _is_late(peer: Peer) -> bool:
    return time.time() - (peer.echo_asked_at or 0.0) > _PATIENCE_S
