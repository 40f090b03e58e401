"""The asset graph as users see it."""

import dagster as dg
import pytest

from csfd_core.classification.classifiers import CLASSIFIERS
from csfd_dagster.definitions import build_defs, defs
from csfd_dagster.partitions import TABLES, TRAININGS, partition_ranges, range_tags

GRAPH = {
    "study_headers": {"source_studies"},
    "slice_store": {"study_headers"},
    "mask_store": {"study_headers"},
    "metadata_table": {"study_headers", "source_labels"},
    "mask_overlay_video": {"metadata_table", "slice_store", "mask_store"},
    "eda_report": {"metadata_table", "slice_store", "mask_store", "mask_overlay_video"},
    "segmentation_model": {
        "metadata_table",
        "slice_store",
        "mask_store",
        "segmentation_settings",
    },
    "vertebra_masks": {"slice_store", "segmentation_model"},
    "vertebra_crops": {"vertebra_masks", "source_studies"},
    "training_manifest": {"vertebra_crops", "metadata_table"},
    **{
        name: {"training_manifest", "classification_settings"}
        for name in (
            "basic_cnn",
            "triplanar_cnn",
            "inception_v3",
            "resnet50",
            "efficientnet_b5",
        )
    },
    "leakage_audit": {"training_manifest", "slice_store"},
    "comparison_report": {
        "basic_cnn",
        "triplanar_cnn",
        "inception_v3",
        "resnet50",
        "efficientnet_b5",
    },
    "champion_model": {"comparison_report"},
    "unseen_predictions": {"champion_model", "vertebra_crops"},
    "study_predictions": {"champion_model", "vertebra_crops"},
    "data_drift": {"champion_model", "metadata_table", "slice_store", "vertebra_crops"},
    "store_audit": {"metadata_table", "slice_store", "mask_store", "vertebra_masks"},
}


def test_definitions_can_be_loaded() -> None:
    dg.Definitions.validate_loadable(defs)


def test_graph_has_the_assets_and_dependencies_of_the_design() -> None:
    graph = defs.resolve_asset_graph()
    found = {
        key.to_user_string(): {p.to_user_string() for p in graph.get(key).parent_keys}
        for key in graph.materializable_asset_keys
    }
    assert found == GRAPH


def test_every_asset_tells_what_it_is() -> None:
    graph = defs.resolve_asset_graph()
    for key in graph.materializable_asset_keys:
        node = graph.get(key)
        name = key.to_user_string()
        assert node.description, name
        assert node.owners, name
        assert node.kinds, name
        assert node.group_name, name
        assert node.code_version, name


def test_every_check_tells_what_it_checks() -> None:
    for key in defs.resolve_asset_graph().asset_check_keys:
        spec = defs.resolve_asset_graph().get_check_spec(key)
        assert spec.description, key


def test_table_of_studies_describes_every_column() -> None:
    (node,) = [
        defs.resolve_asset_graph().get(key)
        for key in defs.resolve_asset_graph().materializable_asset_keys
        if key.to_user_string() == "metadata_table"
    ]
    schema = node.metadata["dagster/column_schema"]
    assert [c.name for c in schema.columns if not c.description] == []
    assert {"study_uid", "content_hash", "C7"} <= {c.name for c in schema.columns}


def test_jobs_and_sensors_are_there() -> None:
    repository = defs.get_repository_def()
    own = [job for job in repository.get_all_jobs() if job.name[:2] != "__"]
    assert {job.name for job in own} == {
        "arrival",
        "ingestion",
        "exploration",
        "retraining",
        "remask",
        "predict_again",
        "drift",
        "audit",
    }
    assert all(job.description for job in own)
    for sensor in ("new_studies", "uploads", "followers", "dead_runs"):
        assert repository.has_sensor_def(sensor)


def test_every_asset_has_a_condition_or_a_schedule() -> None:
    graph = defs.resolve_asset_graph()
    scheduled = {
        key
        for schedule in defs.schedules or []
        for key in defs.resolve_job_def(
            schedule.job_name
        ).asset_layer.selected_asset_keys
    }
    for key in graph.materializable_asset_keys:
        has_condition = graph.get(key).automation_condition is not None
        assert has_condition or key in scheduled, key


def test_what_trains_runs_alone_and_tables_have_one_writer() -> None:
    graph = defs.resolve_asset_graph()
    pools = {
        key.to_user_string(): graph.get(key).pools
        for key in graph.materializable_asset_keys
        if graph.get(key).pools
    }
    trained = ("segmentation_model", "leakage_audit", *CLASSIFIERS)
    written = ("metadata_table", "training_manifest", "champion_model")
    assert pools == {
        **{name: {TRAININGS} for name in trained},
        **{name: {TABLES} for name in written},
    }


def test_resources_can_be_replaced() -> None:
    marker = dg.ResourceDefinition.hardcoded_resource("other")
    assert build_defs({"store": marker}).resources["store"] is marker


@pytest.mark.parametrize(
    ("wanted", "largest", "expected"),
    [
        ("", 3, []),
        ("abcdef", 10, ["abcdef"]),
        ("abcdef", 4, ["abcd", "ef"]),
        ("acd", 10, ["a", "cd"]),
        ("f", 1, ["f"]),
        ("abdef", 2, ["ab", "de", "f"]),
    ],
)
def test_ranges_are_contiguous_and_bounded(
    wanted: str, largest: int, expected: list[str]
) -> None:
    ranges = partition_ranges("abcdef", wanted, largest)
    assert ["".join(keys) for keys in ranges] == expected


def test_range_tags_name_both_ends() -> None:
    assert set(range_tags(["1.2", "1.3", "1.4"]).values()) == {"1.2", "1.4"}
