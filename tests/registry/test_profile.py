"""One profile per store: recorded at the first run, and another one refused."""

import json
from pathlib import Path

import dagster as dg
import pytest
from dagster._grpc.utils import (
    default_grpc_server_shutdown_grace_period,
    default_schedule_grpc_timeout,
    default_sensor_grpc_timeout,
)
from support.cards import classifier_card, segmentation_card

from csfd_core.classification.config import ClassifierConfig
from csfd_core.crops.cutting import CROP_PROFILES
from csfd_core.errors import CsfdError, SettingsError, StoreError
from csfd_core.registry.profile import profile_of, require_profile
from csfd_core.segmentation.config import TrainingConfig
from csfd_core.store.locations import Location
from csfd_core.store.notes import CropNote
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import Profile
from csfd_dagster import commands
from csfd_dagster.resources.stores import SourceResource, StoreResource

UID = "1.2.826.0.1.3680043.10"


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(Location(tmp_path / "store"))


def write_classifier(
    stores: Stores, name: str, profile: Profile, trained_at: str
) -> None:
    card = classifier_card(
        config=ClassifierConfig(profile=profile), trained_at=trained_at
    )
    stores.root.write(f"models/classification/{name}/card.json", card.to_json())


def write_segmentation(stores: Stores, name: str, profile: Profile) -> None:
    card = segmentation_card(training=TrainingConfig(profile=profile))
    stores.root.write(f"models/segmentation/{name}/model.json", card.to_json())


@dg.asset
def written(store: StoreResource) -> None:
    """Stands for every asset: what it takes the store for is to write into it."""
    store.open().root.write("slices/x", b"x")


def materialize(stores: Stores, monkeypatch: pytest.MonkeyPatch, profile: str) -> bool:
    monkeypatch.setenv("CSFD_PROFILE", profile)
    resources = {"store": StoreResource(store_url=str(stores.root))}
    return dg.materialize([written], resources=resources).success


def test_a_run_of_another_profile_is_refused_before_it_writes(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert materialize(stores, monkeypatch, "full")
    record = json.loads(stores.root.read("store.json"))
    assert record == {"schema_version": 1, "profile": "full"}
    stores.root.remove("slices/x")
    sentence = (
        f"The profile demo was asked for, but the store {stores.root} is of the "
        "profile full: use that one (--profile full or CSFD_PROFILE=full), or name "
        "another store."
    )
    with pytest.raises(dg.DagsterResourceFunctionError) as caught:
        materialize(stores, monkeypatch, "demo")
    assert str(caught.value.__cause__) == sentence
    assert not stores.root.exists("slices/x")
    assert materialize(stores, monkeypatch, "full")
    assert stores.root.exists("slices/x")


def test_who_only_looks_records_nothing(stores: Stores) -> None:
    @dg.sensor(target=[written])
    def looking(store: StoreResource) -> dg.SkipReason:
        return dg.SkipReason(f"{store.open().root.exists()}")

    resources = {"store": StoreResource(store_url=str(stores.root))}
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(instance, resources=resources) as context,
    ):
        looking(context)
    assert not stores.root.exists()


def test_an_empty_store_takes_the_profile_that_is_asked_for(stores: Stores) -> None:
    assert profile_of(stores) is None
    require_profile(stores, "full")
    assert profile_of(stores) == "full"


@pytest.mark.parametrize(("first", "second"), [("demo", "full"), ("full", "demo")])
def test_a_store_without_a_record_has_the_profile_of_its_newest_classifier(
    stores: Stores, first: Profile, second: Profile
) -> None:
    older, newer = "2026-01-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00"
    write_classifier(stores, "resnet50/fold_0", first, older)
    write_classifier(stores, "basic_cnn/fold_1", second, newer)
    write_segmentation(stores, "fold_0", first)
    assert profile_of(stores) == second
    with pytest.raises(SettingsError, match=f"is of the profile {second}"):
        require_profile(stores, "full" if second == "demo" else "demo")
    assert not stores.root.exists("store.json")


@pytest.mark.parametrize("profile", ["demo", "full"])
def test_a_store_without_classifiers_has_the_profile_of_its_segmentation(
    stores: Stores, profile: Profile
) -> None:
    write_segmentation(stores, "fold_2", profile)
    assert profile_of(stores) == profile


@pytest.mark.parametrize("profile", ["demo", "full"])
def test_a_store_without_models_has_the_profile_of_its_crops(
    stores: Stores, profile: Profile
) -> None:
    note = CropNote(
        study_uid=UID,
        inputs="",
        crop=CROP_PROFILES[profile].to_note(),
        model_id="",
        standing="unseen",
        levels=(),
    )
    stores.crops.write(UID, [], note)
    assert profile_of(stores) == profile


@pytest.mark.parametrize(
    "content",
    [b'{"schema_version": 2, "profile": "demo"}', b'{"profile": "big"}', b"{"],
)
def test_a_record_that_cannot_be_read_stops_a_run(
    stores: Stores, content: bytes
) -> None:
    stores.root.write("store.json", content)
    with pytest.raises(StoreError, match="not a record of a store"):
        require_profile(stores, "demo")
    assert stores.root.read("store.json") == content


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "SOURCE", "INBOX", "STORE", "PROFILE", "FOLDS"):
        monkeypatch.setenv(f"CSFD_{name}", "")  # put back afterwards
    for name in ("DAGSTER_HOME", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "")
    return tmp_path


def test_a_command_takes_the_profile_of_the_store(places: Path, stores: Stores) -> None:
    require_profile(stores, "full")
    commands.prepare_environment(store="store")
    from csfd_core.settings import Settings

    assert Settings.read().profile == "full"
    commands.prepare_environment(store="other", profile="demo")
    assert Settings.read().profile == "demo"


def test_a_long_look_at_the_sources_is_waited_for(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {
        "DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS": default_sensor_grpc_timeout,
        "DAGSTER_SCHEDULE_GRPC_TIMEOUT_SECONDS": default_schedule_grpc_timeout,
        "DAGSTER_GRPC_SHUTDOWN_GRACE_PERIOD": default_grpc_server_shutdown_grace_period,
    }
    for name in told:
        monkeypatch.setenv(name, "")  # put back afterwards
        monkeypatch.delenv(name)
    commands.prepare_environment()
    assert [ask() for ask in told.values()] == [900, 900, 60]  # as Dagster reads them
    monkeypatch.setenv("DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS", "30")
    commands.prepare_environment()
    assert default_sensor_grpc_timeout() == 30


def test_csfd_run_of_another_profile_is_refused_before_anything_is_made(
    places: Path, stores: Stores
) -> None:
    require_profile(stores, "full")
    folder = places / "data" / "source" / "train_images" / UID
    folder.mkdir(parents=True)
    (folder / "1.dcm").write_bytes(b"no matter")
    assert SourceResource().open().studies()
    before = sorted(places.rglob("*"))
    commands.prepare_environment(store="store", profile="demo")
    with pytest.raises(CsfdError, match="The profile demo was asked for"):
        commands.run_graph()
    assert sorted(places.rglob("*")) == before
