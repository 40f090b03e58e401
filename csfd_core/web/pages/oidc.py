"""The way to the OpenID Connect provider, and back."""

import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import RedirectResponse

from csfd_core.settings import WebSettings
from csfd_core.web.pages.entrance import own_page, show_entrance
from csfd_core.web.security.oidc.accounts import sign_in
from csfd_core.web.security.oidc.asking import ProviderError, is_safe
from csfd_core.web.security.oidc.attempts import LASTS_S, Attempts
from csfd_core.web.security.oidc.provider import Answer, Provider
from csfd_core.web.security.sessions import (
    begin_session,
    cookie_name,
    find_session,
    services_of,
)
from csfd_core.web.security.users import SignInError
from csfd_core.web.services import Services

router = APIRouter(prefix="/sign-in/oidc")

_BACK: Final = "/sign-in/oidc/back"
_HOST: Final = re.compile(r"[a-zA-Z0-9.:\[\]_-]{1,255}")
_LONGEST: Final = 200  # characters of the page that was wanted

MyServices = Annotated[Services, Depends(services_of)]


def _provider_of(request: Request) -> Provider:
    provider: Provider | None = request.app.state.provider
    if provider is None:
        raise HTTPException(404, "Here one signs in with a password.")
    return provider


MyProvider = Annotated[Provider, Depends(_provider_of)]


@router.get("")
def leave(
    request: Request, services: MyServices, provider: MyProvider, to: str = "/"
) -> Response:
    """Lead to the provider; who is signed in already goes on."""
    wanted = own_page(to) if len(to) <= _LONGEST else "/"
    if find_session(request) is not None:
        return RedirectResponse(wanted, 303)
    attempts: Attempts = request.app.state.attempts
    try:
        back = _address_back(request, services.web, provider.settings.address)
        attempt, cookie = attempts.begin(wanted, back)
        response = RedirectResponse(provider.address_for(attempt), 303)
    except SignInError as error:
        return show_entrance(request, wanted, refused=error, status=503)
    response.set_cookie(
        _cookie_name(services.web),
        cookie,
        max_age=LASTS_S,
        path="/",
        secure=services.web.behind_tls,
        httponly=True,
        samesite="lax",
    )
    return response


@router.get("/back")
def come_back(
    request: Request,
    services: MyServices,
    provider: MyProvider,
    state: str = "",
    code: str = "",
    error: str = "",
    iss: str = "",
) -> Response:
    """Begin a session, or say why not.

    What nobody has begun in this browser is refused and neither counted nor audited:
    any page that somebody visits can send them here.
    """
    attempts: Attempts = request.app.state.attempts
    name = _cookie_name(services.web)
    try:
        attempt = attempts.take(request.cookies.get(name, ""), state)
    except SignInError as refused:
        return show_entrance(request, "/", refused=refused)
    given = Answer(code=code, error=error, issuer=iss)
    address = request.client.host if request.client else ""
    user_or_error = sign_in(services.database, address, provider, attempt, given)
    if isinstance(user_or_error, SignInError):
        status = 503 if isinstance(user_or_error, ProviderError) else 403
        response = show_entrance(
            request, attempt.to, refused=user_or_error, status=status
        )
    else:
        response = RedirectResponse(own_page(attempt.to), 303)
        with services.database.transaction() as connection:
            begin_session(connection, response, services.web, user_or_error)
    response.delete_cookie(name, secure=services.web.behind_tls, httponly=True)
    return response


def _address_back(request: Request, web: WebSettings, address: str) -> str:
    """Return where the provider leads back to; it knows that address as well.

    Raises:
        ProviderError: If the page was not reached by https, nor on this machine.
    """
    if not address:
        host = request.headers.get("host", "")
        scheme = "https" if web.behind_tls else request.url.scheme
        address = f"{scheme}://{host}" if _HOST.fullmatch(host) else ""
    if not is_safe(address) or urlsplit(address).username is not None:
        raise ProviderError(
            "Signing in this way needs https. Tell an administrator, or sign in with a "
            "password."
        )
    return address.rstrip("/") + _BACK


def _cookie_name(web: WebSettings) -> str:
    return f"{cookie_name(web)}-oidc"
