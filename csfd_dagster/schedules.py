"""Schedules: what happens by itself at a given time.

``CSFD_RETRAIN_CRON`` and ``CSFD_RETRAIN_STUDIES`` are read when the definitions are
built and when a tick comes, never when this module is imported.
"""

import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg
from dagster._utils.schedules import is_valid_cron_string

from csfd_core.classification.classifiers import CLASSIFIERS
from csfd_core.errors import SettingsError
from csfd_core.registry.new_labels import Arrivals, count_arrivals
from csfd_core.text import count
from csfd_dagster.jobs import UNDER_WAY, everything, materialize_all
from csfd_dagster.resources.stores import SourceResource, StoreResource

NAME: Final = "nightly_retraining"
DEFAULT_CRON: Final = "0 2 * * *"  # when nobody reads studies
DEFAULT_STUDIES: Final = 20  # two to four weeks of a department
_CRON: Final = "CSFD_RETRAIN_CRON"
RETRAIN_STUDIES: Final = "CSFD_RETRAIN_STUDIES"
_PHASE_ENDS_WITHIN: Final = timedelta(days=2)
TRAINED: Final = tuple(dg.AssetKey(name) for name in CLASSIFIERS)


def build_schedules() -> list[dg.ScheduleDefinition]:
    """Build the schedules with the settings of the environment.

    Raises:
        SettingsError: If the time is no cron string.
    """
    cron = read_cron(_CRON, DEFAULT_CRON)

    # Running from the start: without a first training by hand, or with too few new
    # studies, it does nothing but say so.
    @dg.schedule(
        name=NAME,
        job=everything,
        cron_schedule=cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Ingests, trains, compares and decides on the champion once enough "
        f"studies were newly labelled or corrected ({RETRAIN_STUDIES}, "
        f"{DEFAULT_STUDIES} by default).",
    )
    def nightly_retraining(
        context: dg.ScheduleEvaluationContext,
        source: SourceResource,
        store: StoreResource,
    ) -> dg.RunRequest | dg.SkipReason:
        if running := run_in_progress(context.instance):
            return dg.SkipReason(
                f"Run {running[:8]} trains already; retraining waits for the next tick."
            )
        wanted = wanted_studies()
        arrivals = count_arrivals(store.open(), source.open())
        if arrivals.model_id is None:
            return dg.SkipReason(
                f"No classifier has been trained yet; {arrivals.new} labelled "
                "studies are there. Start with csfd run, which also says for which "
                "profile."
            )
        if arrivals.count < wanted:
            return dg.SkipReason(f"{_told(arrivals)} {wanted} are needed.")
        context.log.info("%s Retraining starts.", _told(arrivals))
        return dg.RunRequest(
            run_key=f"{NAME}-{context.scheduled_execution_time.isoformat()}",
            run_config=dg.RunConfig(
                ops={materialize_all.name: {"config": {"profile": arrivals.profile}}}
            ),
            tags={
                "csfd/new_studies": str(arrivals.new),
                "csfd/corrected_studies": str(len(arrivals.corrected)),
                "csfd/newest_candidate": arrivals.model_id,
            },
        )

    return [nightly_retraining]


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


def run_in_progress(
    instance: dg.DagsterInstance,
    makes: Iterable[dg.AssetKey] = TRAINED,
    job_name: str = "",
) -> str | None:
    """Return a run that makes certain assets, or will: of a job, or of its phases.

    The daemon marks a run of a job whose process has died as failed. Nobody does that
    for the phases of a ``csfd run``; so these count for two days.

    Args:
        instance: Where the runs are recorded.
        makes: The assets; those of the job ``everything`` always count.
        job_name: Of a further job that makes them.
    """
    made, jobs = set(makes), {everything.name, job_name}
    oldest = datetime.now(UTC) - _PHASE_ENDS_WITHIN
    for record in instance.get_run_records(dg.RunsFilter(statuses=UNDER_WAY)):
        run = record.dagster_run
        is_recent = record.create_timestamp > oldest
        is_phase = bool(made & (run.asset_selection or set()))
        if run.job_name in jobs or (is_phase and is_recent):
            return str(run.run_id)
    return None


def _told(arrivals: Arrivals) -> str:
    waiting = len(arrivals.waiting)
    note = f", {waiting} of them not ingested yet," if waiting else ""
    came = "has come" if arrivals.new == 1 else "have come"
    corrected = len(arrivals.corrected)
    were = "was" if corrected == 1 else "were"
    return (
        f"{count(arrivals.new, 'newly labelled study')}{note} {came} and {corrected} "
        f"{were} corrected since {arrivals.model_id} was trained on "
        f"{arrivals.trained_on}."
    )
