"""Schedules in tests: a tick, and runs that are under way."""

from datetime import datetime
from typing import Any

import dagster as dg
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

from csfd_dagster.definitions import build_defs

Asked = tuple[list[dg.RunRequest], str | None]


def tick_of(
    name: str, when: datetime, resources: dict[str, Any], instance: dg.DagsterInstance
) -> Asked:
    """Evaluate a schedule once: what it asks for, or why it does not."""
    defs = build_defs(resources)
    with dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=when,
        resources=resources,
        repository_def=defs.get_repository_def(),
    ) as context:
        found = defs.resolve_schedule_def(name).evaluate_tick(context)
    return list(found.run_requests or []), found.skip_message


def begin_job(
    instance: dg.DagsterInstance, name: str, status: dg.DagsterRunStatus
) -> dg.DagsterRun:
    """Record a run of a job."""
    place = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("csfd"), "csfd")
    return instance.create_run_for_job(
        build_defs().resolve_job_def(name),
        status=status,
        remote_job_origin=RemoteJobOrigin(place, name),
    )


def begin_run(instance: dg.DagsterInstance, asset: str) -> None:
    """Record a run of one asset, as what follows is made by."""
    wanted = {dg.AssetKey(asset)}
    job = build_defs().resolve_implicit_global_asset_job_def()
    instance.create_run_for_job(
        job.get_subset(asset_selection=wanted),
        status=dg.DagsterRunStatus.STARTED,
        asset_selection=frozenset(wanted),
    )
