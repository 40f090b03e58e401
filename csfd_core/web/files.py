"""A small server of what one looks at in a store: its reports and pictures.

It answers GET and HEAD on loopback, below ``reports/`` and ``pictures/`` and nowhere
else, and reads through ``Location``, so that a store on S3 is shown like one on a disk.
Pictures are of patients: nothing is kept by the browser, nothing may be framed, and a
page from elsewhere cannot read them by giving this server another name.
"""

import html
import re
from pathlib import PurePosixPath
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from csfd_core.errors import SourceError
from csfd_core.store.locations import Location
from csfd_core.store.paths import PICTURES, REPORTS
from csfd_core.vocabulary import is_uid
from csfd_core.web.addresses import HOST

_PAGE: Final = "index.html"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".mp4": "video/mp4",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}
# A name as csfd gives it: no leading dot, so neither ".." nor a hidden file.
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)
_WORDS: Final = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
_HEADERS: Final = {
    "Cache-Control": "no-store",
    # Reports carry their style, figures and films inside; none carries a script.
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; "
        "media-src 'self' data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def build_app(store: Location) -> Starlette:
    """Return the application that serves the reports and pictures of a store."""

    def index(request: Request) -> Response:
        return HTMLResponse(_index_of(store), headers=_HEADERS)

    def file(request: Request) -> Response:
        return send_file(store, **request.path_params)

    app = Starlette(
        routes=[Route("/", index), Route("/{folder}/{path:path}", file)],
        # Else a name that an attacker lets point to loopback could read (rebinding).
        middleware=[Middleware(TrustedHostMiddleware, [HOST, "localhost"])],
        exception_handlers={HTTPException: _refuse, SourceError: _fail},
    )
    app.router.redirect_slashes = False
    return app


def send_file(store: Location, folder: str, path: str) -> Response:
    """Return a file of the store that may be looked at.

    Args:
        store: The store.
        folder: ``reports`` or ``pictures``.
        path: Below it.

    Raises:
        HTTPException: 404 where there is none, or it is not to be looked at.
    """
    full_path = PurePosixPath(folder, path)
    content = store.read_if_there(str(full_path)) if _is_served(full_path) else None
    if content is None:
        raise HTTPException(404)
    return Response(content, headers=_HEADERS, media_type=_TYPES[full_path.suffix])


def serve_files(store: Location, port: int) -> None:
    """Serve the reports and pictures of a store until interrupted."""
    uvicorn.run(build_app(store), host=HOST, port=port, log_level="warning")


def _is_served(path: PurePosixPath) -> bool:
    """Say whether a path is one that csfd writes; any other is not even looked for."""
    folder, *names = path.parts
    if path.suffix not in _TYPES or not all(_NAME.fullmatch(name) for name in names):
        return False
    if folder == REPORTS:
        return len(names) > 1
    if folder != PICTURES or len(names) != 2:  # noqa: PLR2004 - asset and picture
        return False
    is_named = is_uid(path.stem) or _WORDS.fullmatch(path.stem) is not None
    return is_named and _WORDS.fullmatch(names[0]) is not None


def _index_of(store: Location) -> str:
    """Return a page that lists the reports."""
    names = [
        name
        for name in store.folders(REPORTS)
        if _NAME.fullmatch(name) and store.exists(f"{REPORTS}/{name}/{_PAGE}")
    ]
    items = [
        f'<li><a href="/{REPORTS}/{name}/{_PAGE}">{html.escape(name)}</a></li>'
        for name in names
    ]
    listed = f"<ul>{''.join(items)}</ul>" if items else "<p>There is no report yet.</p>"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="color-scheme" content="light dark"><title>Reports of csfd</title>'
        f'<body style="font-family: system-ui; margin: 2rem"><h1>Reports</h1>{listed}'
        f"<p>Store: {html.escape(str(store))}</p></body></html>"
    )


def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = {**(error.headers or {}), **_HEADERS}
    return PlainTextResponse(error.detail, error.status_code, headers)


def _fail(request: Request, error: Exception) -> Response:
    return PlainTextResponse(f"{error}\n", 502, _HEADERS)
