"""The assets: figures in the metadata and in MLflow, again when the data change."""

import functools
from pathlib import Path

import dagster as dg
import pytest
from support.eda_source import add_images, fill
from support.instances import small_instance

from csfd_core.store.source import Sources
from csfd_core.store.stores import Stores
from csfd_dagster.definitions import build_defs
from csfd_dagster.resources.mlflow import MlflowResource
from csfd_dagster.resources.stores import SourceResource, StoreResource

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("plain")]

FILES = "http://127.0.0.1:3001"


@pytest.fixture
def defs(tmp_path: Path, source: Path, uri: str) -> dg.Definitions:
    return build_defs(
        {
            "source": SourceResource(
                source_url=str(source), inbox_url=str(tmp_path / "inbox")
            ),
            "store": StoreResource(store_url=str(tmp_path / "store")),
            "mlflow": MlflowResource(tracking_uri=uri),
        }
    )


def explore(
    defs: dg.Definitions, instance: dg.DagsterInstance
) -> dict[str, dict[str, dg.MetadataValue]]:
    result = defs.resolve_job_def("exploration").execute_in_process(instance=instance)
    assert result.success
    return {
        event.asset_key.to_user_string(): dict(event.materialization.metadata)
        for event in result.get_asset_materialization_events()
    }


def test_figures_are_in_dagster_and_mlflow_and_the_film_in_dagster(
    defs: dg.Definitions, stores: Stores, uri: str
) -> None:
    from mlflow import MlflowClient

    with small_instance() as instance:
        found = explore(defs, instance)
    report, film = found["eda_report"], found["mask_overlay_video"]
    figures = {name for name in report if name.startswith("figure_")}
    assert len(figures) == 12
    for name in figures:
        path = f"reports/eda/figures/{name.removeprefix('figure_')}.png"
        assert f"({FILES}/{path})" in str(report[name].value)
        assert stores.root.exists(path)
    assert f"({FILES}/reports/eda/film/preview.webp)" in str(film["preview"].value)
    for name in ("plain", "overlay"):
        assert film[name] == dg.MetadataValue.url(
            f"{FILES}/reports/eda/film/{name}.mp4"
        )
        assert stores.root.exists(f"reports/eda/film/{name}.mp4")
    assert report["page"].value == f"{FILES}/reports/eda/index.html"
    assert stores.root.exists("reports/eda/index.html")
    assert report["studies_count"].value == 4
    assert "of 2 studies" in str(report["fracture_share"].value)

    client = MlflowClient(uri)
    run = client.get_run(str(report["mlflow_run_id"].value))
    assert run.info.status == "FINISHED"
    assert run.data.metrics["quarantined"] == 1
    assert run.data.tags["csfd.asset"] == "eda_report"
    assert run.data.tags["csfd.code_version"] == "1"
    assert "dagster.run_id" in run.data.tags
    stored = {item.path for item in client.list_artifacts(run.info.run_id, "figures")}
    assert stored == {f"figures/{n.removeprefix('figure_')}.png" for n in figures}
    # The film shows a patient, and lies in the store alone.
    other = client.get_run(str(film["mlflow_run_id"].value))
    assert set(other.data.params) == {"frames"}
    assert client.list_artifacts(other.info.run_id) == []
    for name in ("plain.mp4", "overlay.mp4", "preview.webp"):
        assert stores.root.exists(f"reports/eda/film/{name}")


def test_numbers_move_when_a_study_is_added(
    defs: dg.Definitions, stores: Stores, sources: Sources, source: Path
) -> None:
    with small_instance() as instance:
        before = explore(defs, instance)
        add_images(source, "1.2.826.0.1.3680043.29", 9)
        fill(stores, sources)
        after = explore(defs, instance)
    assert after["eda_report"]["studies_count"].value == 5
    assert before["eda_report"]["studies_count"].value == 4
    assert before["mask_overlay_video"]["outcome"].value == "written"
    assert after["mask_overlay_video"]["outcome"].value == "unchanged"


def test_empty_store_is_no_failure(defs: dg.Definitions) -> None:
    with small_instance() as instance:
        found = explore(defs, instance)
    assert found["mask_overlay_video"]["outcome"].value == "no study has images"
    assert "needs images" in str(found["eda_report"]["slices"].value)


def test_both_are_asked_for_when_the_table_has_been_built(
    defs: dg.Definitions,
) -> None:
    evaluate = functools.partial(
        dg.evaluate_automation_conditions,
        defs,
        asset_selection=dg.AssetSelection.groups("eda"),
    )
    with small_instance() as instance:
        first = evaluate(instance)
        assert first.total_requested == 0
        table = dg.AssetMaterialization(dg.AssetKey("metadata_table"))
        instance.report_runless_asset_event(table)
        second = evaluate(instance, cursor=first.cursor)
        assert second.total_requested == 2
        assert evaluate(instance, cursor=second.cursor).total_requested == 0
