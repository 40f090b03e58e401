"""Three months in minutes: the real sensor, schedule and graph on a department's weeks.

Only time is simulated. Every week the sensor looks at the inbox and its runs ingest
what is complete; then the schedule ticks, and what it asks for is done. Nothing is
taken from the plan but what arrives.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final

import dagster as dg

from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.classification.classifiers import CLASSIFIERS
from csfd_core.errors import SettingsError
from csfd_core.ingest.outcomes import Outcome
from csfd_core.learning.outcomes import TrainingOutcome
from csfd_core.lineage.forward import files_of
from csfd_core.lineage.redaction import all_records
from csfd_core.lineage.withdrawal import withdraw
from csfd_core.registry.champion import ChampionRegistry
from csfd_core.registry.contest import LastDecision, read_decision
from csfd_core.registry.history import this_user
from csfd_core.runtime.executors import default_workers, open_executor
from csfd_core.settings import ScheduleSettings, Settings
from csfd_core.store.standing import is_quarantined
from csfd_core.text import count
from csfd_dagster.engine import Engine, Project, open_project, run_everything
from csfd_dagster.instance.files import lay_instance
from csfd_dagster.jobs import RETRAINING_ROOTS
from csfd_dagster.resources.classification import ClassificationResource
from csfd_dagster.resources.mlflow import MlflowResource
from csfd_dagster.resources.segmentation import SegmentationResource
from csfd_dagster.resources.stores import SourceResource, StoreResource
from csfd_dagster.schedules import RETRAINING as SCHEDULE
from csfd_dagster.sensors import Seen, look_for_studies
from csfd_dagster.simulation.console import print_weeks
from csfd_dagster.simulation.inbox import MONDAY, Department
from csfd_dagster.simulation.ledger import Ledger, WeekFacts
from csfd_dagster.simulation.plan import SimulationConfig, Week, plan_weeks

TABLE: Final = "simulation.csv"
_HOME: Final = "dagster"
_MOST_LOOKS: Final = 10
_QUIET_LOOKS: Final = 2  # a study is taken up when one look finds it as the last did
# Outcomes of what was not there before.
_ANEW: Final = {Outcome.WRITTEN, TrainingOutcome.TRAINED, TrainingOutcome.TAKEN}
_NIGHT: Final = time(2, tzinfo=UTC)
_REASON: Final = "The patient has withdrawn consent."
# Short trainings: they follow what the data teach, and a simulation stays short.
_TRAININGS: Final[Mapping[str, Any]] = {
    "segmentation": SegmentationResource(epochs=1, steps_per_epoch=5),
    "classification": ClassificationResource(
        epochs=3, steps_per_epoch=60, weights="none"
    ),
}
Say = Callable[[str], None]


def simulate(
    root: Path,
    config: SimulationConfig,
    say: Say,
    trainings: Mapping[str, Any] = _TRAININGS,
) -> int:
    """Live through the weeks; print a table of them and what they must show.

    Args:
        root: New or empty folder for everything.
        config: How long and how much.
        say: Told of every week.
        trainings: Resources of the segmentation and the classifiers.

    Returns:
        Exit status: 1 where something that must hold does not.

    Raises:
        SettingsError: If the folder holds anything.
    """
    if root.exists() and any(root.iterdir()):
        raise SettingsError(
            f"{root} is not empty. A simulation starts from nothing: name a new folder."
        )
    simulation = _open(root, config, say, trainings)
    with dg.DagsterInstance.get() as instance:
        for week in plan_weeks(config):
            simulation.live(week, instance)
    ledger = simulation.ledger
    withdrawn = simulation.project.stores.withdrawn.study_uids()
    leftovers = [
        path
        for uid in sorted(withdrawn)
        for path in files_of(simulation.project.stores, uid)
    ]
    table = ledger.table()
    table.to_csv(root / TABLE, index=False)
    verdicts = ledger.verdicts(leftovers)
    print_weeks(table, verdicts)
    say(f"Table: {root / TABLE}")
    say(f"Dagster's UI on it: DAGSTER_HOME={root / _HOME} csfd ui "
        f"--source {root / 'source'} --store {root / 'store'}")  # fmt: skip
    return 0 if all(verdict.holds for verdict in verdicts) else 1


@dataclass(slots=True, kw_only=True)
class _Simulation:
    """One department, its project, and what has come of it so far."""

    department: Department
    project: Project
    resources: Mapping[str, Any]
    say: Say
    ledger: Ledger = field(default_factory=Ledger)
    cursor: str | None = None

    def live(self, week: Week, instance: dg.DagsterInstance) -> None:
        """Let a week happen, and note it."""
        begun = datetime.now(UTC)
        before = read_decision(self.project.stores)
        arriving = count(len(week.arrivals), "study", "arrives", "arrive")
        self.say(f"Week {week.number}: {arriving}.")
        self._arrive(week)
        skipped = None
        if week.number:
            self._ingest(instance)
            skipped = self._tick(week, instance)
        else:
            run_everything(self.project, instance, self._whisper)
        self._note(week, instance, begun, skipped, before)
        self.say(f"  {self.ledger.weeks[-1].row()['decision']}")

    def _arrive(self, week: Week) -> None:
        with open_executor(default_workers(len(week.arrivals))) as executor:
            if week.number:
                self.department.bring(week, executor)
            else:
                self.department.open_doors(executor)
        if week.withdrawn is not None:
            (uid,) = self.department.uids([week.withdrawn])
            records = all_records(self.project.mlflow.uri())
            withdraw(self.project.stores, uid, _REASON, this_user(), records)

    def _ingest(self, instance: dg.DagsterInstance) -> None:
        """Let the sensor look until it finds nothing new; make what follows."""
        engine = Engine(self.project, instance, self._whisper)
        engine.settle()
        quiet = 0
        for _ in range(_MOST_LOOKS):
            with dg.build_sensor_context(instance=instance, cursor=self.cursor) as tick:
                result = look_for_studies(tick, **self.resources)
            assert isinstance(result, dg.SensorResult)
            self.cursor = _rested(result.cursor)
            changes = result.dynamic_partitions_requests or []
            if not changes and not result.asset_events:
                quiet += 1
                if quiet == _QUIET_LOOKS:
                    break
                continue
            quiet = 0
            for change in changes:
                _change_partitions(instance, change)
            for event in result.asset_events:
                instance.report_runless_asset_event(event)
            engine.settle()
        engine.raise_failures()

    def _tick(self, week: Week, instance: dg.DagsterInstance) -> str | None:
        """Let the schedule tick, and train where it says so; else return its reason."""
        defs = self.project.defs
        night = datetime.combine(MONDAY + timedelta(weeks=week.number), _NIGHT)
        with dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=night,
            resources={name: self.resources[name] for name in ("source", "store")},
            repository_def=defs.get_repository_def(),
        ) as context:
            result = defs.resolve_schedule_def(SCHEDULE).evaluate_tick(context)
        if result.run_requests:
            engine = Engine(self.project, instance, self._whisper)
            engine.materialize(RETRAINING_ROOTS)
            engine.settle()
            engine.raise_failures()
            return None
        return result.skip_message

    def _note(
        self,
        week: Week,
        instance: dg.DagsterInstance,
        begun: datetime,
        skipped: str | None,
        before: LastDecision | None,
    ) -> None:
        stores, ledger = self.project.stores, self.ledger
        made = list(_made_since(instance, begun))
        table = stores.metadata.read_studies()
        is_bad = is_quarantined(table)
        ledger.note_splits(stores)
        models = ClassifierStore(stores.root)
        ledger.note_learnt(models.cards(list(CLASSIFIERS)))
        after = read_decision(stores)
        decided = after if after != before else None
        champion = ChampionRegistry(stores, self.project.mlflow.uri()).champion()
        ledger.weeks.append(
            WeekFacts(
                week=week,
                expected=frozenset(self.department.uids(week.to_convert)),
                made=Counter(asset for asset, _ in made),
                converted=frozenset(p for asset, p in made if asset == "slice_store"),
                studies=int((~is_bad).sum()),
                quarantined=int(is_bad.sum()),
                retraining=skipped,
                decision=decided.decision.to_json() if decided else None,
                champion=None if champion is None else champion.title,
            )
        )

    def _whisper(self, text: str) -> None:
        if sys.stdout.isatty():
            self.say(f"  {text}")


def _open(
    root: Path, config: SimulationConfig, say: Say, trainings: Mapping[str, Any]
) -> _Simulation:
    """Make the folders and build the project on them."""
    home = root / _HOME
    lay_instance(home)
    Settings.read(dagster_home=home, profile="demo").export()
    # Its weeks pass in seconds: what has arrived is whole.
    ScheduleSettings.read(retrain_studies=config.retrain, settle_s=0).export()
    department = Department(root, config)
    resources = {
        "source": SourceResource(
            source_url=str(department.source), inbox_url=str(department.inbox)
        ),
        "store": StoreResource(store_url=str(root / "store")),
        "mlflow": MlflowResource(tracking_uri=f"sqlite:///{root / 'mlflow.db'}"),
        **trainings,
    }
    return _Simulation(
        department=department,
        project=open_project(resources),
        resources={
            name: resources[name]
            for name in ("source", "store", "segmentation", "classification")
        },
        say=say,
    )


def _change_partitions(
    instance: dg.DagsterInstance,
    request: dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest,
) -> None:
    name, keys = request.partitions_def_name, list(request.partition_keys)
    if isinstance(request, dg.AddDynamicPartitionsRequest):
        instance.add_dynamic_partitions(name, keys)
        return
    for key in keys:
        instance.delete_dynamic_partition(name, key)


def _rested(cursor: str | None) -> str:
    """Return the sensor's cursor at its next tick, when it has rested.

    Ticks of a simulation follow each other at once. On a slow machine the sensor would
    still rest from a long look, and the week would pass without its studies.
    """
    seen = Seen.model_validate_json(cursor or "{}")
    return seen.model_copy(update={"rest_until": 0.0}).model_dump_json()


def _made_since(
    instance: dg.DagsterInstance, begun: datetime
) -> Iterator[tuple[str, str]]:
    """Yield the asset and partition of everything that was written anew."""
    for record in instance.get_run_records(dg.RunsFilter(created_after=begun)):
        events = instance.all_logs(
            record.dagster_run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
        )
        for event in events:
            materialization = event.asset_materialization
            if materialization is not None and _ANEW & set(_outcomes(materialization)):
                yield (
                    materialization.asset_key.to_user_string(),
                    materialization.partition or "",
                )


def _outcomes(event: dg.AssetMaterialization) -> list[object]:
    return [value.value for name, value in event.metadata.items() if "outcome" in name]
