"""``csfd users`` and ``csfd audit``."""

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from csfd_core.cli.main import app
from csfd_core.errors import SettingsError
from csfd_core.web.database import Database, audit
from csfd_core.web.security.users import check_password

PASSWORD = "twelve or more"


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    url = f"sqlite:///{tmp_path}/web.db"
    monkeypatch.setenv("CSFD_WEB_DATABASE", url)
    return Database(url)


def csfd(*words: str, typed: str = "") -> Result:
    return CliRunner().invoke(app, [*words], input=typed)


def signs_in(database: Database, name: str, password: str) -> bool:
    found = check_password(database, "here", name, password)
    return not isinstance(found, Exception)


def test_user_is_added_listed_and_given_another_password(database: Database) -> None:
    added = csfd("users", "add", "reader", typed=f"{PASSWORD}\n{PASSWORD}\n")
    assert added.exit_code == 0, added.output
    assert PASSWORD not in added.output
    assert "1  reader: reader" in csfd("users", "list").output
    assert signs_in(database, "reader", PASSWORD)
    other = "another twelve"
    changed = csfd("users", "password", "reader", typed=f"{other}\n{other}\n")
    assert changed.exit_code == 0, changed.output
    assert signs_in(database, "reader", other)
    assert not signs_in(database, "reader", PASSWORD)


def test_unknown_user_is_told_of(database: Database) -> None:
    typed = f"{PASSWORD}\n{PASSWORD}\n"
    result = csfd("users", "password", "nobody", typed=typed)
    assert isinstance(result.exception, SettingsError)
    assert "no user nobody" in str(result.exception)


def test_audit_prints_the_chain_and_finds_what_was_changed(database: Database) -> None:
    assert "empty" in csfd("audit").output
    for name in ("reader", "second"):
        csfd("users", "add", name, typed=f"{PASSWORD}\n{PASSWORD}\n")
    result = csfd("audit")
    assert result.exit_code == 0
    assert "2 entries, the chain is whole. The last is 2:" in result.output
    with database.transaction() as connection:
        last = connection.scalar(sa.select(audit.c.digest).where(audit.c.number == 2))
        assert str(last) in result.output
        connection.execute(
            audit.update().where(audit.c.number == 1).values(subject="9")
        )
    broken = csfd("audit", "--last", "1")
    assert broken.exit_code == 1
    assert "broken at entry 1" in broken.output


@pytest.mark.slow
def test_help_imports_no_page() -> None:
    code = (
        "import sys, csfd_core.cli.main\n"
        "heavy = {'fastapi', 'tensorflow', 'pandas', 'sqlalchemy', 'uvicorn'}\n"
        "print(' '.join(heavy & set(sys.modules)))"
    )
    call = [sys.executable, "-c", code]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
