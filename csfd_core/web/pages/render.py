"""Pages: templates that escape what they are given."""

import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse

from csfd_core.data_kind import NOT_CLINICAL, DataKind
from csfd_core.vocabulary import LEVEL_COLOURS, LEVEL_NAMES
from csfd_core.web.security.sessions import Session

NOTICE: Final = (
    "Research software, not a medical device: a reading by a radiologist counts, this "
    "does not."
)


def render(
    request: Request, session: Session | None, name: str, **facts: object
) -> HTMLResponse:
    """Render a template of ``templates``.

    Args:
        request: What is answered.
        session: Who asks; ``None``: nobody who has signed in.
        name: Of the template.
        facts: What it needs besides.
    """
    page = _environment().get_template(name)
    text = page.render(
        path=request.url.path,
        session=session,
        user=None if session is None else session.user,
        csrf="" if session is None else session.csrf,
        notice=NOTICE,
        level_names=LEVEL_NAMES,
        level_colours=LEVEL_COLOURS,
        **facts,
    )
    return HTMLResponse(text)


def caution_of(kind: DataKind) -> str:
    """Say what a model has learnt from; what csfd is not stands at the page's foot."""
    return kind.caution.removeprefix(NOT_CLINICAL).strip()


def short_uid(study_uid: str) -> str:
    """Return the end of a UID, which tells studies apart; upload.js shows as much."""
    return f"…{study_uid[-10:]}"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("csfd_core.web"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["static"] = static_address
    environment.filters["short_uid"] = short_uid
    return environment


@cache
def static_address(name: str) -> str:
    """Return the address of a file of ``static``; another content has another one."""
    content = (files("csfd_core.web") / "static" / name).read_bytes()
    return f"/static/{name}?{hashlib.sha256(content).hexdigest()[:12]}"
