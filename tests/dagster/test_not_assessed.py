"""What Dagster shows of levels that a scan does not show: no number."""

from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from support.drawn_crops import (
    crop_rows,
    manifest_of,
    some_labels,
    uid_of,
    write_crops,
    write_studies,
)

from csfd_core.classification.assessment import NOT_ASSESSED, NOTHING_FOUND
from csfd_core.classification.config import ClassifierConfig
from csfd_core.classification.ensemble import write_best
from csfd_core.classification.fit import fit_classifier, plan_classifier
from csfd_core.evaluation.folds import is_test
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES, OVERALL
from csfd_dagster.definitions import build_defs
from csfd_dagster.resources.mlflow import MlflowResource
from csfd_dagster.resources.stores import StoreResource

pytestmark = pytest.mark.usefixtures("bright")
NAME = "basic_cnn"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
HEAD_ONLY = next(uid for uid in map(uid_of, range(1, 99)) if not is_test(uid))
PARTLY = next(uid for uid in map(uid_of, range(1, 99)) if is_test(uid))


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    """Scans without C1, one without any vertebra, and a model of them."""
    found = Stores(Location(tmp_path / "store"))
    labels = some_labels(40)
    write_studies(found, labels)
    rng = np.random.default_rng(0)
    for uid, own in labels.items():
        levels = () if uid == HEAD_ONLY else LEVEL_NAMES[1:]
        write_crops(found, uid, crop_rows(own, rng, levels))
    fit = plan_classifier(NAME, 0, ClassifierConfig(epochs=1), manifest_of(found))
    fit_classifier(found, fit)
    write_best(found, NAME, beats_prevalences=True)
    return found


def materialize(stores: Stores, name: str, partition: str | None) -> dict[str, Any]:
    """Return the metadata of an asset, of a study's partition where it is told."""
    uri = f"sqlite:///{stores.root}-mlflow.db"
    defs = build_defs(
        {
            "store": StoreResource(store_url=str(stores.root)),
            "mlflow": MlflowResource(tracking_uri=uri),
        }
    )
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("studies", [HEAD_ONLY, PARTLY])
        result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(name)],
            partition_key=partition,
            run_config=QUIET,
        )
    told = [
        e.materialization.metadata for e in result.get_asset_materialization_events()
    ]
    return {key: shown.value for key, shown in told[-1].items()}


def test_a_study_says_what_was_not_assessed(stores: Stores) -> None:
    facts = materialize(stores, "study_predictions", PARTLY)
    assert facts["outcome"] == "written"
    assert facts["not_assessed"] == "C1"
    assert facts["overall_rests_on"] == "C2 to C7"
    assert facts["needs_eyes"].startswith("C1 was not assessed")
    assert [n for n, p in facts["probabilities"].items() if p is None] == ["C1"]


def test_a_scan_without_a_vertebra_is_no_failure(stores: Stores) -> None:
    facts = materialize(stores, "study_predictions", HEAD_ONLY)
    assert facts["outcome"] == "written"
    assert facts["needs_eyes"] == NOTHING_FOUND
    assert facts["overall_rests_on"] == "no level"
    assert set(facts["probabilities"].values()) == {None}


def test_unseen_studies_are_shown_with_words_for_numbers(stores: Stores) -> None:
    shown = materialize(stores, "unseen_predictions", None)["predicted"]
    assert len(shown.records) == 5
    for record in shown.records:
        assert record.data["C1"] == NOT_ASSESSED
        assert 0 <= record.data[OVERALL] <= 1
        assert record.data["rests_on"] == "C2 to C7"
