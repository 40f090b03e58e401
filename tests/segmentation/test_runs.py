"""What is recorded of trainings: one report of all folds, models that load anywhere."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.coarse import write_converted_phantom
from support.segmentation_scores import card_of_model

from csfd_core.learning.outcomes import TrainingOutcome
from csfd_core.phantom.config import PhantomConfig
from csfd_core.reports.segmentation import training_run as runs
from csfd_core.reports.segmentation.training_run import (
    SegmentationRun,
    run_folds,
)
from csfd_core.runtime.tracking import RunIdentity, tracked_run
from csfd_core.segmentation import fit as fitting
from csfd_core.segmentation import masks
from csfd_core.segmentation.bundle import ModelBundle, write_bundle
from csfd_core.segmentation.config import (
    PROFILES,
    ModelConfig,
    NetworkConfig,
    SegmentationProfile,
)
from csfd_core.segmentation.fit import Fit, MaskSplit
from csfd_core.segmentation.model_store import ModelStore
from csfd_core.segmentation.networks import build_model
from csfd_core.segmentation.postprocess import Review
from csfd_core.segmentation.predict import Prediction
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores

CONFIG = PhantomConfig(studies=4, seed=31, masked_share=1.0, compressed_share=0.0)


def network(classes: int, *, coordinates: bool) -> NetworkConfig:
    return NetworkConfig(
        shape_zyx=(16, 16, 16),
        spacing_mm=6.0,
        classes=classes,
        filters=(4, 8),
        stem=2 if coordinates else 1,
        coordinates=coordinates,
    )


TINY = ModelConfig(
    locator=network(2, coordinates=False), segmenter=network(8, coordinates=True)
)


def settings(epochs: int = 3) -> SegmentationProfile:
    training = PROFILES["demo"].training
    training = replace(training, initial="none", epochs=epochs)
    return SegmentationProfile(model=TINY, training=training)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_converted_phantom(folder, CONFIG)
    return folder


class Setting:
    """A store whose trainings and predictions are stubs.

    Three studies are in the folds 0, 1 and 2, the fourth is locked. A stub's mask is
    the given one but for the levels up to its own fold's number, which it misses; so
    its Dice says which model has made it.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, uri: str) -> None:
        self.stores = Stores(Location(folder / "store"))
        self.uids = sorted(self.stores.metadata.study_uids())
        self.uri = uri
        self.trained: list[int] = []
        self.predicted: list[tuple[int, str]] = []
        stores, setting = self.stores, self
        self.stores.root.remove("reports/segmentation/report.json")
        for fold in range(5):
            ModelStore(stores.root).of_fold(fold).remove("model.json")

        class Predictor:
            step_mm = 1.5

            def __init__(self, bundle: ModelBundle) -> None:
                self.fold = bundle.card.fold
                self.seen = set(bundle.card.training_studies)

            def load(self) -> None:
                pass

            def predict(self, study_uid: str) -> Prediction:
                assert study_uid not in self.seen
                setting.predicted.append((self.fold, study_uid))
                mask = stores.masks.read_volume(study_uid).copy()
                mask[(mask <= self.fold) | (mask > 7)] = 0
                found = Review(levels=(), flags=())
                return Prediction(mask=mask, review=found, seconds={"all": 1.0})

        def fit_model(
            stores: Stores, fit: Fit, on_epoch: object
        ) -> tuple[ModelBundle, object]:
            self.trained.append(fit.fold)
            card = card_of_model(
                fit.fold,
                [0.2, 0.4, 0.3 + fit.fold / 10],
                3,
                networks=TINY,
                inputs=fit.inputs,
                model_id=f"fold{fit.fold}-{fit.inputs[:12]}",
                training_studies={uid: (c, m) for uid, c, m in fit.split.training},
                validation_studies={uid: (c, m) for uid, c, m in fit.split.validation},
            )
            bundle = ModelBundle(card=card, weights=weights())
            write_bundle(ModelStore(stores.root).of_fold(fit.fold), bundle)
            return bundle, object()

        patch.setattr(masks, "VertebraPredictor", Predictor)
        patch.setattr(masks, "read_reduced", lambda store, uid, step: uid)
        patch.setattr(runs, "fit_model", fit_model)
        patch.setattr(fitting, "split_studies", self.split)

    def split(self, studies: object, fold: int) -> MaskSplit:
        rows = {uid: (uid, f"c{uid}", f"m{uid}") for uid in self.uids}
        own = self.uids[fold : fold + 1] if fold < 3 else []
        others = [uid for uid in self.uids[:3] if uid not in own]
        return MaskSplit(
            training=tuple(rows[uid] for uid in others),
            validation=tuple(rows[uid] for uid in own),
            test=(rows[self.uids[3]],),
        )

    def run(
        self, folds: Sequence[int], profile: SegmentationProfile | None = None
    ) -> tuple[SegmentationRun, str]:
        identity = RunIdentity(asset="segmentation_model", code_version="1")
        with tracked_run(self.uri, "segmentation", identity) as run:
            found = run_folds(
                self.stores,
                profile or settings(),
                folds,
                run,
                lambda fold: replace(identity, partition=f"fold_{fold}"),
            )
        return found, run.run_id


_WEIGHTS: list[npt.NDArray[np.float32]] = []


def weights() -> list[npt.NDArray[np.float32]]:
    if not _WEIGHTS:
        _WEIGHTS.extend(build_model(TINY).get_weights())
    return _WEIGHTS


@pytest.fixture
def setting(
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    start_mlflow: Callable[[Path], str],
) -> Setting:
    return Setting(source, monkeypatch, start_mlflow(tmp_path))


def note_of(setting: Setting) -> dict[str, Any]:
    content = setting.stores.root.read("reports/segmentation/report.json")
    return dict(json.loads(content))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow's and Keras' own
def test_several_folds_make_one_report_of_studies_their_model_has_not_seen(
    setting: Setting,
) -> None:
    found, _ = setting.run([0, 1, 2])
    assert setting.trained == [0, 1, 2]
    assert [one.outcome for one in found.folds] == [TrainingOutcome.TRAINED] * 3
    assert found.evaluation is not None
    uids = setting.uids
    # The stub asserts that its model was not trained on the study.
    assert set(setting.predicted) == {
        (0, uids[0]), (1, uids[1]), (2, uids[2]), (0, uids[3]),
    }  # fmt: skip
    studies = found.evaluation.scores.studies.set_index("study_uid")
    assert studies.loc[uids, "fold"].tolist() == [0, 1, 2, 0]
    assert studies.loc[uids, "group"].tolist() == ["validation"] * 3 + ["test"]
    assert studies.loc[uids, "dice"].tolist() == pytest.approx([1, 6 / 7, 5 / 7, 1])
    page = setting.stores.root.read("reports/segmentation/index.html").decode()
    assert "3 folds were trained" in page
    assert "Fold 2: 3 epochs" in page
    csv = setting.stores.root.read("reports/segmentation/studies.csv").decode()
    assert csv.splitlines()[0] == (
        "study_uid,level,dice,hd95_mm,surface_distance_mm,is_swapped,group,fold"
    )
    assert set(note_of(setting)["models"]) == {"0", "1", "2"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_fold_trained_later_joins_the_report_and_nothing_is_done_twice(
    setting: Setting,
) -> None:
    found, _ = setting.run([0])
    assert found.evaluation is not None
    assert set(found.evaluation.scores.studies["fold"]) == {0}
    again, _ = setting.run([0])
    assert (again.folds[0].outcome, again.evaluation) == (
        TrainingOutcome.UNCHANGED,
        None,
    )
    later, _ = setting.run([1])
    assert setting.trained == [0, 1]
    assert later.evaluation is not None
    assert set(later.evaluation.scores.studies["fold"]) == {0, 1}
    # With other settings the earlier models are no longer those of the report.
    other, _ = setting.run([1], settings(epochs=4))
    assert other.evaluation is not None
    assert set(other.evaluation.scores.studies["fold"]) == {1}
    assert set(note_of(setting)["models"]) == {"1"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_each_fold_has_a_run_with_datasets_and_a_model_that_loads(
    setting: Setting, tmp_path: Path
) -> None:
    import mlflow
    from mlflow import MlflowClient

    found, parent = setting.run([0, 1])
    client = MlflowClient(setting.uri)
    metrics = client.get_run(parent).data.metrics
    assert metrics["unseen_studies"] == 3
    assert metrics["unseen_dice"] == pytest.approx((1 + 6 / 7 + 1) / 3)
    own = found.folds[1].run.run_id
    child = client.get_run(own)
    assert child.info.run_name == "segmentation_model fold_1"
    assert child.data.tags["mlflow.parentRunId"] == parent
    assert child.data.metrics["unseen_dice"] == pytest.approx(6 / 7)
    datasets = {
        read.tags[0].value: read.dataset for read in child.inputs.dataset_inputs
    }
    assert set(datasets) == {"training", "validation"}
    assert datasets["training"].name == "segmentation training, fold 1"
    first = client.get_run(found.folds[0].run.run_id).inputs.dataset_inputs
    assert datasets["training"].digest not in {r.dataset.digest for r in first}
    assert {file.path for file in client.list_artifacts(own, "model")} >= {
        "model/model.json",
        "model/weights.npz",
        "model/signature.json",
        "model/studies.json",
    }

    model_id = found.folds[1].mlflow_model_id
    assert model_id is not None
    logged = client.get_logged_model(model_id)
    assert logged.source_run_id == own
    place = logged.artifact_location.removeprefix("file://")
    assert (Path(place) / "studies.json").exists()
    signature = mlflow.models.get_model_info(place).signature
    shapes = {spec.name: tuple(spec.shape) for spec in signature.inputs}
    assert shapes == {
        "locator": (-1, 16, 16, 16, 1),
        "segmenter": (-1, 16, 16, 16, 4),
    }
    assert {spec.name: tuple(spec.shape) for spec in signature.outputs} == {
        "locator": (-1, 16, 16, 16, 2),
        "segmenter": (-1, 16, 16, 16, 8),
    }
    assert_loads_elsewhere(Path(place), tmp_path)


ELSEWHERE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0].startswith("csfd"):
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
import mlflow.tensorflow
import numpy as np
model = mlflow.tensorflow.load_model(sys.argv[1])
with np.load(sys.argv[2]) as inputs:
    found = model.predict_on_batch(dict(inputs))
np.savez(sys.argv[3], **found)
"""


def assert_loads_elsewhere(place: Path, folder: Path) -> None:
    """Load the model where there is no csfd; it must say what the store's says."""
    import subprocess
    import sys

    rng = np.random.default_rng(0)
    inputs = {
        "locator": rng.random((1, 16, 16, 16, 1), dtype=np.float32),
        "segmenter": rng.random((1, 16, 16, 16, 4), dtype=np.float32),
    }
    np.savez(folder / "in.npz", **inputs)
    call = [sys.executable, "-W", "ignore", "-c", ELSEWHERE, str(place)]
    call += [str(folder / "in.npz"), str(folder / "out.npz")]
    result = subprocess.run(call, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    model = build_model(TINY)
    model.set_weights([np.float32(np.float16(value)) for value in weights()])
    expected = model.predict_on_batch(inputs)
    with np.load(folder / "out.npz") as found:
        assert set(found) == {"locator", "segmenter"}
        for name, values in found.items():
            np.testing.assert_allclose(values, expected[name], atol=1e-4)
