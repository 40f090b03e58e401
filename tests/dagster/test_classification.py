"""Classification through Dagster: what depends on what, and checks that must fail."""

from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from dagster._core.definitions.automation_tick_evaluation_context import (
    build_run_requests_with_backfill_policies,
)
from dagster._core.definitions.events import AssetKeyPartitionKey
from support.cards import classifier_card

from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.classification.manifest import MANIFEST_COLUMNS
from csfd_core.errors import SettingsError
from csfd_core.evaluation.folds import fold_of, is_test
from csfd_core.store import paths
from csfd_core.store.locations import Location
from csfd_core.store.metadata import STUDIES_COLUMNS, MetadataStore
from csfd_core.store.parquet import write_parquet
from csfd_dagster.checks import classification as checks
from csfd_dagster.definitions import defs
from csfd_dagster.partitions import TRAININGS, fold_number, folds
from csfd_dagster.resources.classification import ClassificationResource
from csfd_dagster.resources.stores import StoreResource

CLASSIFIERS = (
    "basic_cnn",
    "triplanar_cnn",
    "inception_v3",
    "resnet50",
    "efficientnet_b5",
)
ENDS = ("start", "end")
FOLDS = [f"fold_{fold}" for fold in range(5)]
UIDS = [f"1.2.826.0.1.3680043.{index}" for index in range(1, 60)]
LOCKED = next(uid for uid in UIDS if is_test(uid))
HELD_OUT = next(uid for uid in UIDS if not is_test(uid) and fold_of(uid) == 2)
CLEAN = [uid for uid in UIDS if not is_test(uid) and fold_of(uid) != 2]
LEAK_CHECKS = {
    str(next(iter(check.check_keys)).asset_key.to_user_string()): check
    for check in checks.CLASSIFICATION_CHECKS
    if next(iter(check.check_keys)).name.endswith("_saw_no_test_study")
}


def test_classifiers_have_a_partition_for_each_fold() -> None:
    graph = defs.resolve_asset_graph()
    partitioned = {
        key.to_user_string()
        for key in graph.materializable_asset_keys
        if graph.get(key).partitions_def == folds
    }
    assert partitioned == set(CLASSIFIERS)


def test_a_partition_is_a_fold() -> None:
    keys = folds.get_partition_keys()
    assert [fold_number(key) for key in keys] == [0, 1, 2, 3, 4]


def test_five_folds_are_five_runs_in_the_pool_of_trainings() -> None:
    """As the daemon splits what was asked for: by conditions, or in the UI."""
    graph = defs.resolve_asset_graph()
    keys = [dg.AssetKey(name) for name in CLASSIFIERS]
    wanted = [AssetKeyPartitionKey(k, f) for k in keys for f in FOLDS]
    requests = build_run_requests_with_backfill_policies(
        wanted, graph, dg.DagsterInstance.ephemeral()
    )
    ranges = [
        tuple(request.tags[f"dagster/asset_partition_range_{end}"] for end in ENDS)
        for request in requests
    ]
    assert sorted(ranges) == [(fold, fold) for fold in FOLDS]
    assert all(set(request.asset_selection or ()) == set(keys) for request in requests)
    assert all(graph.get(key).pools == {TRAININGS} for key in keys)


def test_checks_that_guard_the_locked_test_set_hold_back_what_follows() -> None:
    graph = defs.resolve_asset_graph()
    guards = {key.name: graph.get_check_spec(key) for key in graph.asset_check_keys}
    for name in CLASSIFIERS:
        assert guards[f"{name}_saw_no_test_study"].blocking
    assert guards["no_patient_is_in_two_folds"].blocking
    assert not guards["folds_are_balanced"].blocking


def write_table(root: Location, uids: list[str], statuses: list[str]) -> None:
    columns = {name: [None] * len(uids) for name, _, _ in STUDIES_COLUMNS}
    table = pa.table({**columns, "study_uid": uids, "status": statuses}).to_pandas()
    MetadataStore(root).write_studies(table, "x", "phantom")


def write_manifest(
    root: Location,
    uids: list[str],
    fold: Mapping[str, int] | None = None,
    labels: Mapping[str, int] | None = None,
) -> None:
    """A manifest of one level per study; folds as they should be unless told."""
    rows = [
        {
            **{name: None for name, _, _ in MANIFEST_COLUMNS},
            "study_uid": uid,
            "patient": uid,
            "level": "C1",
            "label": (labels or {}).get(uid, 0),
            "fold": (fold or {}).get(uid, fold_of(uid)),
            "is_test": is_test(uid),
        }
        for uid in uids
    ]
    schema = pa.schema([(name, kind) for name, kind, _ in MANIFEST_COLUMNS])
    table = pa.Table.from_pylist(rows, schema=schema)
    note = {"crop": {}, "data_kind": "phantom", "inputs": "x"}
    write_parquet(root, paths.MANIFEST, table, note)


def run_check(check: dg.AssetChecksDefinition, tmp_path: Path) -> dg.AssetCheckResult:
    result = check(store=StoreResource(store_url=str(tmp_path)))
    assert isinstance(result, dg.AssetCheckResult)
    return result


def test_a_patient_in_two_folds_fails_its_check(tmp_path: Path) -> None:
    root = Location(tmp_path)
    write_table(root, UIDS, ["good"] * len(UIDS))
    write_manifest(root, UIDS)
    assert run_check(checks.no_patient_is_in_two_folds, tmp_path).passed
    moved = {UIDS[3]: (fold_of(UIDS[3]) + 1) % 5}
    write_manifest(root, UIDS, moved)
    found = run_check(checks.no_patient_is_in_two_folds, tmp_path)
    assert not found.passed
    assert found.metadata["studies_moved"].value == [UIDS[3]]


def test_a_quarantined_copy_of_a_study_does_not_upset_the_check(
    tmp_path: Path,
) -> None:
    root = Location(tmp_path)
    statuses = ["good"] * len(UIDS)
    write_table(root, [*UIDS, UIDS[0]], [*statuses, "quarantined"])
    write_manifest(root, UIDS)
    assert run_check(checks.no_patient_is_in_two_folds, tmp_path).passed


def test_folds_without_their_share_of_fractures_are_told(tmp_path: Path) -> None:
    root = Location(tmp_path)
    many = [f"1.2.3.{index}" for index in range(1, 1500)]
    tenth = {uid: int(index % 10 == 0) for index, uid in enumerate(many)}
    write_manifest(root, many, labels=tenth)
    even = run_check(checks.folds_are_balanced, tmp_path)
    assert even.passed
    assert even.metadata["share"].value == pytest.approx(0.1, abs=0.01)
    write_manifest(root, many, labels={uid: int(fold_of(uid) == 1) for uid in many})
    uneven = run_check(checks.folds_are_balanced, tmp_path)
    assert not uneven.passed
    assert uneven.severity == dg.AssetCheckSeverity.WARN


def write_card(root: Location, name: str, trained: list[str], held: list[str]) -> None:
    card = classifier_card(
        model=name,
        fold=2,
        training_studies=dict.fromkeys(trained, "c"),
        validation_studies=dict.fromkeys(held, "c"),
    )
    ClassifierStore(root).write(card, [], [])


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_planted_test_study_fails_the_leak_check(tmp_path: Path, name: str) -> None:
    root = Location(tmp_path)
    write_table(root, UIDS, ["good"] * len(UIDS))
    check = LEAK_CHECKS[name]
    write_card(root, name, CLEAN, [HELD_OUT])
    assert run_check(check, tmp_path).passed
    write_card(root, name, [*CLEAN, LOCKED], [HELD_OUT])
    leaky = run_check(check, tmp_path)
    assert not leaky.passed
    assert leaky.metadata["leaked"].value == [LOCKED]
    write_card(root, name, CLEAN, [HELD_OUT, LOCKED])
    assert not run_check(check, tmp_path).passed
    write_card(root, name, [*CLEAN, HELD_OUT], [])
    crossed = run_check(check, tmp_path)
    assert not crossed.passed
    assert crossed.metadata["of_the_held_out_fold"].value == [HELD_OUT]


@pytest.mark.parametrize(
    ("named", "wanted"),
    [(None, [0]), ("", [0]), ("3", [0, 1, 2]), ("5", [0, 1, 2, 3, 4])],
)
def test_folds_are_those_of_the_environment(
    named: str | None, wanted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CSFD_FOLDS", raising=False)
    if named is not None:
        monkeypatch.setenv("CSFD_FOLDS", named)
    assert ClassificationResource().trained_folds() == wanted
    assert ClassificationResource(folds=[4]).trained_folds() == [4]


@pytest.mark.parametrize("named", ["0", "6", "all", "-1", "1.5"])
def test_what_is_no_number_of_folds_is_refused(
    named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSFD_FOLDS", named)
    with pytest.raises(SettingsError, match=f"from 1 to 5. Received: {named}"):
        ClassificationResource().trained_folds()


def test_resource_overrides_its_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CSFD_WEIGHTS", raising=False)
    plain = ClassificationResource().settings()
    assert (plain.profile, plain.weights) == ("demo", "none")
    assert ClassificationResource(epochs=3, seed=5).settings().epochs == 3
    small = ClassificationResource().crops()
    monkeypatch.setenv("CSFD_PROFILE", "full")
    full = ClassificationResource()
    assert full.settings().weights == "imagenet"
    assert full.crops().side_px > small.side_px
    monkeypatch.setenv("CSFD_WEIGHTS", "some.h5")
    assert full.settings().weights == "some.h5"
    assert ClassificationResource(weights="none").settings().weights == "none"
