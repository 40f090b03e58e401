"""Uploaded studies in tests: accepted rows, and the sensor that asks for them."""

from dataclasses import dataclass
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

from csfd_core.settings import WebSettings
from csfd_core.web.database import Database, studies, users
from csfd_core.web.study_states import Accepted, accept
from csfd_dagster.definitions import build_defs
from csfd_dagster.resources.stores import StoreResource
from csfd_dagster.uploads import uploads


def open_page() -> Database:
    """Open the database of the environment; somebody may upload."""
    database = Database(WebSettings.read().database)
    with database.transaction() as connection:
        if connection.scalar(sa.select(sa.func.count()).select_from(users)) == 0:
            connection.execute(
                users.insert().values(
                    name="reader", password_hash="none", role="reader", created_at=0.0
                )
            )
    return database


def accept_study(database: Database, study_uid: str, **facts: Any) -> int:
    """Accept a study as the page does; return its version."""
    given = {"slices": 24, "priority": 0, "user_id": 1, **facts}
    with database.transaction() as connection:
        return accept(connection, Accepted(study_uid=study_uid, **given))


def row_of(database: Database, study_uid: str) -> sa.Row[Any]:
    """Return what the page knows of a study."""
    wanted = sa.select(studies).where(studies.c.study_uid == study_uid)
    with database.transaction() as connection:
        return connection.execute(wanted).one()


@dataclass
class Asking:
    """The sensor of uploads on one instance; what it asks for is recorded as runs."""

    instance: dg.DagsterInstance
    store_url: str
    cursor: str | None = None

    def tick(self) -> dg.SensorResult:
        """Let the sensor look once, and add the partitions that it asks for."""
        with dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor
        ) as context:
            result = uploads(context, store=StoreResource(store_url=self.store_url))
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        for change in result.dynamic_partitions_requests or []:
            keys = list(change.partition_keys)
            self.instance.add_dynamic_partitions("studies", keys)
        return result

    def launch(
        self, request: dg.RunRequest, status: dg.DagsterRunStatus
    ) -> dg.DagsterRun:
        """Record the run that was asked for, as the daemon does."""
        place = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("csfd"), "csfd")
        return self.instance.create_run_for_job(
            build_defs().resolve_job_def("arrival"),
            status=status,
            remote_job_origin=RemoteJobOrigin(place, "arrival"),
            tags={**request.tags, "dagster/partition": str(request.partition_key)},
        )
