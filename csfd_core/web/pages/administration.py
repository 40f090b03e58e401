"""Pages for administrators: users, and the audit log."""

from typing import Annotated, Any, Final

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import RedirectResponse

from csfd_core.errors import SettingsError
from csfd_core.web.audit import Action, record, verify
from csfd_core.web.audit_names import audit_names
from csfd_core.web.database import audit, sessions, users
from csfd_core.web.pages.moments import ago, day_and_time
from csfd_core.web.pages.render import render
from csfd_core.web.security.oidc.accounts import bound_users, release_account
from csfd_core.web.security.sessions import (
    Session,
    require_administrator,
    require_form,
    require_session,
    services_of,
)
from csfd_core.web.security.users import (
    Role,
    add_user,
    all_users,
    change_password,
    change_user,
)
from csfd_core.web.services import Services

router = APIRouter(prefix="/admin")

_SHOWN: Final = 200  # entries of the audit log

MyServices = Annotated[Services, Depends(services_of)]
MyForm = Annotated[Session, Depends(require_form)]
MySession = Annotated[Session, Depends(require_session)]


@router.get("/users")
def show_users(request: Request, session: MySession, services: MyServices) -> Response:
    """Show who may sign in, and who is signed in."""
    require_administrator(session)
    return _users_page(request, session, services)


@router.post("/users")
def add(
    request: Request,
    services: MyServices,
    session: MyForm,
    name: Annotated[str, Form(max_length=100)],
    role: Annotated[Role, Form()],
    password: Annotated[str, Form(max_length=1000)] = "",
) -> Response:
    """Add a user; one who signs in at the provider needs no password."""
    require_administrator(session)
    is_elsewhere = not password and request.app.state.provider is not None
    chosen = None if is_elsewhere else password
    try:
        with services.database.transaction() as connection:
            add_user(connection, session.user.id, name, chosen, role)
    except SettingsError as error:
        return _users_page(request, session, services, told=str(error))
    return RedirectResponse("/admin/users", 303)


@router.post("/users/{user_id}")
def change(
    user_id: int,
    request: Request,
    services: MyServices,
    session: MyForm,
    role: Annotated[Role, Form()],
    is_active: Annotated[bool, Form()] = False,
    password: Annotated[str, Form(max_length=1000)] = "",
) -> Response:
    """Change what a user may do; a password only where one is given."""
    require_administrator(session)
    try:
        with services.database.transaction() as connection:
            change_user(
                connection, session.user.id, user_id, role=role, is_active=is_active
            )
            if password:
                change_password(connection, session.user.id, user_id, password)
    except SettingsError as error:
        return _users_page(request, session, services, told=str(error))
    return RedirectResponse("/admin/users", 303)


@router.post("/users/{user_id}/sign-out")
def end_sessions(user_id: int, services: MyServices, session: MyForm) -> Response:
    """End all sessions of a user."""
    require_administrator(session)
    with services.database.transaction() as connection:
        connection.execute(sessions.delete().where(sessions.c.user_id == user_id))
        record(connection, session.user.id, Action.SESSION_ENDED, str(user_id))
    return RedirectResponse("/admin/users", 303)


@router.post("/users/{user_id}/release")
def release(user_id: int, services: MyServices, session: MyForm) -> Response:
    """Let another account of the provider become this user."""
    require_administrator(session)
    with services.database.transaction() as connection:
        release_account(connection, session.user.id, user_id)
    return RedirectResponse("/admin/users", 303)


@router.get("/audit")
def show_audit(request: Request, session: MySession, services: MyServices) -> Response:
    """Show the newest entries of the audit log, and whether its chain is whole."""
    require_administrator(session)
    entries, broken = verify(services.database)
    with services.database.transaction() as connection:
        rows = connection.execute(
            sa.select(audit, users.c.name)
            .join(users, users.c.id == audit.c.user_id, isouter=True)
            .order_by(audit.c.number.desc())
            .limit(_SHOWN)
        ).all()
        subject_of = audit_names(connection)
    return render(
        request,
        session,
        "audit.html",
        rows=[
            {
                "number": row.number,
                "at": day_and_time(row.at),
                "who": row.name or "–",
                "action": row.action,
                "subject": subject_of(row),
            }
            for row in rows
        ],
        entries=entries,
        broken=broken,
    )


def _users_page(
    request: Request, session: Session, services: Services, told: str = ""
) -> Response:
    with services.database.transaction() as connection:
        everybody, bound = all_users(connection), bound_users(connection)
        seen: dict[int, Any] = {
            row.user_id: row
            for row in connection.execute(
                sa.select(
                    sessions.c.user_id,
                    sa.func.count().label("n"),
                    sa.func.max(sessions.c.seen_at).label("seen"),
                ).group_by(sessions.c.user_id)
            )
        }
    rows = [
        {
            "user": user,
            "is_bound": user.id in bound,
            "sessions": seen[user.id].n if user.id in seen else 0,
            "seen": ago(seen[user.id].seen) if user.id in seen else "",
        }
        for user in everybody
    ]
    page = render(
        request,
        session,
        "users.html",
        rows=rows,
        roles=list(Role),
        told=told,
        has_provider=request.app.state.provider is not None,
    )
    page.status_code = 422 if told else 200
    return page
