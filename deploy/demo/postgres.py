"""A PostgreSQL server of one's own: that of a wheel, or Debian's."""

import importlib.util
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

from deploy.demo.machines import DemoError, Machines, Service
from deploy.demo.ports import HOST

_DEBIAN = Path("/usr/lib/postgresql")
_ENTER = stat.S_IXOTH
_OTHER_USERS = ("postgres", "nobody")  # it does not run as root


def programs_for(user: str | None, home: Path) -> Path:
    """Return a folder of PostgreSQL's programs that a user may enter.

    Args:
        user: Who is to run them; ``None``: this process's own.
        home: Where they are copied to if they lie where that user may not go.

    Raises:
        DemoError: If there are none.
    """
    for folder in _folders():
        if (folder / "postgres").is_file() and (folder / "initdb").is_file():
            break
    else:
        raise DemoError("There is no PostgreSQL: install the wheel pgserver.")
    if user is None or all(one.stat().st_mode & _ENTER for one in folder.parents):
        return folder
    copy = home / "postgresql"
    shutil.copytree(folder.parent, copy, symlinks=True)
    return copy / folder.name


def _folders() -> Iterator[Path]:
    if found := importlib.util.find_spec("pgserver"):
        yield from (Path(at) / "pginstall" / "bin" for at in _places(found))
    yield from sorted(_DEBIAN.glob("*/bin"), reverse=True)
    if program := shutil.which("postgres"):
        yield Path(program).parent


def _places(found: importlib.machinery.ModuleSpec) -> list[str]:
    return list(found.submodule_search_locations or [])


def server_user() -> str | None:
    """Return who the server has to run as; ``None``: as this process."""
    if os.geteuid():
        return None
    import pwd

    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in _OTHER_USERS if name in known)


def postgres(machines: Machines, machine: str, port: int) -> Service:
    """Make an empty database cluster; return the service that serves it.

    Raises:
        DemoError: If PostgreSQL is not installed.
    """
    user, home = server_user(), machines.home(machine)
    where = programs_for(user, home)
    if user:
        for folder in (home, home.parent / "tmp"):
            shutil.chown(folder, user)
    data = str(home / "data")
    subprocess.run(
        [where / "initdb", "-D", data, "-U", "csfd", "-A", "trust", "-N", "-E", "UTF8"],
        check=True,
        cwd=home,
        user=user,
        stdout=subprocess.DEVNULL,
        env=machines.environment(machine, {}),
    )
    command = [
        *(str(where / "postgres"), "-D", data, "-p", str(port), "-k", str(home)),
        *("-c", f"listen_addresses={HOST}", "-c", "max_connections=200"),
    ]
    return Service(
        name="postgres",
        machine=machine,
        command=command,
        is_ready=lambda: _answers(port),
        user=user,
    )


def url_of(port: int, database: str, driver: str = "postgresql") -> str:
    """Return the URL of a database.

    Dagster's storage speaks to psycopg2 alone, which SQLAlchemy takes only if told to.
    """
    return f"{driver}://csfd@{HOST}:{port}/{database}"


def make_databases(port: int, *names: str) -> None:
    """Make empty databases."""
    import psycopg
    from psycopg import sql

    with psycopg.connect(url_of(port, "postgres"), autocommit=True) as connection:
        for name in names:
            connection.execute(
                sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
            )


def _answers(port: int) -> bool:
    import psycopg

    try:
        psycopg.connect(url_of(port, "postgres"), connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
