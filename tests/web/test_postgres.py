"""The page on PostgreSQL: the same as on SQLite, from an upload to a signature."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.dicom_studies import STUDY_UID
from support.postgres import postgres_server
from support.reviews import add_study, sign
from support.uploading import send, study_files, whole
from support.web import WebUnderTest, web_app

from csfd_core.errors import SettingsError
from csfd_core.web import database as database_module
from csfd_core.web.audit import Action, record, verify
from csfd_core.web.database import Database, reviews, schema
from csfd_core.web.study_states import Accepted, accept, open_studies

pytestmark = pytest.mark.slow
WRITERS, EACH = 6, 15


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgres_server() as found:
        yield found


@pytest.fixture
def web(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WebUnderTest]:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    engine.dispose()
    setenv = monkeypatch.setenv

    def keep(name: str, value: str) -> None:
        setenv(name, url if name == "CSFD_WEB_DATABASE" else value)

    monkeypatch.setattr(monkeypatch, "setenv", keep)
    with web_app(tmp_path, monkeypatch) as found:
        assert found.services.web.database == url
        yield found


def test_upload_prediction_signature_and_audit(
    web: WebUnderTest, tmp_path: Path
) -> None:
    add_study(web)
    sign(web.sign_in_as("reader"))
    files = study_files(tmp_path / "sent")
    (uploaded,) = send(web.client, [whole(files)]).json()["studies"]
    waiting = open_studies(web.services.database)
    assert [one.study_uid for one in waiting] == [uploaded["study_uid"]]
    (again,) = send(web.client, [whole(files)]).json()["studies"]
    assert again["version"] is None
    with web.services.database.transaction() as connection:
        signed = connection.execute(sa.select(reviews.c.study_uid)).scalars().all()
    assert signed == [STUDY_UID]
    page = web.client.get("/api/v1/studies", params={"state": "all"}).json()
    listed = {row["study_uid"] for row in page["studies"]}
    assert listed == {STUDY_UID, uploaded["study_uid"]}
    entries, broken = verify(web.services.database)
    assert entries > 5
    assert broken is None


def test_writers_at_once_lose_nothing(web: WebUnderTest) -> None:
    before, _ = verify(web.services.database)

    def write(number: int) -> None:
        database = Database(web.services.web.database)
        for _ in range(EACH):
            with database.transaction() as connection:
                one = Accepted(
                    study_uid=STUDY_UID, slices=1, priority=0, user_id=web.user_id
                )
                accept(connection, one)
                record(connection, web.user_id, Action.STUDY_ACCEPTED, str(number))
        database.close()

    threads = [threading.Thread(target=write, args=(n,)) for n in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verify(web.services.database) == (before + WRITERS * EACH, None)
    (one,) = open_studies(web.services.database)
    assert one.version == WRITERS * EACH


def test_a_database_of_a_newer_csfd_is_refused(web: WebUnderTest) -> None:
    with web.services.database.transaction() as connection:
        connection.execute(schema.update().values(version=99))
    with pytest.raises(SettingsError, match="version 99"):
        Database(web.services.web.database)


def test_without_its_driver_the_remedy_is_told(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'psycopg'")

    monkeypatch.setattr(database_module.sa, "create_engine", none)
    with pytest.raises(SettingsError, match=r"pip install 'csfd\[postgres\]'"):
        Database(url)
