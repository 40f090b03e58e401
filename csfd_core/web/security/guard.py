"""What holds for every request: headers, the origin of what changes something, size."""

from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import Request, Response
from fastapi.responses import JSONResponse

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; worker-src 'self' blob:; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_SAFE: Final = ("GET", "HEAD", "OPTIONS")
_LARGEST_BODY: Final = 20 * 2**20  # bytes: a part of an upload, and its frame
_STREAMED: Final = "/dicom-web/"  # reads its bodies piece by piece, with its own limit

Next = Callable[[Request], Awaitable[Response]]


async def guard(request: Request, call_next: Next) -> Response:
    """Refuse what comes from another site or is too large; add the headers."""
    refusal = _refusal(request)
    if refusal is not None:
        response: Response = refusal
    else:
        response = await call_next(request)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    # Pages and images are of patients. What is static has its digest in its address.
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def _refusal(request: Request) -> Response | None:
    length = request.headers.get("content-length", "0")
    is_streamed = request.url.path.startswith(_STREAMED)
    if not length.isdigit() or (int(length) > _LARGEST_BODY and not is_streamed):
        return JSONResponse({"detail": "The request is too large."}, 413)
    if request.method in _SAFE:
        return None
    if not _is_own(request) and not (is_streamed and _has_bearer(request)):
        return JSONResponse({"detail": "The request comes from another site."}, 403)
    return None


def _has_bearer(request: Request) -> bool:
    """Say whether a request has a token that no browser adds by itself."""
    return request.headers.get("authorization", "").lower().startswith("bearer ")


def _is_own(request: Request) -> bool:
    """Say whether a request comes from a page of this site, as the browser tells.

    With ``no-referrer`` a browser calls the origin of our own forms "null", so what it
    says of the site comes first; programs say neither.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    host = request.headers.get("host", "")
    return origin is None or origin.partition("://")[2] == host
