"""What has come of uploads: rows, events, files of the inbox, what is staged."""

from pathlib import Path

import sqlalchemy as sa

from csfd_core.deid.deidentify import deidentify
from csfd_core.ingest.patients import read_secret
from csfd_core.web.audit import Action
from csfd_core.web.database import audit, studies
from csfd_core.web.uploads import handling
from csfd_core.web.uploads.staging import uploads_folder
from support.web import WebUnderTest


def rows(web: WebUnderTest) -> list[sa.Row]:
    with web.services.database.transaction() as connection:
        return list(connection.execute(sa.select(studies)))


def accepted_events(web: WebUnderTest) -> int:
    wanted = sa.select(audit).where(audit.c.action == Action.STUDY_ACCEPTED)
    with web.services.database.transaction() as connection:
        return len(list(connection.execute(wanted)))


def inbox_files(web: WebUnderTest) -> dict[str, bytes]:
    found, _ = web.services.inbox.find("train_images")
    return {entry.path: web.services.inbox.read(entry.path) for entry in found}


def expected(files: list[bytes], web: WebUnderTest) -> dict[str, bytes]:
    secret = read_secret(web.services.settings.key_file)
    made = [deidentify(content, secret) for content in files]
    return {f"train_images/{m.study_uid}/{m.sop_uid}.dcm": m.content for m in made}


def staged(web: WebUnderTest) -> list[Path]:
    return list(uploads_folder(web.services.settings).rglob("*"))


def admin_of(web: WebUnderTest) -> handling.User:
    from csfd_core.web.security.users import all_users

    with web.services.database.transaction() as connection:
        (admin,) = all_users(connection)
    return admin
