"""Each setting of the environment arrives where a run of the definitions uses it.

The runs are those that the daemon starts: of the definitions as they are loaded, with
nothing given by name. What would train or decide is replaced by what takes note.
"""

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import dagster as dg
import pytest

from csfd_core.runtime.study_map import StudyMap, Work
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from csfd_dagster.assets import champion, classification, segmentation
from csfd_dagster.definitions import build_defs
from csfd_dagster.partitions import studies
from csfd_dagster.resources.mlflow import MlflowResource
from csfd_dagster.resources.stores import StoreResource

UID = "1.2.826.0.1.3680043.10"


class Notes:
    """What a function of the core was called with; the run ends there."""

    def __init__(self) -> None:
        self.arguments: tuple[Any, ...] = ()

    def __call__(self, *arguments: Any) -> None:
        self.arguments = arguments
        raise RuntimeError("noted")


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Notes:
    monkeypatch.setattr(MlflowResource, "run", lambda *_: MagicMock())
    return Notes()


def run(monkeypatch: pytest.MonkeyPatch, asset: str, **settings: str) -> None:
    """Materialize one asset of the definitions under some settings."""
    for name, value in settings.items():
        monkeypatch.setenv(f"CSFD_{name}", value)
    job = build_defs().resolve_implicit_global_asset_job_def()
    key = "fold_3" if asset == "resnet50" else UID if asset == "study_headers" else None
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(str(studies.name), [UID])
        result = job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(asset)],
            partition_key=key,
            raise_on_error=False,
        )
    assert not result.success  # as the core was not let go on


@pytest.mark.usefixtures("places")
def test_settings_of_the_segmentation_arrive(
    noted: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmentation, "run_folds", noted)
    run(
        monkeypatch,
        "segmentation_model",
        PROFILE="full",
        SEGMENTATION_SEED="11",
        SEGMENTATION_EPOCHS="12",
        SEGMENTATION_STEPS_PER_EPOCH="13",
        SEGMENTATION_PATIENCE="0",
        SEGMENTATION_INITIAL="builtin",
        SEGMENTATION_FOLDS="3",
    )
    _, settings, folds, *_ = noted.arguments
    own = settings.training
    assert own.profile == "full"
    assert (own.seed, own.epochs, own.steps_per_epoch) == (11, 12, 13)
    assert (own.patience, own.initial) == (0, "builtin")
    assert folds == [0, 1, 2]


@pytest.mark.usefixtures("places")
def test_settings_of_the_classifiers_arrive(
    noted: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classification, "read_manifest", lambda _: None)
    monkeypatch.setattr(classification, "plan_classifier", noted)
    run(
        monkeypatch,
        "resnet50",
        PROFILE="full",
        WEIGHTS="some.h5",
        CLASSIFICATION_SEED="11",
        CLASSIFICATION_EPOCHS="12",
        CLASSIFICATION_STEPS_PER_EPOCH="13",
    )
    name, fold, config, _ = noted.arguments
    assert (name, fold, config.profile) == ("resnet50", 3, "full")
    assert (config.weights, config.seed) == ("some.h5", 11)
    assert (config.epochs, config.steps_per_epoch) == (12, 13)


@pytest.mark.usefixtures("places")
def test_margins_of_a_promotion_arrive(
    noted: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(champion, "read_best", lambda _: "resnet50")
    monkeypatch.setattr(champion, "hold_contest", noted)
    run(
        monkeypatch,
        "champion_model",
        PROMOTION_LEAST_SUBJECTS="11",
        PROMOTION_LOSS_MARGIN="-.12",
        PROMOTION_SENSITIVITY_MARGIN=".13",
        PROMOTION_CALIBRATION_MARGIN=".14",
        PROMOTION_LATENCY_FACTOR="15",
        PROMOTION_UNHURRIED_MS="16",
    )
    *_, config, _ = noted.arguments
    assert (config.least_subjects, config.loss_margin) == (11, -0.12)
    assert (config.sensitivity_margin, config.calibration_margin) == (0.13, 0.14)
    assert (config.latency_factor, config.unhurried_ms) == (15.0, 16.0)


@pytest.mark.slow
@pytest.mark.parametrize("dask", ["", "tcp://scheduler:8786"])
def test_who_does_the_work_on_studies_arrives(
    places: Path, noted: Notes, monkeypatch: pytest.MonkeyPatch, dask: str
) -> None:
    folder = places / "source" / "train_images" / UID
    folder.mkdir(parents=True)
    (folder / "1.dcm").write_bytes(b"no matter")
    opened: list[StudyMap] = []

    def note(self: StudyMap, work: Work, tasks: int, **_: object) -> None:
        opened.append(self)
        noted(work, tasks)

    monkeypatch.setattr(StudyMap, "open", note)
    run(monkeypatch, "study_headers", WORKERS="7", DASK=dask)
    assert noted.arguments == (Work.FILES, 0)
    assert opened[:1] == [StudyMap(workers=7, dask=dask or None)]


def test_quality_of_the_slices_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    assert StoreResource().conversion().jpeg_quality == 96
    monkeypatch.setenv("CSFD_JPEG_QUALITY", "91")
    assert StoreResource().conversion().jpeg_quality == 91
    assert StoreResource(jpeg_quality=92).conversion().jpeg_quality == 92


def test_a_run_records_the_profile_of_the_environment(
    places: Path, noted: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmentation, "run_folds", noted)
    run(monkeypatch, "segmentation_model", PROFILE="full")
    noted.arguments = ()
    run(monkeypatch, "segmentation_model", PROFILE="demo")
    assert noted.arguments == ()  # refused before
    assert Stores(Location(places / "store")).root.exists("store.json")
