"""Schedules: what happens by itself at a given time.

A schedule materializes the root of what it is for; the rest follows by the conditions
of the assets. Times are read when the definitions are built, never when this module is
imported.
"""

import os
from typing import Final

import dagster as dg
from dagster._utils.schedules import is_valid_cron_string

from csfd_core.errors import SettingsError
from csfd_core.registry.new_labels import Arrivals, count_arrivals
from csfd_core.reports.drift.report import Arrived, studies_since_report
from csfd_core.text import count
from csfd_dagster.jobs import TRAINED, audit, drift, retraining
from csfd_dagster.resources.stores import SourceResource, StoreResource
from csfd_dagster.runs import run_that_makes

RETRAINING: Final = "nightly_retraining"
DRIFT_WATCH: Final = "drift_watch"
AUDIT: Final = "weekly_audit"
DEFAULT_CRON: Final = "0 2 * * *"  # when nobody reads studies
DEFAULT_DRIFT_CRON: Final = "0 3 * * 1"  # Mondays, an hour after the retraining looks
DEFAULT_AUDIT_CRON: Final = "0 4 * * 0"  # Sundays
DEFAULT_STUDIES: Final = 20  # two to four weeks of a department
_CRON: Final = "CSFD_RETRAIN_CRON"
_DRIFT_CRON: Final = "CSFD_DRIFT_CRON"
_AUDIT_CRON: Final = "CSFD_AUDIT_CRON"
RETRAIN_STUDIES: Final = "CSFD_RETRAIN_STUDIES"


def build_schedules() -> list[dg.ScheduleDefinition]:
    """Build the schedules with the settings of the environment.

    All run from the start: where there is nothing to do they do nothing but say so.

    Raises:
        SettingsError: If a time is no cron string.
    """
    return [_retraining(), _drift_watch(), _weekly_audit()]


def _retraining() -> dg.ScheduleDefinition:
    @dg.schedule(
        name=RETRAINING,
        job=retraining,
        cron_schedule=read_cron(_CRON, DEFAULT_CRON),
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Begins a training once enough studies were newly labelled or "
        f"corrected ({RETRAIN_STUDIES}, {DEFAULT_STUDIES} by default). Classifiers, "
        "comparison and champion follow.",
    )
    def nightly_retraining(
        context: dg.ScheduleEvaluationContext,
        source: SourceResource,
        store: StoreResource,
    ) -> dg.RunRequest | dg.SkipReason:
        if running := run_that_makes(context.instance, TRAINED, retraining.name):
            return dg.SkipReason(
                f"Run {running.run_id[:8]} trains already; retraining waits for the "
                "next tick."
            )
        wanted = wanted_studies()
        arrivals = count_arrivals(store.open(), source.open())
        if arrivals.count < wanted:
            return dg.SkipReason(f"{_told(arrivals)} {wanted} are needed.")
        context.log.info("%s Retraining starts.", _told(arrivals))
        return dg.RunRequest(
            run_key=f"{RETRAINING}-{context.scheduled_execution_time.isoformat()}",
            tags={
                "csfd/new_studies": str(arrivals.new),
                "csfd/corrected_studies": str(len(arrivals.corrected)),
                "csfd/newest_candidate": arrivals.model_id or "none",
            },
        )

    return nightly_retraining


def _drift_watch() -> dg.ScheduleDefinition:
    @dg.schedule(
        name=DRIFT_WATCH,
        job=drift,
        cron_schedule=read_cron(_DRIFT_CRON, DEFAULT_DRIFT_CRON),
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Compares studies that have come since the last report with those "
        "that the serving model was trained on, and warns where they differ.",
    )
    def drift_watch(
        context: dg.ScheduleEvaluationContext, store: StoreResource
    ) -> dg.RunRequest | dg.SkipReason:
        if running := run_that_makes(context.instance, ["data_drift"], drift.name):
            return dg.SkipReason(
                f"Run {running.run_id[:8]} looks for drift already; the watch waits "
                "for the next tick."
            )
        if training := run_that_makes(context.instance, TRAINED, retraining.name):
            return dg.SkipReason(
                f"Run {training.run_id[:8]} trains classifiers, one of which may "
                "become the champion to compare with; the watch waits for the next "
                "tick."
            )
        arrived = studies_since_report(store.open())
        if reason := _why_not(arrived):
            return dg.SkipReason(reason)
        return dg.RunRequest(
            run_key=f"{DRIFT_WATCH}-{context.scheduled_execution_time.isoformat()}",
            tags={"csfd/new_studies": str(len(arrived.new))},
        )

    return drift_watch


def _weekly_audit() -> dg.ScheduleDefinition:
    return dg.ScheduleDefinition(
        name=AUDIT,
        job=audit,
        cron_schedule=read_cron(_AUDIT_CRON, DEFAULT_AUDIT_CRON),
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Looks at everything that the store holds.",
    )


def read_cron(variable: str, default: str) -> str:
    """Return the time that a variable of the environment gives.

    Raises:
        SettingsError: If it is no cron string.
    """
    cron = os.environ.get(variable) or default
    if not is_valid_cron_string(cron):
        raise SettingsError(
            f"{variable} must be a cron string like {default!r}. Received: {cron!r}."
        )
    return cron


def wanted_studies() -> int:
    """Return how many newly labelled or corrected studies are worth a training.

    Raises:
        SettingsError: If the setting is no number of at least 1.
    """
    text = os.environ.get(RETRAIN_STUDIES) or str(DEFAULT_STUDIES)
    if not text.isdecimal() or int(text) < 1:
        raise SettingsError(
            f"{RETRAIN_STUDIES} must be a whole number of at least 1. Received: "
            f"{text!r}."
        )
    return int(text)


def _told(arrivals: Arrivals) -> str:
    waiting = len(arrivals.waiting)
    note = f", {waiting} of them not ingested yet," if waiting else ""
    came = "has come" if arrivals.new == 1 else "have come"
    corrected = len(arrivals.corrected)
    were = "was" if corrected == 1 else "were"
    since = (
        f"since {arrivals.model_id} was trained on {arrivals.trained_on}"
        if arrivals.model_id
        else "and no classifier has been trained yet"
    )
    return (
        f"{count(arrivals.new, 'newly labelled study')}{note} {came} and {corrected} "
        f"{were} corrected {since}."
    )


def _why_not(arrived: Arrived) -> str:
    """Say why there is nothing to compare; nothing where there is."""
    if not arrived.has_model:
        return (
            "No classifier has been trained yet, so there is nothing to compare new "
            "studies with. Start with csfd run."
        )
    if not arrived.new:
        return (
            "No good study has come since the last report on drift."
            if arrived.has_report
            else "The store has no good study yet."
        )
    return ""
