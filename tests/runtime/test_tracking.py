"""MLflow runs: their tags, their end, their place."""

from pathlib import Path

import pytest

from csfd_core.errors import SettingsError
from csfd_core.runtime.tracking import RunIdentity, prepare_tracking, tracked_run
from csfd_core.settings import Settings

IDENTITY = RunIdentity(
    asset="thing", code_version="3", dagster_run_id="abc", partition="1.2.3"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tracking") / "new folder"


@pytest.fixture(scope="module")
def uri(folder: Path) -> str:
    found = f"sqlite:///{folder}/mlflow.db"
    prepare_tracking(found)
    return found


def test_run_holds_what_was_logged(uri: str, folder: Path) -> None:
    from mlflow import MlflowClient

    with tracked_run(uri, "things", IDENTITY) as run:
        run.log_params({f"p{i}": i for i in range(150)})
        run.log_metrics({"loss": 0.5}, step=1)
        run.log_metrics({"loss": 0.25}, step=2)
        run.log_files({"a.txt": b"a", "deep/er/b.bin": b"b"})
    client = MlflowClient(uri)
    found = client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "thing 1.2.3"
    own = {k: v for k, v in found.data.tags.items() if not k.startswith("mlflow.")}
    assert own == {
        "csfd.asset": "thing",
        "csfd.code_version": "3",
        "dagster.run_id": "abc",
        "csfd.partition": "1.2.3",
    }
    assert found.data.params["p149"] == "149"
    history = client.get_metric_history(run.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(1, 0.5), (2, 0.25)]
    artifacts = folder / "mlartifacts" / "things" / run.run_id / "artifacts"
    assert (artifacts / "deep" / "er" / "b.bin").read_bytes() == b"b"


def test_run_that_raises_is_failed(uri: str) -> None:
    from mlflow import MlflowClient

    with (
        pytest.raises(RuntimeError, match="on purpose"),
        tracked_run(uri, "things", IDENTITY) as run,
    ):
        raise RuntimeError("on purpose")
    assert MlflowClient(uri).get_run(run.run_id).info.status == "FAILED"


def test_runs_of_one_experiment_stand_together(uri: str) -> None:
    from mlflow import MlflowClient

    plain = RunIdentity(asset="plain", code_version="1")
    for _ in range(2):
        with tracked_run(uri, "others", plain):
            pass
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("others")
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.run_name for run in runs] == ["plain", "plain"]
    assert "csfd.partition" not in runs[0].data.tags


def test_place_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="Check MLFLOW_TRACKING_URI"):
        prepare_tracking(f"sqlite:///{tmp_path}/file/mlflow.db")


def test_settings_tell_where_runs_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert Settings.read().mlflow_tracking_uri == "http://server:5000"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    default = Settings.read().mlflow_tracking_uri
    assert default.startswith("sqlite:///")
    assert default.endswith("/data/mlflow.db")
