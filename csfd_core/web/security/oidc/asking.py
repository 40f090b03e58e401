"""Requests to the provider: short, few at once, along no redirect.

They are made while somebody who is not known yet waits, so they may take neither long
nor many threads of the page.
"""

import http.client
import json
import logging
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from csfd_core.web.addresses import is_loopback
from csfd_core.web.security.users import SignInError

_ANSWER_S: Final = 5.0
_MOST_ANSWER: Final = 2**20  # bytes
_AT_ONCE: Final = 4  # requests: the page has some forty threads for everything

UNREACHABLE: Final = (
    "The sign-in service cannot be reached. Try again later, or sign in with a "
    "password."
)
UNEXPECTED: Final = (
    "The sign-in service does not answer as OpenID Connect asks. Tell an administrator."
)

_logger: Final = logging.getLogger(__name__)
_waiting: Final = threading.BoundedSemaphore(_AT_ONCE)


class ProviderError(SignInError):
    """The provider cannot be asked; nobody who signs in is to blame."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Code and secret go where the discovery document says, and nowhere else."""

    def redirect_request(self, *_args: object, **_given: object) -> None:
        """Follow nothing: the redirect itself is the answer."""


def is_safe(url: str) -> bool:
    """Say whether nobody can read along: https, or a provider on this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if not host:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))


def ask(
    url: str,
    form: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, dict[str, Any]]:
    """Return the status and the JSON object that an address answers with.

    Args:
        url: Of the provider.
        form: What to post; ``None``: it is a GET.
        headers: Besides the usual ones.

    Raises:
        ProviderError: If there is no answer, or one that is no JSON object.
    """
    if not is_safe(url):
        raise ProviderError(UNEXPECTED)
    body = None if form is None else urlencode(form).encode()
    if not _waiting.acquire(blocking=False):
        raise ProviderError("Many are signing in just now. Try again in some seconds.")
    try:
        given = {"Accept": "application/json", "User-Agent": "csfd", **(headers or {})}
        status, answer = _read(urllib.request.Request(url, body, given))  # noqa: S310
    except (OSError, ValueError, http.client.HTTPException) as error:
        kind = type(getattr(error, "reason", error)).__name__
        _logger.warning("The OpenID Connect provider cannot be reached: %s.", kind)
        raise ProviderError(UNREACHABLE) from None
    finally:
        _waiting.release()
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError):
        told = None
    if status >= 500:
        raise ProviderError(UNREACHABLE)
    if not isinstance(told, dict):
        raise ProviderError(UNEXPECTED)
    return status, told


def _read(request: urllib.request.Request) -> tuple[int, bytes]:
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if is_loopback(urlsplit(request.full_url).hostname or ""):
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    try:
        with opener.open(request, timeout=_ANSWER_S) as answer:
            return int(answer.status), answer.read(_MOST_ANSWER)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(_MOST_ANSWER)
