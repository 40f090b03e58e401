"""Pages to come in and out: sign in, sign out, one's own password."""

import hmac
from typing import Annotated
from urllib.parse import urlsplit

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from fastapi.responses import RedirectResponse

from csfd_core.errors import SettingsError
from csfd_core.web.audit import Action, record
from csfd_core.web.database import users
from csfd_core.web.pages.render import render
from csfd_core.web.security.oidc.provider import Provider
from csfd_core.web.security.sessions import (
    Session,
    begin_session,
    cookie_name,
    end_session,
    find_session,
    require_form,
    require_session,
    services_of,
)
from csfd_core.web.security.users import SignInError, change_password, check_password
from csfd_core.web.services import Services

router = APIRouter()

MyServices = Annotated[Services, Depends(services_of)]


@router.get("/sign-in")
def show_sign_in(request: Request, to: str = "/") -> Response:
    """Show the form; who is signed in already goes on."""
    if find_session(request) is not None:
        return RedirectResponse(own_page(to), 303)
    return show_entrance(request, to)


def show_entrance(
    request: Request,
    to: str,
    *,
    typed: str = "",
    refused: SignInError | None = None,
    status: int = 403,
) -> Response:
    """Return the form.

    Args:
        request: What is answered.
        to: Page that was wanted.
        typed: Name that was tried.
        refused: Why it has not opened anything.
        status: Of that answer.
    """
    provider: Provider | None = request.app.state.provider
    page = render(
        request,
        None,
        "sign_in.html",
        to=own_page(to),
        typed=typed,
        told="" if refused is None else str(refused),
        provider="" if provider is None else provider.host,
    )
    page.status_code = 200 if refused is None else status
    return page


@router.post("/sign-in")
def sign_in(
    request: Request,
    services: MyServices,
    name: Annotated[str, Form(max_length=200)],
    password: Annotated[str, Form(max_length=1000)],
    to: Annotated[str, Form(max_length=500)] = "/",
) -> Response:
    """Begin a session, or say why not."""
    address = request.client.host if request.client else ""
    user_or_error = check_password(services.database, address, name, password)
    if isinstance(user_or_error, SignInError):
        return show_entrance(request, to, typed=name, refused=user_or_error)
    response = RedirectResponse(own_page(to), 303)
    with services.database.transaction() as connection:
        begin_session(connection, response, services.web, user_or_error)
    return response


@router.post("/sign-out")
def sign_out(
    services: MyServices, session: Annotated[Session, Depends(require_form)]
) -> Response:
    """End the session."""
    with services.database.transaction() as connection:
        end_session(connection, session.token_hash)
        record(connection, session.user.id, Action.SIGNED_OUT)
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(cookie_name(services.web), secure=services.web.behind_tls)
    return response


@router.get("/account")
def show_account(
    request: Request, session: Annotated[Session, Depends(require_session)]
) -> Response:
    """Show who one is, and a form for another password."""
    return render(request, session, "account.html", told="")


@router.post("/account")
def change_own_password(
    request: Request,
    services: MyServices,
    session: Annotated[Session, Depends(require_form)],
    old: Annotated[str, Form(max_length=1000)],
    new: Annotated[str, Form(max_length=1000)],
    again: Annotated[str, Form(max_length=1000)],
) -> Response:
    """Change one's own password; every session of this user ends."""
    address = request.client.host if request.client else ""
    try:
        if not hmac.compare_digest(new.encode(), again.encode()):
            raise SettingsError("The two new passwords differ.")
        with services.database.transaction() as connection:
            same = users.c.id == session.user.id
            name = connection.scalar(sa.select(users.c.name).where(same))
        if name is None:
            raise HTTPException(401, "Sign in first.")
        user_or_error = check_password(services.database, address, name, old)
        if isinstance(user_or_error, SignInError):
            raise SettingsError(f"The old password: {user_or_error}")
        with services.database.transaction() as connection:
            change_password(connection, session.user.id, session.user.id, new)
    except SettingsError as error:
        page = render(request, session, "account.html", told=str(error))
        page.status_code = 422
        return page
    return RedirectResponse("/sign-in", 303)


def own_page(to: str) -> str:
    """Return a path of this site: never where somebody else's link leads."""
    parts = urlsplit(to)
    is_own = not parts.scheme and not parts.netloc and parts.path.startswith("/")
    is_plain = is_own and "\\" not in to and not to.startswith("//")
    return parts.path if is_plain else "/"
