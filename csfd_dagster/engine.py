"""Settles the conditions in this process: what ``csfd run`` does.

The daemon asks for what the conditions ask for, tick by tick; here it is done at once,
round by round, until they ask for nothing. What has changed outside is told before, a
retraining begun afterwards, in the same way as the sensor and the schedule do it.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import dagster as dg

from csfd_core.classification.manifest import manifest_is_current
from csfd_core.errors import CsfdError, SourceError
from csfd_core.ingest.completeness import read_notes, tell_incomplete
from csfd_core.ingest.outcomes import Outcome
from csfd_core.ingest.plan import plan_arrivals, survey
from csfd_core.ingest.presence import presence_notes
from csfd_core.lineage.redaction import all_records
from csfd_core.lineage.withdrawal import withdraw_noted
from csfd_core.reports.segmentation.summary import reported_fits
from csfd_core.segmentation.fit import is_current as model_is_current
from csfd_core.store.slices import ConversionSettings
from csfd_core.store.source import Sources
from csfd_core.store.stores import Stores
from csfd_core.text import count
from csfd_dagster.conditions import ASKED_BY, CONDITIONS
from csfd_dagster.definitions import build_defs
from csfd_dagster.durations import Durations
from csfd_dagster.observing import observe_labels, observe_settings, take_up
from csfd_dagster.partitions import partition_ranges, range_tags, studies
from csfd_dagster.resources.classification import ClassificationResource
from csfd_dagster.resources.mlflow import MlflowResource
from csfd_dagster.resources.segmentation import SegmentationResource
from csfd_dagster.resources.stores import SourceResource, StoreResource
from csfd_dagster.runs import fail_dead_runs

QUIET: Final = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
_CURSOR: Final = "csfd run"  # in the storage of the instance
_NO_RETRY: Final = {"dagster/max_retries": "0"}  # the daemon could not start them
_MOST_ROUNDS: Final = 50  # the graph is nine deep

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """The definitions with their resources, and what these open."""

    defs: dg.Definitions
    sources: Sources
    stores: Stores
    conversion: ConversionSettings
    segmentation: SegmentationResource
    classification: ClassificationResource
    mlflow: MlflowResource


@dataclass(slots=True)
class Settled:
    """What came of settling the conditions.

    Attributes:
        runs: How many runs were done.
        failures: Why runs have failed.
        failed_studies: Studies that failed, and why.
        durations: Of the steps of all runs.
    """

    runs: int = 0
    failures: list[str] = field(default_factory=list)
    failed_studies: dict[str, str] = field(default_factory=dict)
    durations: Durations = field(default_factory=Durations)


def open_project(resources: Mapping[str, Any] | None = None) -> Project:
    """Build the definitions and what a run of everything asks of them.

    Args:
        resources: Used in place of those that read the environment.
    """
    used = {
        "source": SourceResource(),
        "store": StoreResource(),
        "segmentation": SegmentationResource(),
        "classification": ClassificationResource(),
        "mlflow": MlflowResource(),
        **(resources or {}),
    }
    return Project(
        defs=build_defs(used),
        sources=used["source"].open(),
        stores=used["store"].open(),
        conversion=used["store"].conversion(),
        segmentation=used["segmentation"],
        classification=used["classification"],
        mlflow=used["mlflow"],
    )


def run_everything(
    project: Project, instance: dg.DagsterInstance, say: Say
) -> Durations:
    """Take up what is new or has changed, and make all that follows from it.

    Args:
        project: As ``open_project`` returns.
        instance: Where the runs are recorded.
        say: Told what was done.

    Returns:
        What its steps took.

    Raises:
        SourceError: If there are no studies.
        CsfdError: If a run or a study failed; the others are done.
    """
    require_studies(project.sources)
    project.mlflow.prepare()
    fail_dead_runs(instance)
    engine = Engine(project, instance, say)
    engine.settle()  # what was left by a run that was cut off
    engine.take_up()
    engine.settle()
    if roots := due_roots(project):
        engine.materialize(roots)
        engine.settle()
    engine.raise_failures()
    return engine.settled.durations


def require_studies(sources: Sources) -> None:
    """Require that there are studies.

    Raises:
        SourceError: If there are none.
    """
    if not any(folder.files for folder in sources.studies()):
        locations = " and ".join(str(location) for location in sources.locations)
        raise SourceError(
            f"There are no studies in {locations}. Make some with csfd phantom."
        )


def due_roots(project: Project) -> list[str]:
    """Return what a retraining begins with, as far as it would be another now.

    What was never made is asked for by its condition, not here.
    """
    stores, segmentation = project.stores, project.segmentation
    roots: list[str] = []
    if stores.metadata.read_studies_inputs() is None:
        return roots
    fits = reported_fits(stores, segmentation.settings(), segmentation.trained_folds())
    if not all(model_is_current(stores, fit) for fit in fits):
        roots.append("segmentation_model")
    if not manifest_is_current(stores, project.classification.crops().to_note()):
        roots.append("training_manifest")
    return roots


class Engine:
    """Does what the conditions ask for, in this process."""

    def __init__(
        self, project: Project, instance: dg.DagsterInstance, say: Say
    ) -> None:
        """Go on where an earlier process on this instance has stopped."""
        self.settled = Settled()
        self._project = project
        self._instance = instance
        self._say = say
        self._graph = project.defs.resolve_asset_graph()
        self._job = project.defs.resolve_implicit_global_asset_job_def()
        self._cursor = self._stored_cursor()

    def take_up(self) -> None:
        """Tell Dagster what has changed outside, once what is withdrawn is gone."""
        project = self._project
        stores, sources = project.stores, project.sources
        notes = read_notes(sources)
        records = all_records(project.mlflow.uri())
        if told := withdraw_noted(stores, notes, records):
            self._say(told)
            self._cursor = self._stored_cursor()  # which names them no more
        surveyed = survey(stores, sources, project.conversion, notes)
        name = str(studies.name)
        plan = plan_arrivals(surveyed, self._instance.get_dynamic_partitions(name))
        take_up(self._instance, name, plan)
        for event in (
            observe_labels(surveyed.labels_version),
            *observe_settings(project.segmentation, project.classification),
        ):
            self._instance.report_runless_asset_event(event)
        total = count(len(surveyed.studies), "study")
        self._say(f"{total}, {len(plan.take_up)} new or changed.")
        for told in (
            tell_incomplete(plan.incomplete),
            *presence_notes(stores, sources),
        ):
            if told:
                self._say(told)

    def settle(self) -> None:
        """Do what the conditions ask for until they ask for nothing.

        Raises:
            CsfdError: If they go on asking.
        """
        for _ in range(_MOST_ROUNDS):
            evaluation = dg.evaluate_automation_conditions(
                self._project.defs,
                self._instance,
                asset_selection=dg.AssetSelection.all(),
                cursor=self._cursor,
            )
            asked = {
                key: partitions
                for key in self._graph.toposorted_asset_keys
                if (partitions := frozenset(evaluation.get_requested_partitions(key)))
            }
            groups: dict[frozenset[str | None], list[dg.AssetKey]] = {}
            for key, partitions in asked.items():
                groups.setdefault(partitions, []).append(key)
            for partitions, keys in groups.items():
                self._run_partitions(keys, partitions)
            self._remember(evaluation.cursor)
            if not groups:
                return
        raise CsfdError(
            f"The conditions of the assets still ask for runs after {_MOST_ROUNDS} "
            "rounds. Look at the runs in csfd ui."
        )

    def materialize(self, names: Sequence[str]) -> None:
        """Make assets without partitions, whatever their conditions say."""
        self._run([dg.AssetKey(name) for name in names], {}, "tables and models")

    def raise_failures(self) -> None:
        """Require that nothing has failed.

        Raises:
            CsfdError: If a run or a study failed.
        """
        failed = self.settled.failed_studies
        reasons = list(self.settled.failures)
        if failed:
            study_uid, why = next(iter(failed.items()))
            told = count(len(failed), "study")
            reasons.append(f"{told} failed; the first, {study_uid}: {why}")
        if reasons:
            raise CsfdError(" ".join(reasons))

    def _run_partitions(
        self, keys: list[dg.AssetKey], partitions: frozenset[str | None]
    ) -> None:
        definition = self._graph.get(keys[0]).partitions_def
        if definition is None:
            self._run(keys, {}, "tables and models")
            return
        ordered = definition.get_partition_keys(dynamic_partitions_store=self._instance)
        is_of_studies = definition == studies
        wanted = {key for key in ordered if key in partitions}
        for part in partition_ranges(ordered, wanted):
            what = count(len(part), "study") if is_of_studies else ", ".join(part)
            self._run(keys, range_tags(part), what)

    def _run(
        self, keys: Sequence[dg.AssetKey], tags: Mapping[str, str], what: str
    ) -> None:
        result = self._job.execute_in_process(
            instance=self._instance,
            asset_selection=list(keys),
            tags={ASKED_BY: CONDITIONS, **_NO_RETRY, **tags},
            run_config=QUIET,
            raise_on_error=False,
        )
        self.settled.runs += 1
        self.settled.durations.add(self._instance, result.run_id)
        made = {event.asset_key for event in result.get_asset_materialization_events()}
        if names := ", ".join(k.to_user_string() for k in keys if k in made):
            self._say(f"{names}, {what}: done (run {result.run_id}).")
        for told in _warnings_of(self._instance, result.run_id):
            self._say(told)
        self.settled.failed_studies |= dict(_failed_studies(result))
        if not result.success:
            self.settled.failures.append(
                f"Run {result.run_id} failed; look at it in csfd ui. "
                f"{_first_failure(result)}"
            )

    def _stored_cursor(self) -> Any:  # noqa: ANN401 - Dagster does not export its type
        values = self._instance.daemon_cursor_storage.get_cursor_values({_CURSOR})
        text = values.get(_CURSOR)
        return dg.deserialize_value(text) if text else None

    def _remember(self, cursor: Any) -> None:
        self._cursor = cursor
        text = dg.serialize_value(cursor)
        self._instance.daemon_cursor_storage.set_cursor_values({_CURSOR: text})


def _warnings_of(instance: dg.DagsterInstance, run_id: str) -> Iterator[str]:
    """Yield what assets have said of a run, as that one cannot be made yet."""
    for entry in instance.all_logs(run_id):
        if not entry.is_dagster_event and int(entry.level) >= logging.WARNING:
            yield entry.user_message


def _failed_studies(result: dg.ExecuteInProcessResult) -> Iterator[tuple[str, str]]:
    for event in result.get_asset_materialization_events():
        metadata = event.materialization.metadata
        outcome = metadata.get("outcome")
        if event.partition and outcome is not None and outcome.value == Outcome.FAILED:
            yield event.partition, str(metadata["note"].value)


def _first_failure(result: dg.ExecuteInProcessResult) -> str:
    """Return what the first step that failed has told."""
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.error is not None:
            error = event.step_failure_data.error
            told = (error.cause or error).message.strip()
            return f"{event.step_key}: {told.partition(': ')[2] or told}"
    return "No step has failed; a check has, or the run was stopped."
