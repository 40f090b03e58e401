"""``csfd users`` and ``csfd audit``: the reader's page from the command line."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from csfd_core.errors import SettingsError

if TYPE_CHECKING:
    import sqlalchemy as sa

    from csfd_core.web.database import Database

users_app = typer.Typer(
    name="users",
    help="Who may sign in to the reader's page.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

NameArgument = Annotated[str, typer.Argument(help="As they sign in.")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``csfd``."""
    app.add_typer(users_app)
    app.command()(audit)


@users_app.command()
def add(
    name: NameArgument,
    administrator: Annotated[
        bool, typer.Option("--administrator", help="May also change users.")
    ] = False,
) -> None:
    """Add a user; their password is asked for.

    Example: `csfd users add reader@hospital`
    """
    from csfd_core.web.security.users import Role, add_user

    role = Role.ADMINISTRATOR if administrator else Role.READER
    password = _ask_password()
    with _open().transaction() as connection:
        add_user(connection, None, name, password, role)
    typer.echo(f"{name} may sign in, as {role}.")


@users_app.command()
def password(name: NameArgument) -> None:
    """Give a user another password, which is asked for; their sessions end.

    Example: `csfd users password admin`
    """
    from csfd_core.web.security.users import change_password

    chosen = _ask_password()
    with _open().transaction() as connection:
        change_password(connection, None, _number_of(connection, name), chosen)
    typer.echo(f"{name} has a new password.")


@users_app.command(name="list")
def list_users() -> None:
    """Print every user, what they may do, and whether they may sign in."""
    from csfd_core.web.security.users import all_users

    with _open().transaction() as connection:
        users = all_users(connection)
    for user in users:
        state = "" if user.is_active else ", may not sign in"
        typer.echo(f"{user.id}  {user.name}: {user.role}{state}")


def audit(
    last: Annotated[
        int, typer.Option(min=0, help="Entries to print, the newest ones.")
    ] = 20,
) -> None:
    """Verify the chain of the audit log; exits with 1 where it is broken.

    Keep its last number and digest elsewhere: what was cut off at the end does not show
    in the chain.

    Example: `csfd audit --last 100`
    """
    from csfd_core.web.audit import verify
    from csfd_core.web.database import audit as entries

    database = _open()
    whole, broken = verify(database)
    with database.transaction() as connection:
        rows = connection.execute(
            entries.select().order_by(entries.c.number.desc()).limit(max(last, 1))
        ).all()
    for row in reversed(rows[:last]):
        at = datetime.fromtimestamp(row.at, UTC).isoformat(" ", "seconds")
        who = "nobody" if row.user_id is None else f"user {row.user_id}"
        typer.echo(f"{row.number}  {at}  {who}: {row.action} {row.subject}".rstrip())
    if broken is not None:
        typer.echo(
            f"The chain is broken at entry {broken}: it, or one before it, was changed "
            "or removed."
        )
        raise typer.Exit(1)
    if not rows:
        typer.echo("The audit log is empty.")
        return
    typer.echo(f"{whole} entries, the chain is whole. The last is {rows[0].number}:")
    typer.echo(rows[0].digest)


def _open() -> "Database":
    from csfd_core.settings import WebSettings
    from csfd_core.web.database import Database

    return Database(WebSettings.read().database)


def _ask_password() -> str:
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))


def _number_of(connection: "sa.Connection", name: str) -> int:
    from csfd_core.web.security.users import all_users

    for user in all_users(connection):
        if user.name == name:
            return user.id
    raise SettingsError(f"There is no user {name}. See csfd users list.")
