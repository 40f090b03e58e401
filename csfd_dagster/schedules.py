"""Schedules: what happens by itself at a given time.

A schedule materializes the root of what it is for; the rest follows by the conditions
of the assets. Times are read when the definitions are built, never when this module is
imported.
"""

from typing import Final

import dagster as dg

from csfd_core.registry.new_labels import Arrivals, count_arrivals
from csfd_core.reports.drift.report import Arrived, studies_since_report
from csfd_core.settings import ScheduleSettings, variable_of
from csfd_core.text import count
from csfd_dagster.jobs import TRAINED, audit, drift, retraining
from csfd_dagster.resources.stores import SourceResource, StoreResource
from csfd_dagster.runs import run_that_makes

RETRAINING: Final = "nightly_retraining"
DRIFT_WATCH: Final = "drift_watch"
AUDIT: Final = "weekly_audit"


def build_schedules() -> list[dg.ScheduleDefinition]:
    """Build the schedules with the settings of the environment.

    All run from the start: where there is nothing to do they do nothing but say so.

    Raises:
        SettingsError: If one of them cannot be used.
    """
    settings = ScheduleSettings.read()
    return [_retraining(settings), _drift_watch(settings), _weekly_audit(settings)]


def _retraining(settings: ScheduleSettings) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=RETRAINING,
        job=retraining,
        cron_schedule=settings.retrain_cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Begins a training once enough studies were newly labelled or "
        f"corrected ({variable_of(ScheduleSettings, 'retrain_studies')}). Classifiers, "
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
        wanted = ScheduleSettings.read().retrain_studies
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


def _drift_watch(settings: ScheduleSettings) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=DRIFT_WATCH,
        job=drift,
        cron_schedule=settings.drift_cron,
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


def _weekly_audit(settings: ScheduleSettings) -> dg.ScheduleDefinition:
    return dg.ScheduleDefinition(
        name=AUDIT,
        job=audit,
        cron_schedule=settings.audit_cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Looks at everything that the store holds.",
    )


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
