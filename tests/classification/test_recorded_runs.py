"""What MLflow holds of a training: a model that predicts the same, and its data."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.drawn_crops import manifest_of, put_tiny_backbone, write_store

from csfd_core.classification.config import NONE, ClassifierConfig
from csfd_core.classification.fit import open_trained, plan_classifier
from csfd_core.classification.training_run import run_classifier
from csfd_core.learning.outcomes import TrainingOutcome
from csfd_core.runtime.tracking import RunIdentity, TrackedRun, tracked_run
from csfd_core.store.stores import Stores

CONFIG = ClassifierConfig(
    epochs=2, steps_per_epoch=2, batch_size=8, patch_px=16, filters=(4, 4), initial=NONE
)
# Keras reads its variables in a way that NumPy 2 deprecates; the others are MLflow's.
pytestmark = [
    pytest.mark.slow,  # each trains and keeps a Keras model in MLflow
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::UserWarning:mlflow"),
]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    found = write_store(tmp_path_factory.mktemp("runs"), 16)
    manifest_of(found)
    return found


@pytest.fixture(scope="module")
def parent(uri: str) -> Iterator[TrackedRun]:
    whole = RunIdentity(asset="basic_cnn", code_version="1", dagster_run_id="d1")
    with tracked_run(uri, "classification", whole) as run:
        yield run


def record(
    stores: Stores, parent: TrackedRun, name: str, config: ClassifierConfig
) -> tuple[str, str]:
    """Train fold 0 in a child run; return what came of it and the run."""
    identity = RunIdentity(asset=name, code_version="1", partition="fold_0")
    with parent.child(identity) as run:
        found = run_classifier(stores, name, 0, config, run)
    return found.outcome, run.run_id


def loaded(uri: str, run_id: str, experiment_id: str) -> tuple[object, object]:
    """The model that MLflow holds of a run, and what it says of it."""
    import mlflow
    from mlflow import MlflowClient

    mlflow.set_tracking_uri(uri)
    models = MlflowClient(uri).search_logged_models([experiment_id])
    (own,) = [model for model in models if model.source_run_id == run_id]
    place = f"models:/{own.model_id}"
    return mlflow.tensorflow.load_model(place), mlflow.models.get_model_info(place)


def test_a_child_run_holds_what_it_was_made_from_and_its_curve(
    stores: Stores, parent: TrackedRun, uri: str
) -> None:
    from mlflow import MlflowClient

    outcome, run_id = record(stores, parent, "basic_cnn", CONFIG)
    assert outcome == TrainingOutcome.TRAINED
    client = MlflowClient(uri)
    found = client.get_run(run_id)
    assert found.info.status == "FINISHED"
    assert found.data.tags["mlflow.parentRunId"] == parent.run_id
    assert found.data.tags["csfd.partition"] == "fold_0"
    assert found.data.tags["csfd.asset"] == "basic_cnn"
    fit = plan_classifier("basic_cnn", 0, CONFIG, manifest_of(stores))
    assert found.data.params["inputs"] == fit.inputs
    assert found.data.params["epochs"] == "2"
    assert found.data.params["training_vertebrae"] == str(len(fit.training))
    curve = client.get_metric_history(run_id, "val_loss")
    assert [metric.step for metric in curve] == [1, 2]
    assert 0 <= found.data.metrics["test_auc_vertebra"] <= 1
    datasets = {
        dataset.tags[0].value: dataset.dataset.digest
        for dataset in found.inputs.dataset_inputs
    }
    assert set(datasets) == {"training", "validation", "test"}
    assert len(set(datasets.values())) == 3
    model, info = loaded(uri, run_id, found.info.experiment_id)
    trained = open_trained(stores, "basic_cnn", 0)
    network, example = trained.keras_model()
    patches = np.random.default_rng(0).normal(0, 1, (3, *example.shape[1:]))
    patches = patches.astype(np.float32)
    np.testing.assert_allclose(
        model.predict_on_batch(patches), network.predict_on_batch(patches), atol=1e-5
    )
    assert info.signature.inputs.inputs[0].shape == (-1, 16, 16, 4)
    assert info.saved_input_example_info is not None
    again, other_id = record(stores, parent, "basic_cnn", CONFIG)
    assert again == TrainingOutcome.UNCHANGED
    assert client.get_run(other_id).data.params["outcome"] == TrainingOutcome.UNCHANGED


def test_runs_name_no_study_and_no_patient(
    stores: Stores, parent: TrackedRun, uri: str
) -> None:
    from mlflow import MlflowClient

    _, run_id = record(stores, parent, "basic_cnn", replace(CONFIG, seed=3))
    found = MlflowClient(uri).get_run(run_id)
    shown = json.dumps([found.data.tags, found.data.params]) + str(found.inputs)
    for row in manifest_of(stores).table.itertuples():
        assert row.study_uid not in shown
        assert row.patient not in shown


@pytest.mark.parametrize("tuned", [0, 1], ids=["head", "tuned"])
def test_the_model_of_a_backbone_predicts_the_same(
    stores: Stores,
    parent: TrackedRun,
    uri: str,
    tuned: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    from mlflow import MlflowClient

    put_tiny_backbone(monkeypatch)
    config = replace(CONFIG, epochs=1, fine_tune_epochs=tuned, fine_tune_rate=1e-3)
    _, run_id = record(stores, parent, "resnet50", config)
    experiment_id = MlflowClient(uri).get_run(run_id).info.experiment_id
    model, info = loaded(uri, run_id, experiment_id)
    own, example = open_trained(stores, "resnet50", 0).keras_model()
    shape = (2, 2, 32, 32, 3) if tuned else (2, 2, 6)
    assert example.shape[1:] == shape[1:]
    inputs = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    expected = own.predict_on_batch(inputs)
    found = model.predict_on_batch(inputs)
    for key in ("vertebra", "slices"):
        np.testing.assert_allclose(found[key], expected[key], atol=1e-4)
    assert {column.name for column in info.signature.outputs} == {"vertebra", "slices"}
