"""What cannot be made yet says so: to a person by failing, to conditions in the log."""

from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest

from csfd_dagster.conditions import ASKED_BY, CONDITIONS
from csfd_dagster.definitions import build_defs
from csfd_dagster.resources.mlflow import MlflowResource
from csfd_dagster.resources.stores import StoreResource

STUDY = "1.2.826.0.1.3680043.11"
SENTENCES = {
    "comparison_report": "No classifier was trained yet",
    "champion_model": "No comparison has named a best classifier yet.",
    "unseen_predictions": "nothing can be predicted",
    "study_predictions": "nothing can be predicted",
}


def make(
    folder: Path, name: str, tags: Mapping[str, str]
) -> tuple[dg.ExecuteInProcessResult, list[str]]:
    """Materialize an asset of an empty store; return the run and what it has said."""
    defs = build_defs(
        {
            "store": StoreResource(store_url=str(folder / "store")),
            "mlflow": MlflowResource(tracking_uri=f"sqlite:///{folder}/mlflow.db"),
        }
    )
    partition = STUDY if name == "study_predictions" else None
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("studies", [STUDY])
        result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(name)],
            partition_key=partition,
            tags=dict(tags),
            raise_on_error=False,
        )
        said = [
            entry.user_message
            for entry in instance.all_logs(result.run_id)
            if not entry.is_dagster_event
        ]
    return result, said


@pytest.mark.parametrize("name", SENTENCES)
def test_a_person_is_told_by_a_failure(tmp_path: Path, name: str) -> None:
    result, _ = make(tmp_path, name, {})
    assert not result.success
    (failure,) = result.get_step_failure_events()
    assert SENTENCES[name] in str(failure.step_failure_data.error)


@pytest.mark.slow
@pytest.mark.parametrize("name", SENTENCES)
@pytest.mark.parametrize("tags", [{ASKED_BY: CONDITIONS}, {"dagster/backfill": "all"}])
def test_conditions_and_backfills_go_on_without_it(
    tmp_path: Path, name: str, tags: Mapping[str, str]
) -> None:
    result, said = make(tmp_path, name, tags)
    assert result.success
    assert result.get_asset_materialization_events() == []
    assert any(SENTENCES[name] in line for line in said)
