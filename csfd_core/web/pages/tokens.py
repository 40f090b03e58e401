"""The page of access tokens: what programs sign in with at ``/dicom-web``."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import RedirectResponse

from csfd_core.errors import SettingsError
from csfd_core.settings import DicomSettings
from csfd_core.web.pages.moments import ago, day_and_time
from csfd_core.web.pages.render import render
from csfd_core.web.security.sessions import (
    Session,
    require_administrator,
    require_form,
    require_session,
    services_of,
)
from csfd_core.web.security.tokens import (
    HIGHEST_PRIORITY,
    add_token,
    all_tokens,
    revoke_token,
)
from csfd_core.web.services import Services

router = APIRouter(prefix="/admin")

PRIORITIES: Final = ("routine", "urgent", "STAT")

MyServices = Annotated[Services, Depends(services_of)]
MyForm = Annotated[Session, Depends(require_form)]
MySession = Annotated[Session, Depends(require_session)]


@router.get("/tokens")
def show_tokens(request: Request, session: MySession, services: MyServices) -> Response:
    """Show which programs may send or read."""
    require_administrator(session)
    return _page(request, session, services)


@router.post("/tokens")
def add(
    request: Request,
    services: MyServices,
    session: MyForm,
    name: Annotated[str, Form(max_length=100)],
    priority: Annotated[int, Form(ge=0, le=HIGHEST_PRIORITY)] = 0,
    may_send: Annotated[bool, Form()] = False,
    may_read: Annotated[bool, Form()] = False,
    keeps_identity: Annotated[bool, Form()] = False,
) -> Response:
    """Make a token, and show it this once."""
    require_administrator(session)
    try:
        with services.database.transaction() as connection:
            text = add_token(
                connection,
                session.user.id,
                name,
                may_send=may_send,
                may_read=may_read,
                priority=priority,
                keeps_identity=keeps_identity,
            )
    except SettingsError as error:
        return _page(request, session, services, told=str(error))
    return _page(request, session, services, made=(name, text))


@router.post("/tokens/{token_id}/revoke")
def revoke(token_id: int, services: MyServices, session: MyForm) -> Response:
    """Let a token open nothing any more."""
    require_administrator(session)
    with services.database.transaction() as connection:
        revoke_token(connection, session.user.id, token_id)
    return RedirectResponse("/admin/tokens", 303)


def _page(
    request: Request,
    session: Session,
    services: Services,
    told: str = "",
    made: tuple[str, str] | None = None,
) -> Response:
    with services.database.transaction() as connection:
        tokens = all_tokens(connection)
    rows = [
        {
            "token": token,
            "priority": PRIORITIES[token.priority],
            "made": day_and_time(token.created_at),
            "used": "never" if token.used_at is None else _told(ago(token.used_at)),
        }
        for token in tokens
    ]
    page = render(
        request,
        session,
        "tokens.html",
        rows=rows,
        priorities=list(enumerate(PRIORITIES)),
        has_vault=bool(DicomSettings.read().vault_key),
        address=f"{request.base_url}dicom-web",
        told=told,
        made=made,
    )
    page.status_code = 422 if told else 200
    return page


def _told(moment: str) -> str:
    return moment if moment == "just now" else f"{moment} ago"
