"""The reader's page as one application: what ``csfd serve`` lets uvicorn run.

It never imports TensorFlow and never predicts: it takes in studies, shows what the
graph has made of them, and keeps what readers say.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from importlib.resources import files
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from csfd_core.errors import CsfdError, IdentifierError
from csfd_core.settings import OidcSettings
from csfd_core.web.delivery import api as delivery
from csfd_core.web.dicomweb import api as dicomweb
from csfd_core.web.pages import (
    administration,
    entrance,
    model,
    oidc,
    peers,
    study,
    tokens,
    withdrawal,
    worklist,
)
from csfd_core.web.pages.render import render
from csfd_core.web.reception.reception import Reception
from csfd_core.web.reception.watcher import watcher_of
from csfd_core.web.review import api as review
from csfd_core.web.review.label_files import write_pending
from csfd_core.web.security.guard import guard
from csfd_core.web.security.oidc.attempts import Attempts
from csfd_core.web.security.oidc.provider import open_provider
from csfd_core.web.security.sessions import find_session
from csfd_core.web.services import Services
from csfd_core.web.status import api as status
from csfd_core.web.status.follower import Follower
from csfd_core.web.uploads import api as uploads
from csfd_core.web.uploads.handling import sweep
from csfd_core.web.viewer import api as viewer
from csfd_core.web.volume_choice import api as volume_choice
from csfd_core.web.volume_choice.choosing import settle_choices
from csfd_core.web.withdrawing import retention_of

API: Final = "/api/v1"


def build_app(services: Services) -> FastAPI:
    """Return the application.

    Args:
        services: Stores and database, opened.

    Raises:
        SettingsError: If signing in with OpenID Connect is set up by half.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        sweep(services)
        write_pending(services)
        settle_choices(services)
        app.state.follower = follower = Follower(services)
        app.state.reception = Reception(services)
        watchers = (
            follower,
            watcher_of(app.state.reception),
            retention_of(services, app.state.reception),
        )
        for watcher in watchers:
            watcher.start()
        try:
            yield
        finally:
            for watcher in reversed(watchers):
                watcher.stop()

    app = FastAPI(
        title="csfd",
        version=version("csfd"),
        description="Cervical spine fractures in CT: upload, triage, read, sign.",
        openapi_url="/api/openapi.json",
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.services = services
    app.state.provider = open_provider(OidcSettings.read())
    app.state.attempts = Attempts()
    app.middleware("http")(guard)
    app.exception_handler(HTTPException)(_refuse)
    app.exception_handler(IdentifierError)(_unknown)
    app.exception_handler(CsfdError)(_fail)
    for room in (uploads, viewer, volume_choice, review, status, delivery):
        app.include_router(room.router, prefix=API)
    app.include_router(status.operation)
    rooms = (entrance, oidc, worklist, study, withdrawal, model, administration, peers)
    for pages in (*rooms, tokens):
        app.include_router(pages.router, include_in_schema=False)
    app.include_router(dicomweb.router, include_in_schema=False)
    static = files("csfd_core.web") / "static"
    app.mount("/static", StaticFiles(directory=str(static)), name="static")
    return app


def _refuse(request: Request, error: Exception) -> Response:
    """Answer the API with JSON, and people with a page or the entrance."""
    assert isinstance(error, HTTPException)
    if _wants_json(request):
        return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
    session = find_session(request)
    if session is None and error.status_code in (401, 404):
        wanted = request.url.path if request.method == "GET" else "/"
        return RedirectResponse(f"/sign-in?to={wanted}", 303)
    page = render(request, session, "refusal.html", told=error.detail)
    page.status_code = error.status_code
    return page


def _unknown(request: Request, error: Exception) -> Response:
    return _refuse(request, HTTPException(404, "There is no such study."))


def _fail(request: Request, error: Exception) -> Response:
    return _refuse(request, HTTPException(409, str(error)))


def _wants_json(request: Request) -> bool:
    path = request.url.path
    answers = ("/api/", "/dicom-web", "/healthz", "/readyz", "/metrics")
    return path.startswith(answers)
