"""Everything, phase by phase: what ``csfd run`` and the job ``everything`` do.

A run of Dagster has assets of one partitioning. So the graph is cut into phases, by
study, by nothing, by fold and so on, and each phase is a run of its own, if it has
anything to do.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph

from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.classification.classifiers import CLASSIFIERS
from csfd_core.classification.ensemble import read_best
from csfd_core.classification.fit import is_current as classifier_is_current
from csfd_core.classification.fit import plan_classifier, why_untrainable
from csfd_core.classification.manifest import manifest_inputs, read_manifest
from csfd_core.errors import CsfdError, SourceError
from csfd_core.ingest.completeness import (
    read_notes,
    split_incomplete,
    tell_incomplete,
    wanted_files,
)
from csfd_core.ingest.convert import StudyTask, needs_work, study_tasks
from csfd_core.ingest.outcomes import Outcome
from csfd_core.ingest.presence import presence_notes
from csfd_core.ingest.studies_table import studies_table_inputs
from csfd_core.lineage.withdrawal import withdraw_noted
from csfd_core.registry.contest import is_settled
from csfd_core.reports.drift.report import is_current as drift_is_current
from csfd_core.reports.eda.report import is_current as report_is_current
from csfd_core.reports.page import INDEX
from csfd_core.reports.segmentation.summary import is_reported, reported_fits
from csfd_core.segmentation.fit import is_current as model_is_current
from csfd_core.segmentation.masks import studies_without_crops
from csfd_core.store import paths
from csfd_core.store.labels import read_all_boxes
from csfd_core.store.slices import ConversionSettings
from csfd_core.store.source import Sources
from csfd_core.store.stores import Stores
from csfd_core.text import count
from csfd_core.vocabulary import is_uid
from csfd_dagster.partitions import folds, partition_ranges, range_tags, studies
from csfd_dagster.resources.classification import ClassificationResource
from csfd_dagster.resources.mlflow import MlflowResource
from csfd_dagster.resources.segmentation import SegmentationResource
from csfd_dagster.resources.stores import SourceResource, StoreResource

REPORTS = paths.EVERY_REPORT
_COMPARED = dg.AssetKey("comparison_report")  # and what follows from it
QUIET = {"loggers": {"console": {"config": {"log_level": "WARNING"}}}}


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

    def require_tasks(self) -> list[StudyTask]:
        """List the studies that are there.

        Raises:
            SourceError: If there are none.
        """
        if tasks := self.tasks():
            return tasks
        places = " and ".join(str(place) for place in self.sources.locations)
        raise SourceError(
            f"There are no studies in {places}. Make some with csfd phantom."
        )

    def tasks(self) -> list[StudyTask]:
        """List the studies that are there and were not withdrawn."""
        folders = [f for f in self.sources.studies() if is_uid(f.name) and f.files]
        return study_tasks(folders, self.stores, self.conversion)


def open_project(profile: str, resources: Mapping[str, Any] | None = None) -> Project:
    """Build the definitions and what a run of everything asks of them.

    Args:
        profile: Sizes of the models, where ``resources`` do not say otherwise.
        resources: Used in place of those that read the environment.
    """
    from csfd_dagster.definitions import build_defs  # which holds the job of this

    used = {
        "source": SourceResource(),
        "store": StoreResource(),
        "segmentation": SegmentationResource(profile=profile),
        "classification": ClassificationResource(profile=profile),
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


def materialize_everything(
    project: Project, instance: dg.DagsterInstance, say: Callable[[str], None]
) -> None:
    """Materialize what is new or has changed, and what follows from it.

    Args:
        project: As ``open_project`` returns.
        instance: Where the runs are recorded.
        say: Told what was done.

    Raises:
        SourceError: If there are no studies.
        CsfdError: If a run failed.
    """
    progress = _take_up(project, instance, say)
    project.mlflow.prepare()
    job = project.defs.resolve_implicit_global_asset_job_def()
    for phase in phases_of(project.defs.resolve_asset_graph()):
        if phase.kind == Kind.FOLDS:
            for why in filter(None, _folds_due(project).values()):
                say(why)
        for what, tags in _runs_of_phase(phase, project, progress):
            result = job.execute_in_process(
                instance=instance,
                asset_selection=phase.assets,
                tags=tags,
                run_config=QUIET,
                raise_on_error=False,
            )
            if not result.success:
                raise CsfdError(
                    f"Run {result.run_id} failed; look at it in csfd ui. "
                    f"{_first_failure(result)}"
                )
            progress.has_run = progress.has_run or _has_made(result)
            names = ", ".join(key.to_user_string() for key in phase.assets)
            say(f"{names}, {what}: done (run {result.run_id}).")


def _take_up(
    project: Project, instance: dg.DagsterInstance, say: Callable[[str], None]
) -> "_Progress":
    """Withdraw what label files withdraw; find what is new, changed and complete."""
    notes = read_notes(project.sources)
    if gone := withdraw_noted(project.stores, notes):
        say(f"{count(len(gone), 'study', 'was', 'were')} withdrawn by label files.")
    name = str(studies.name)
    for study_uid in project.stores.withdrawn.study_uids():
        if instance.has_dynamic_partition(name, study_uid):
            instance.delete_dynamic_partition(name, study_uid)
    tasks = project.require_tasks()
    due = [task for task in tasks if needs_work(task)]
    complete, lacking = split_incomplete(due, wanted_files(notes))
    left_alone = {one.study_uid for one in lacking}
    known = list(instance.get_dynamic_partitions(name))
    there = [t.folder.name for t in tasks if t.folder.name not in left_alone]
    new = [study_uid for study_uid in there if study_uid not in set(known)]
    instance.add_dynamic_partitions(name, new)
    changed = {task.folder.name for task in complete} | set(new)
    say(f"{count(len(tasks), 'study')}, {len(changed)} new or changed.")
    for told in (
        tell_incomplete(lacking),
        *presence_notes(project.stores, project.sources),
    ):
        if told:
            say(told)
    return _Progress(partitions=[*known, *new], changed=changed)


def _has_made(result: dg.ExecuteInProcessResult) -> bool:
    """Say whether a run may have made anything that others follow from.

    Assets that tell an outcome of each study tell where they have left all as it was.
    """
    for event in result.get_asset_materialization_events():
        outcome = event.materialization.metadata.get("outcome")
        if event.partition is None or outcome is None:
            return True
        if outcome.value not in (Outcome.UNCHANGED, Outcome.QUARANTINED):
            return True
    return False


def _first_failure(result: dg.ExecuteInProcessResult) -> str:
    """Return what the first step that failed has told."""
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.error is not None:
            error = event.step_failure_data.error
            told = (error.cause or error).message.strip()
            return f"{event.step_key}: {told.partition(': ')[2] or told}"
    return "No step has failed; a check has, or the run was stopped."


class Kind(IntEnum):
    """What the assets of a phase are partitioned by; phases go round in this order."""

    STUDIES = 0
    TABLES = 1  # by nothing
    FOLDS = 2


@dataclass(frozen=True, slots=True)
class Phase:
    """Assets that are materialized together."""

    number: int
    kind: Kind
    assets: list[dg.AssetKey]


@dataclass(slots=True, kw_only=True)
class _Progress:
    """How far a run has come."""

    partitions: list[str]  # all studies, in the order in which they were added
    changed: set[str]  # studies whose source is new or has changed
    has_run: bool = False  # whether anything was materialized


def phases_of(graph: BaseAssetGraph) -> list[Phase]:
    """Order the assets into phases: by study, by nothing, by fold, by study, and so on.

    Every asset is in the earliest phase of its kind that comes after or together with
    those it depends on; phases without assets are left out.
    """
    phase_of: dict[dg.AssetKey, int] = {}
    for key in graph.toposorted_asset_keys:
        if key not in graph.materializable_asset_keys:
            continue
        parents = graph.get(key).parent_keys
        earliest = max((phase_of.get(parent, 0) for parent in parents), default=0)
        wait = (_kind_of(graph, key) - earliest) % len(Kind)
        phase_of[key] = earliest + wait
    by_number: dict[int, list[dg.AssetKey]] = {}
    for key, number in phase_of.items():
        by_number.setdefault(number, []).append(key)
    return [
        Phase(number, Kind(number % len(Kind)), assets)
        for number, assets in sorted(by_number.items())
    ]


def _kind_of(graph: BaseAssetGraph, key: dg.AssetKey) -> Kind:
    kinds = {studies: Kind.STUDIES, folds: Kind.FOLDS}
    definition = graph.get(key).partitions_def
    return Kind.TABLES if definition is None else kinds[definition]


def _runs_of_phase(
    phase: Phase, project: Project, progress: _Progress
) -> list[tuple[str, dict[str, str]]]:
    """Return the runs that a phase needs now: what to say of each, and its tags."""
    if phase.kind == Kind.TABLES:
        if _COMPARED in phase.assets and not _has_classifiers(project.stores):
            return []
        is_due = progress.has_run or not _are_current(project)
        return [("tables, models and reports", {})] if is_due else []
    if phase.kind == Kind.FOLDS:
        wanted = {key for key, why in _folds_due(project).items() if why is None}
        return [
            (", ".join(keys), range_tags(keys))
            for keys in partition_ranges(folds.get_partition_keys(), wanted)
        ]
    changed = progress.changed
    if phase.number:
        changed = studies_without_crops(
            project.stores,
            project.segmentation.crops(),
            read_all_boxes(project.sources.locations).table,
        )
    return [
        (count(len(keys), "study"), range_tags(keys))
        for keys in partition_ranges(
            progress.partitions, changed & set(progress.partitions)
        )
    ]


def _folds_due(project: Project) -> dict[str, str | None]:
    """Return the wanted folds of which a classifier is missing or not current.

    Each with the reason why it cannot be trained, ``None`` where it can.
    """
    stores, settings = project.stores, project.classification.settings()
    manifest = read_manifest(stores.root)
    due: dict[str, str | None] = {}
    for fold in project.classification.trained_folds():
        for name in CLASSIFIERS:
            fit = plan_classifier(name, fold, settings, manifest)
            if not classifier_is_current(stores, fit):
                due[f"fold_{fold}"] = why_untrainable(fit)
    return due


def _has_classifiers(stores: Stores) -> bool:
    models = ClassifierStore(stores.root)
    return any(models.folds(name) for name in CLASSIFIERS)


def _are_current(project: Project) -> bool:
    """Say whether the tables, reports and models are what they would be now."""
    stores, sources = project.stores, project.sources
    if studies_table_inputs(stores, sources) != stores.metadata.read_studies_inputs():
        return False
    settings = project.segmentation.settings()
    fits = reported_fits(stores, settings, project.segmentation.folds)
    return (
        report_is_current(sources, stores)
        and all(model_is_current(stores, fit) for fit in fits)
        and is_reported(stores, fits)
        and manifest_inputs(stores.root) is not None
        and all(_folds_due(project).values())
        and _are_compared(project)
    )


def _are_compared(project: Project) -> bool:
    """Say whether all reports are there that can be, and the champion was met.

    Drift is measured after that, against whoever serves now.
    """
    stores = project.stores
    if not _has_classifiers(stores):
        return True
    reports = all(stores.root.exists(f"{page}/{INDEX}") for page in REPORTS)
    return (
        reports
        and _champion_is_settled(stores)
        and drift_is_current(stores, project.mlflow.uri())
    )


def _champion_is_settled(stores: Stores) -> bool:
    """Say whether the best of the comparison has met the champion."""
    best = read_best(stores)
    return best is not None and is_settled(stores, best)
