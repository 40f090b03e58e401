"""Schedule: look every week whether the data have drifted.

``CSFD_DRIFT_CRON`` is read when the definitions are built, never when this module is
imported.
"""

from typing import Final

import dagster as dg

from csfd_core.reports.drift.report import Arrived, studies_since_report
from csfd_dagster.assets.drift import data_drift
from csfd_dagster.resources.stores import StoreResource
from csfd_dagster.schedules import read_cron, run_in_progress

NAME: Final = "drift_watch"
DEFAULT_CRON: Final = "0 3 * * 1"  # Mondays, an hour after the retraining looks
_CRON: Final = "CSFD_DRIFT_CRON"

drift = dg.define_asset_job(
    "drift",
    selection=dg.AssetSelection.assets(data_drift),
    executor_def=dg.in_process_executor,
    description="Whether new studies are like those that the champion was trained on.",
)


def build_drift_schedules() -> list[dg.ScheduleDefinition]:
    """Build the schedule with the time of the environment.

    Raises:
        SettingsError: If the time is no cron string.
    """
    cron = read_cron(_CRON, DEFAULT_CRON)

    # Running from the start: without a model or new studies it does nothing but say so.
    @dg.schedule(
        name=NAME,
        job=drift,
        cron_schedule=cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Compares studies that have come since the last report with those "
        "that the serving model was trained on, and warns where they differ.",
    )
    def drift_watch(
        context: dg.ScheduleEvaluationContext, store: StoreResource
    ) -> dg.RunRequest | dg.SkipReason:
        running = run_in_progress(context.instance, [data_drift.key], drift.name)
        if running is not None:
            return dg.SkipReason(
                f"Run {running[:8]} looks for drift already, or will when it has "
                "trained; the watch waits for the next tick."
            )
        if training := run_in_progress(context.instance):
            return dg.SkipReason(
                f"Run {training[:8]} trains classifiers, one of which may become the "
                "champion to compare with; the watch waits for the next tick."
            )
        arrived = studies_since_report(store.open())
        if reason := _why_not(arrived):
            return dg.SkipReason(reason)
        return dg.RunRequest(
            run_key=f"{NAME}-{context.scheduled_execution_time.isoformat()}",
            tags={"csfd/new_studies": str(len(arrived.new))},
        )

    return [drift_watch]


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


DRIFT_JOBS = [drift]
