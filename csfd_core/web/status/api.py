"""Routes: the worklist, what changes in it, one's own settings; the operation."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from pydantic import BaseModel, ConfigDict, Field

from csfd_core.vocabulary import require_uid
from csfd_core.web.audit import Action, record
from csfd_core.web.database import studies, users
from csfd_core.web.security.sessions import Session, require_session, services_of
from csfd_core.web.security.users import Role
from csfd_core.web.services import Services
from csfd_core.web.status.follower import Follower
from csfd_core.web.status.shown import is_hidden
from csfd_core.web.status.triage import list_studies
from csfd_core.web.study_states import OPEN, StudyState, try_again

router = APIRouter()
operation = APIRouter()

_TICK_S: Final = 0.5
_HEARTBEAT_S: Final = 15.0  # proxies close what is silent
_LEAST_DISK: Final = 2**30  # bytes, below which nothing is accepted
_MOST_CHANGES: Final = 200

MySession = Annotated[Session, Depends(require_session)]
MyServices = Annotated[Services, Depends(services_of)]


class StudyFacts(BaseModel):
    """One study of the worklist."""

    study_uid: str
    state: StudyState
    step: str
    reason: str
    version: int
    slices: int
    priority: int
    accepted_at: float
    done_at: float | None
    verdict: str
    suspicious: list[str]
    overall: float | None
    ratio: float
    needs_eyes: bool
    is_signed: bool
    signed_count: int
    readers_differ: bool


class StudyList(BaseModel):
    """One page of the worklist, in the order in which studies are to be read."""

    studies: list[StudyFacts]
    total: int


class Urgency(BaseModel):
    """How urgent a study is: 0 routine, 1 urgent, 2 STAT."""

    priority: Literal[0, 1, 2]


class Me(BaseModel):
    """Who is signed in."""

    name: str
    role: Role
    csrf: str


class Keys(BaseModel):
    """Keys that a reader has changed: by action, the key."""

    model_config = ConfigDict(extra="forbid")

    keys: dict[
        Annotated[str, Field(max_length=40)], Annotated[str, Field(max_length=30)]
    ] = Field(max_length=100)


@router.get("/studies")
def list_all(
    session: MySession,
    services: MyServices,
    state: Literal["unread", "signed", "coming", "all"] = "unread",
    q: Annotated[str, Query(max_length=100)] = "",
    page: Annotated[int, Query(ge=0, le=100_000)] = 0,
) -> StudyList:
    """List studies in the order in which they are to be read."""
    worklist = list_studies(services, state, q, page)
    facts = [_facts(one.row, services, session) for one in worklist.studies]
    return StudyList(studies=facts, total=worklist.total)


@router.get("/studies/{study_uid}")
def one_study(study_uid: str, session: MySession, services: MyServices) -> StudyFacts:
    """Return one study of the worklist."""
    return _facts(_row(services, study_uid), services, session)


@router.post("/studies/{study_uid}/retry", status_code=202)
def retry(study_uid: str, session: MySession, services: MyServices) -> StudyFacts:
    """Ask once more for a study that has failed."""
    require_uid(study_uid)
    with services.database.transaction() as connection:
        if not try_again(connection, study_uid):
            raise HTTPException(409, "Only a study that has failed is tried again.")
        record(connection, session.user.id, Action.STUDY_RETRIED, study_uid)
    return one_study(study_uid, session, services)


@router.post("/studies/{study_uid}/priority")
def change_priority(
    study_uid: str, urgency: Urgency, session: MySession, services: MyServices
) -> StudyFacts:
    """Say how urgent a study is."""
    same = studies.c.study_uid == require_uid(study_uid)
    with services.database.transaction() as connection:
        changed = connection.execute(
            studies.update().where(same).values(priority=urgency.priority)
        )
        if changed.rowcount:
            record(connection, session.user.id, Action.PRIORITY_CHANGED, study_uid)
    return one_study(study_uid, session, services)


@router.get("/events", response_class=StreamingResponse)
async def events(request: Request, session: MySession) -> StreamingResponse:
    """Tell what changes in the worklist, as server-sent events named ``study``."""
    follower: Follower = request.app.state.follower
    services = services_of(request)

    async def stream() -> AsyncIterator[str]:
        yield "retry: 2000\n\n"
        last, silent_s = follower.newest, 0.0
        while not follower.is_stopped and not await request.is_disconnected():
            if (newest := follower.newest) > last:
                rows = await asyncio.to_thread(_changed_since, services, last)
                last, silent_s = newest, 0.0  # more may have changed meanwhile
                for row in rows:
                    facts = _facts(row, services, session).model_dump_json()
                    yield f"event: study\ndata: {facts}\n\n"
            elif silent_s >= _HEARTBEAT_S:
                yield ": still here\n\n"
                silent_s = 0.0
            await asyncio.sleep(_TICK_S)
            silent_s += _TICK_S

    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(stream(), media_type="text/event-stream", headers=headers)


@router.get("/me")
def me(session: MySession) -> Me:
    """Return who asks, and the token that what they change must carry."""
    return Me(name=session.user.name, role=session.user.role, csrf=session.csrf)


@router.get("/me/keys")
def my_keys(session: MySession, services: MyServices) -> Keys:
    """Return the keys that this reader has changed."""
    with services.database.transaction() as connection:
        settings = _settings(connection, session.user.id)
    return Keys(keys=settings.get("keys", {}))


@router.put("/me/keys")
def change_keys(keys: Keys, session: MySession, services: MyServices) -> Keys:
    """Keep the keys that this reader has changed."""
    same = users.c.id == session.user.id
    with services.database.transaction() as connection:
        settings = _settings(connection, session.user.id) | keys.model_dump()
        text = json.dumps(settings)
        connection.execute(users.update().where(same).values(settings=text))
    return keys


@operation.get("/healthz")
def is_alive() -> dict[str, str]:
    """Say that the process answers."""
    return {"status": "alive"}


@operation.get("/readyz")
def is_ready(services: MyServices) -> JSONResponse:
    """Say whether studies can be accepted: database, inbox and disk."""
    problems = []
    try:
        with services.database.transaction() as connection:
            connection.scalar(sa.select(sa.func.count()).select_from(users))
    except sa.exc.SQLAlchemyError:
        problems.append("The database does not answer.")
    home = Path(services.settings.home)
    if shutil.disk_usage(home).free < _LEAST_DISK:
        problems.append("Less than a gigabyte of the disk is free.")
    if problems:
        return JSONResponse({"status": "not ready", "problems": problems}, 503)
    return JSONResponse({"status": "ready"})


@operation.get("/metrics", response_class=PlainTextResponse)
def metrics(request: Request, services: MyServices) -> PlainTextResponse:
    """Return counts and times for Prometheus; none names a study or a user."""
    registry = CollectorRegistry()
    by_state = Gauge(
        "csfd_studies", "Studies by their state.", ["state"], registry=registry
    )
    waiting = Gauge(
        "csfd_oldest_waiting_seconds",
        "How long the oldest study waits for its prediction.",
        registry=registry,
    )
    latency = Gauge(
        "csfd_result_seconds",
        "From accepted to done, mean of the newest hundred.",
        registry=registry,
    )
    unsigned = Gauge("csfd_unsigned_studies", "Studies to read.", registry=registry)
    with services.database.transaction() as connection:
        for row in connection.execute(
            sa.select(studies.c.state, sa.func.count().label("n")).group_by("state")
        ):
            by_state.labels(row.state).set(row.n)
        now = connection.scalar(sa.select(sa.func.max(studies.c.changed_at))) or 0.0
        oldest = connection.scalar(
            sa.select(sa.func.min(studies.c.accepted_at)).where(
                studies.c.state.in_(OPEN)
            )
        )
        waiting.set(0.0 if oldest is None else max(0.0, now - oldest))
        newest = (
            sa.select((studies.c.done_at - studies.c.accepted_at).label("s"))
            .where(studies.c.slices > 0, studies.c.state == StudyState.DONE)
            .order_by(studies.c.done_at.desc())
            .limit(100)
            .subquery()
        )
        latency.set(connection.scalar(sa.select(sa.func.avg(newest.c.s))) or 0.0)
        is_open = studies.c.signed_version < studies.c.version
        unsigned.set(
            connection.scalar(
                sa.select(sa.func.count())
                .select_from(studies)
                .where(is_open, studies.c.state == StudyState.DONE)
            )
            or 0
        )
    return PlainTextResponse(generate_latest(registry).decode())


def _row(services: Services, study_uid: str) -> Any:  # noqa: ANN401 - a row of SQL
    same = studies.c.study_uid == require_uid(study_uid)
    with services.database.transaction() as connection:
        row = connection.execute(sa.select(studies).where(same)).first()
    if row is None:
        raise HTTPException(404, "There is no such study.")
    return row


def _changed_since(services: Services, moment: float) -> list[Any]:
    changed = (
        sa.select(studies)
        .where(studies.c.changed_at > moment)
        .order_by(studies.c.changed_at.desc())
        .limit(_MOST_CHANGES)
    )
    with services.database.transaction() as connection:
        return list(connection.execute(changed))


def _settings(connection: sa.Connection, user_id: int) -> dict[str, Any]:
    text = connection.scalar(sa.select(users.c.settings).where(users.c.id == user_id))
    settings: dict[str, Any] = json.loads(text or "{}")
    return settings


def _facts(row: Any, services: Services, session: Session) -> StudyFacts:  # noqa: ANN401
    hidden = is_hidden(services, session, row)
    return StudyFacts(
        study_uid=row.study_uid,
        state=StudyState(row.state),
        step=row.step,
        reason=row.reason,
        version=row.version,
        slices=row.slices,
        priority=row.priority,
        accepted_at=row.accepted_at,
        done_at=row.done_at,
        verdict="" if hidden else row.verdict,
        suspicious=[] if hidden else row.suspicious.split(),
        overall=None if hidden else row.overall,
        ratio=0.0 if hidden else row.ratio,
        needs_eyes=row.needs_eyes and not hidden,
        is_signed=row.signed_version >= row.version,
        signed_count=row.signed_count,
        readers_differ=row.readers_differ,
    )
