"""What follows from what: the conditions of the graph, on assets that do nothing."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from support.instances import small_instance

from csfd_core.classification.classifiers import CLASSIFIERS
from csfd_core.ingest.plan import Plan
from csfd_dagster.conditions import ASKED_BY, CONDITIONS, is_asked_by_conditions
from csfd_dagster.definitions import defs
from csfd_dagster.engine import QUIET
from csfd_dagster.observing import take_up
from csfd_dagster.partitions import folds, partition_ranges, range_tags, studies

pytestmark = pytest.mark.slow
VERSION = "dagster/data_version"
STUDY = {"study_headers", "slice_store", "mask_store"}
OF_MASKS = {"vertebra_masks", "vertebra_crops"}
REPORTS = {"mask_overlay_video", "eda_report"}
DECIDED = {"comparison_report", "champion_model", "unseen_predictions", "data_drift"}
Asked = dict[str, set[str | None]]  # partitions by asset, in one round


@dataclass(slots=True)
class Graph:
    """The graph with its conditions; its assets only have data versions."""

    instance: dg.DagsterInstance
    versions: dict[str, str] = field(default_factory=dict)
    cursor: Any = None
    defs: dg.Definitions = field(init=False)

    def __post_init__(self) -> None:
        real = defs.resolve_asset_graph()
        sources = [
            source for source in defs.assets or [] if isinstance(source, dg.SourceAsset)
        ]
        assets = [self._stub(real.get(key)) for key in real.materializable_asset_keys]
        self.defs = dg.Definitions(
            assets=[*sources, *assets],
            executor=dg.in_process_executor,
            resources=defs.resources,
        )

    def _stub(self, node: Any) -> dg.AssetsDefinition:
        name = node.key.to_user_string()

        @dg.asset(
            name=name,
            deps=list(node.parent_keys),
            partitions_def=node.partitions_def,
            backfill_policy=node.backfill_policy,
            automation_condition=node.automation_condition,
        )
        def stub() -> dg.MaterializeResult:
            version = self.versions.get(name, "1")
            return dg.MaterializeResult(data_version=dg.DataVersion(version))

        return stub

    def observe(self, asset: str, version: str, partition: str | None = None) -> None:
        self.instance.report_runless_asset_event(
            dg.AssetObservation(asset, partition=partition, tags={VERSION: version})
        )

    def arrive(self, *uids: str, version: str = "1") -> None:
        self.instance.add_dynamic_partitions("studies", uids)
        for uid in uids:
            self.observe("source_studies", version, uid)

    def make(self, *names: str, tags: Mapping[str, str] | None = None) -> None:
        job = self.defs.resolve_implicit_global_asset_job_def()
        job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey(name) for name in names],
            tags=dict(tags or {}),
            run_config=QUIET,
        )

    def settle(self) -> list[Asked]:
        """Do what the conditions ask for; return what they asked for in each round."""
        rounds = []
        while True:
            found = dg.evaluate_automation_conditions(
                self.defs,
                self.instance,
                asset_selection=dg.AssetSelection.all(),
                cursor=self.cursor,
            )
            self.cursor = found.cursor
            keys = self.defs.resolve_asset_graph().toposorted_asset_keys
            asked = {
                key.to_user_string(): set(partitions)
                for key in keys
                if (partitions := found.get_requested_partitions(key))
            }
            if not asked:
                return rounds
            assert len(rounds) < 12, asked
            rounds.append(asked)
            groups: dict[frozenset[str | None], list[str]] = {}
            for name, partitions in asked.items():
                groups.setdefault(frozenset(partitions), []).append(name)
            for partitions, names in groups.items():
                for tags in self._tags(partitions):
                    self.make(*names, tags=tags)

    def _tags(self, partitions: frozenset[str | None]) -> Iterator[Mapping[str, str]]:
        if partitions == {None}:
            yield {}
            return
        wanted = {key for key in partitions if key is not None}
        known = list(self.instance.get_dynamic_partitions(str(studies.name)))
        ordered = known if wanted <= set(known) else folds.get_partition_keys()
        yield from (range_tags(part) for part in partition_ranges(ordered, wanted))


@dataclass(frozen=True, slots=True)
class Begun:
    """What is kept of a graph whose first studies have arrived; tests copy it."""

    home: Path
    cursor: Any
    rounds: list[Asked]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Begun:
    """Let two studies arrive at an empty store, one fold being wanted."""
    home = tmp_path_factory.mktemp("begun")
    with small_instance(home) as instance:
        graph = Graph(instance)
        assert graph.settle() == []
        graph.arrive("a", "b")
        graph.observe("source_labels", "1")
        graph.observe("segmentation_settings", "1")
        graph.observe("classification_settings", "1", "fold_0")
        rounds = graph.settle()
    return Begun(home, graph.cursor, rounds)


@pytest.fixture
def graph(begun: Begun, tmp_path: Path) -> Iterator[Graph]:
    """Two studies and all that follows from them."""
    home = shutil.copytree(begun.home, tmp_path / "home")
    with small_instance(home) as instance:
        yield Graph(instance, cursor=begun.cursor)


def names(rounds: list[Asked]) -> list[set[str]]:
    return [set(asked) for asked in rounds]


def test_everything_follows_from_studies_that_arrive_at_an_empty_store(
    begun: Begun, graph: Graph
) -> None:
    rounds = begun.rounds
    assert names(rounds) == [
        STUDY,
        {"metadata_table", "segmentation_model", *REPORTS},
        OF_MASKS,
        {"training_manifest", "leakage_audit"},
        set(CLASSIFIERS),
        DECIDED,
        {"study_predictions"},
    ]
    assert rounds[0]["study_headers"] == {"a", "b"}
    assert {fold for name in CLASSIFIERS for fold in rounds[4][name]} == {"fold_0"}
    assert graph.settle() == []


def test_study_that_arrives_is_predicted_in_one_round_and_teaches_nothing(
    graph: Graph,
) -> None:
    graph.versions["metadata_table"] = "2"
    graph.arrive("c")
    first, *later = graph.settle()
    assert set(first) == {*STUDY, *OF_MASKS, "study_predictions"}
    assert set.union(*first.values()) == {"c"}
    assert names(later) == [{"metadata_table"}, REPORTS]


def test_observation_of_the_same_version_starts_nothing(graph: Graph) -> None:
    graph.observe("source_studies", "1", "a")
    graph.observe("source_labels", "1")
    graph.observe("classification_settings", "1", "fold_0")
    assert graph.settle() == []


def test_study_that_is_due_again_as_it_was_is_asked_for_again(graph: Graph) -> None:
    """One that failed has partitions, and files of the version that is known."""
    due = Plan(take_up={"a": "1"}, new=(), unsettled={}, incomplete=(), withdrawn=())
    take_up(graph.instance, "studies", due)
    assert [asked.get("study_headers") for asked in graph.settle()][:1] == [{"a"}]


def test_changed_labels_concern_their_study_and_the_tables(graph: Graph) -> None:
    graph.observe("source_studies", "2", "a")
    graph.observe("source_labels", "2")
    rounds = graph.settle()
    made = {
        name: set.union(*(r.get(name, set()) for r in rounds))
        for r in rounds
        for name in r
    }
    assert made["vertebra_crops"] == made["study_predictions"] == {"a"}
    assert made["metadata_table"] == {None}
    assert not set(made) & {"training_manifest", *CLASSIFIERS}


def test_retraining_follows_from_its_root(graph: Graph) -> None:
    graph.make("segmentation_model", "training_manifest")
    assert graph.settle() == []  # the manifest is the same
    graph.versions["training_manifest"] = "2"
    graph.make("segmentation_model", "training_manifest")
    rounds = graph.settle()
    assert names(rounds) == [{*CLASSIFIERS, "leakage_audit"}, DECIDED]


def test_new_model_remakes_no_study(graph: Graph) -> None:
    graph.versions |= {"segmentation_model": "2", "champion_model": "2"}
    graph.make("segmentation_model")
    assert graph.settle() == []
    graph.make("champion_model")
    assert names(graph.settle()) == [{"unseen_predictions", "data_drift"}]


def test_settings_train_what_they_concern(graph: Graph) -> None:
    graph.observe("classification_settings", "1", "fold_1")
    first, *_ = graph.settle()
    assert {fold for asked in first.values() for fold in asked} == {"fold_1"}
    graph.observe("classification_settings", "2", "fold_0")
    first, *_ = graph.settle()
    assert {fold for asked in first.values() for fold in asked} == {"fold_0"}
    graph.observe("segmentation_settings", "2")
    assert names(graph.settle()) == [{"segmentation_model"}]


def test_what_is_missing_when_the_daemon_starts_anew_is_made(graph: Graph) -> None:
    graph.arrive("c")
    graph.cursor = None  # of another home
    (asked, *_) = graph.settle()
    assert asked["study_headers"] == {"c"}


def test_runs_of_conditions_and_backfills_are_told_from_those_of_a_person() -> None:
    for tags, expected in [
        ({}, False),
        ({ASKED_BY: CONDITIONS}, True),
        ({"dagster/backfill": "x"}, True),
    ]:
        run = dg.DagsterRun(job_name="x", tags=tags)
        assert is_asked_by_conditions(run) is expected
