"""Drift as an asset: what it shows, what its check warns of, whose data it rests on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from support.drift_store import NAME, add_new, new_uids

from csfd_core.classification.config import ClassifierConfig
from csfd_core.classification.fit import fit_classifier, plan_classifier
from csfd_core.classification.manifest import read_manifest
from csfd_core.registry.champion import ChampionRegistry
from csfd_core.registry.contest import hold_contest
from csfd_core.registry.decision import PromotionConfig
from csfd_core.registry.serving import open_ensemble
from csfd_core.reports.drift.report import is_current, read_report
from csfd_core.runtime.tracking import (
    RunIdentity,
    open_client,
    tracked_run,
)
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from csfd_dagster.assets.drift import data_drift
from csfd_dagster.definitions import build_defs
from csfd_dagster.resources.mlflow import MlflowResource
from csfd_dagster.resources.stores import StoreResource

pytestmark = pytest.mark.usefixtures("bright")
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
IDENTITY = RunIdentity(asset="champion_model", code_version="1")


@pytest.fixture
def stores(copy_best_store: Callable[[Path], Stores], tmp_path: Path) -> Stores:
    return copy_best_store(tmp_path / "store")


def materialize(stores: Stores, uri: str) -> dg.ExecuteInProcessResult:
    defs = build_defs(
        {
            "store": StoreResource(store_url=str(stores.root)),
            "mlflow": MlflowResource(tracking_uri=uri),
        }
    )
    with dg.DagsterInstance.ephemeral() as instance:
        return defs.resolve_job_def("drift").execute_in_process(
            instance=instance, raise_on_error=False, run_config=QUIET
        )


def shown(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.get_asset_materialization_events()
    return {k: v.value for k, v in event.materialization.metadata.items()}


def test_drift_follows_the_champion_and_what_it_compares() -> None:
    graph = build_defs().resolve_asset_graph()
    parents = graph.get(data_drift.key).parent_keys
    assert {key.to_user_string() for key in parents} == {
        "champion_model",
        "metadata_table",
        "slice_store",
        "vertebra_crops",
    }
    (key,) = graph.get_check_keys_for_assets({data_drift.key})
    assert not graph.get_check_spec(key).blocking


@pytest.mark.slow
def test_drift_warns_and_holds_nothing_back(stores: Stores, uri: str) -> None:
    add_new(stores, 12, grey=40, spacing=2.0)
    result = materialize(stores, uri)
    assert result.success
    facts = shown(result)
    assert facts["verdict"] == "drifted"
    assert facts["summary"].startswith("12 studies have come since basic_cnn was train")
    assert "pixel spacing" in facts["summary"]
    assert (facts["new_studies"], facts["predicted_now"]) == (12, 12)
    assert len(facts["features"].records) == 23
    report = "http://127.0.0.1:3001/reports/drift"
    assert f"({report}/figures/geometry.png)" in facts["figure_geometry"]
    assert facts["page"] == f"{report}/index.html"
    for path in ("figures/geometry.png", "index.html"):
        assert stores.root.exists(f"reports/drift/{path}")
    assert not any(uid in str(facts) for uid in new_uids(12))
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == ("data_has_not_drifted", False)
    assert check.severity is dg.AssetCheckSeverity.WARN
    assert any(
        text.startswith("pixel_spacing_mm: PSI ")
        for text in check.metadata["drifted"].value
    )


@pytest.mark.slow
def test_data_that_are_alike_pass_the_check(stores: Stores, uri: str) -> None:
    add_new(stores, 12)
    result = materialize(stores, uri)
    assert shown(result)["verdict"] == "steady"
    (check,) = result.get_asset_check_evaluations()
    assert check.passed
    assert check.metadata["judged_features"].value == 23


@pytest.mark.slow
def test_numbers_are_in_mlflow(stores: Stores, uri: str) -> None:
    add_new(stores, 12, spacing=2.0)
    run_id = shown(materialize(stores, uri))["mlflow_run_id"]
    client = open_client(uri)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["csfd.asset"] == "data_drift"
    assert run.data.params["verdict"] == "drifted"
    assert run.data.metrics["pixel_spacing_mm_psi"] > 1
    assert run.data.metrics["drifted_features"] >= 1
    files = {item.path for item in client.list_artifacts(run_id, "report")}
    assert {"report/index.html", "report/drift.csv"} <= files


def test_without_a_classifier_it_says_so_and_does_not_fail(
    stores: Stores, uri: str, tmp_path: Path
) -> None:
    bare = Stores(Location(tmp_path / "bare"))
    bare.metadata.write_studies(stores.metadata.read_studies(), "x", "phantom")
    result = materialize(bare, uri)
    assert result.success
    facts = shown(result)
    assert facts["verdict"] == "no model"
    assert "No classifier was trained yet" in facts["summary"]
    (check,) = result.get_asset_check_evaluations()
    assert check.passed


@pytest.mark.slow
def test_reference_is_what_the_champion_was_trained_on(
    stores: Stores, uri: str
) -> None:
    make_champion(stores, uri)
    add_new(stores, 12)
    assert shown(materialize(stores, uri))["reference_studies"] == 32
    assert is_current(stores, uri)
    # The next training sees all studies, but it does not serve.
    config = ClassifierConfig(epochs=1, seed=7)
    plan = plan_classifier(NAME, 0, config, read_manifest(stores.root))
    fit_classifier(stores, plan)
    assert is_current(stores, uri)
    result = materialize(stores, uri)
    facts = shown(result)
    assert facts["summary"].startswith(
        "12 studies have come since champion version 1 (basic_cnn) was trained on 32."
    )
    assert facts["predicted_now"] == 0
    note = read_report(stores)
    assert note is not None
    champion = open_ensemble(stores, "champion", uri)
    assert note["model_ids"] == champion.model_ids
    assert note["model_ids"] != open_ensemble(stores, NAME).model_ids


@pytest.mark.slow
def test_another_champion_makes_the_report_stale(stores: Stores, uri: str) -> None:
    materialize(stores, uri)
    assert is_current(stores, uri)
    make_champion(stores, uri)
    assert not is_current(stores, uri)


def make_champion(stores: Stores, uri: str) -> None:
    champions = ChampionRegistry(stores, uri)
    config = PromotionConfig(least_subjects=2, repeats=50)
    with tracked_run(uri, "classification", IDENTITY) as run:
        found = hold_contest(champions, NAME, run, config, by="a test")
    assert found.champion is not None, found.decision.reasons
