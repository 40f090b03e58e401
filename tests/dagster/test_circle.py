"""The whole circle: what a reader corrects on the page teaches the next model.

Upload, prediction, correction, label file in the inbox, sensor, nightly retraining,
contest, and the page that names the version that speaks now. Real parts, tiny models.
"""

import io
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pydicom
import pytest
from starlette.testclient import TestClient
from support.drawn_crops import BrightClassifier
from support.instances import small_instance
from support.sensing import QUIET
from support.uploaded import Asking, row_of
from support.uploading import send, whole
from support.web import WebUnderTest, set_environment, web_app

from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.classification.classifiers import CLASSIFIERS
from csfd_core.crops.cutting import CROP_PROFILES, CropConfig
from csfd_core.deid.deidentify import deidentify
from csfd_core.dicom.headers import KEYED_PATIENT
from csfd_core.evaluation.folds import is_test
from csfd_core.ingest.patients import read_secret
from csfd_core.learning.splits import learnt_from
from csfd_core.phantom.config import PhantomConfig
from csfd_core.phantom.source import write_phantom_source
from csfd_core.registry.champion import ChampionRegistry
from csfd_core.runtime.executors import InlineExecutor
from csfd_core.settings import Settings
from csfd_core.vocabulary import LEVEL_NAMES
from csfd_dagster.definitions import build_defs
from csfd_dagster.engine import Engine, Project, open_project
from csfd_dagster.jobs import RETRAINING_ROOTS
from csfd_dagster.resources.classification import ClassificationResource
from csfd_dagster.resources.segmentation import SegmentationResource
from csfd_dagster.resources.stores import SourceResource, StoreResource
from csfd_dagster.schedules import RETRAINING
from csfd_dagster.sensors import look_for_studies

# Fold 0, the other folds and the locked test set have fractured and whole vertebrae.
SOURCE = PhantomConfig(
    studies=9, seed=19, version=1, masked_share=1, boxed_share=1, compressed_share=0
)
FAST = {
    "segmentation": SegmentationResource(epochs=1, steps_per_epoch=1),
    "classification": ClassificationResource(
        epochs=1, steps_per_epoch=2, weights="none"
    ),
}
NIGHT = datetime(2030, 1, 7, 2, tzinfo=UTC)
TICKS = 6


def files_to_upload(folder: Path) -> list[bytes]:
    """A phantom that no store knows, of a patient outside of the locked test set."""
    for seed in range(100, 140):
        config = PhantomConfig(studies=1, seed=seed, masked_share=0, compressed_share=0)
        (study,) = write_phantom_source(
            folder / str(seed), config, executor=InlineExecutor()
        )
        images = folder / str(seed) / "train_images" / study.study_uid
        files = [path.read_bytes() for path in sorted(images.iterdir())]
        secret = read_secret(Settings.read().key_file)
        kept = pydicom.dcmread(io.BytesIO(deidentify(files[0], secret).content))
        if not is_test(kept.PatientID.removeprefix(KEYED_PATIENT)):
            return files
    raise AssertionError("Every patient falls into the locked test set.")


def predict(web: WebUnderTest, instance: dg.DagsterInstance, study_uid: str) -> None:
    """Let the sensor of uploads ask for a study, and do what it asks for."""
    asking = Asking(instance, web.services.stores.root.url)
    (request,) = asking.tick().run_requests or ()
    arrival = build_defs().resolve_job_def("arrival")
    arrival.execute_in_process(
        instance=instance,
        partition_key=study_uid,
        tags=request.tags,
        run_config=QUIET,
    )
    asking.tick()
    row = row_of(web.services.database, study_uid)
    assert (row.state, row.reason) == ("done", "")


def correct(reader: TestClient, study_uid: str) -> None:
    """Sign that C5 is fractured, with a box, and the others are not."""
    box = {
        "level": "C5", "slice_index": 30, "x": 10, "y": 12, "width": 8, "height": 6,
    }  # fmt: skip
    answer = reader.post(
        f"/api/v1/studies/{study_uid}/sign",
        json={
            "version": 1,
            "levels": {**dict.fromkeys(LEVEL_NAMES, "whole"), "C5": "fractured"},
            "boxes": [box],
            "comment": "",
        },
    )
    assert answer.status_code == 201, answer.text


def look(project: Project, instance: dg.DagsterInstance) -> None:
    """Let the sensor of the sources look, and make what follows."""
    engine, cursor = Engine(project, instance, lambda _: None), None
    for _ in range(TICKS):
        with dg.build_sensor_context(instance=instance, cursor=cursor) as tick:
            result = look_for_studies(
                tick, source=SourceResource(), store=StoreResource(), **FAST
            )
        assert isinstance(result, dg.SensorResult)
        cursor = result.cursor
        for change in result.dynamic_partitions_requests or []:
            keys = list(change.partition_keys)
            instance.add_dynamic_partitions("studies", keys)
        for event in result.asset_events:
            instance.report_runless_asset_event(event)
        engine.settle()
    engine.raise_failures()


def at_night(project: Project, instance: dg.DagsterInstance) -> None:
    """Let the schedule of the retraining tick, and do what it asks for."""
    with dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=NIGHT,
        resources={"source": SourceResource(), "store": StoreResource()},
        repository_def=project.defs.get_repository_def(),
    ) as context:
        schedule = project.defs.resolve_schedule_def(RETRAINING)
        result = schedule.evaluate_tick(context)
    assert result.run_requests, result.skip_message
    engine = Engine(project, instance, lambda _: None)
    engine.materialize(RETRAINING_ROOTS)
    engine.settle()
    engine.raise_failures()


@pytest.fixture
def real_crops() -> CropConfig:
    """The crops of the profile, before ``cheap`` makes them smaller."""
    return CROP_PROFILES["demo"]


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.usefixtures("real_crops", "cheap")  # in this order
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras and NumPy 2
@pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")
@pytest.mark.filterwarnings("ignore::UserWarning:mlflow")
def test_correction_on_the_page_teaches_the_version_that_the_page_then_names(
    places: Path, real_crops: CropConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is corrected here, the basic CNN is to learn; another network costs time.
    monkeypatch.setitem(CLASSIFIERS, "triplanar_cnn", BrightClassifier)
    # The general classifier takes crops of the real size.
    monkeypatch.setitem(CROP_PROFILES, "demo", real_crops)
    write_phantom_source(places / "source", SOURCE, executor=InlineExecutor())
    set_environment(places, monkeypatch)
    files = files_to_upload(places / "elsewhere")
    for name, value in {
        "CSFD_RETRAIN_STUDIES": "7",  # 6 of the source are not locked, and this one
        "CSFD_PROMOTION_LEAST_SUBJECTS": "2",
    }.items():
        monkeypatch.setenv(name, value)
    with (
        small_instance(places / "home") as instance,
        web_app(places, monkeypatch) as web,
    ):
        reader = web.sign_in_as("reader@clinic")
        (uploaded,) = send(reader, [whole(files)]).json()["studies"]
        uid = uploaded["study_uid"]
        instance.add_dynamic_partitions("studies", [uid])
        predict(web, instance, uid)
        before = reader.get("/model").text
        assert "general classifier speaks" in before

        correct(reader, uid)
        project = open_project(FAST)
        project.mlflow.prepare()
        look(project, instance)
        labels = web.services.stores.metadata.read_studies().set_index("study_uid")
        assert labels.loc[uid, list(LEVEL_NAMES)].tolist() == [0, 0, 0, 0, 1, 0, 0]
        at_night(project, instance)

        cards = ClassifierStore(web.services.stores.root).cards(["basic_cnn"])
        assert uid in learnt_from(cards)
        champion = ChampionRegistry(
            web.services.stores, project.mlflow.uri()
        ).champion()
        assert champion is not None
        after = reader.get("/model").text
        assert "general classifier speaks" not in after
        assert champion.model in after
        assert f"version {champion.number}" in after
