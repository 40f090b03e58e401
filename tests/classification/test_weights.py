"""What backbones start from: one is never silently taken for another."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.drawn_crops import CROPS, SIDE, put_tiny_backbone

from csfd_core.classification.classifier import CropShape
from csfd_core.classification.classifiers import CLASSIFIERS, open_classifier
from csfd_core.classification.config import ClassifierConfig
from csfd_core.classification.transfer.weights import (
    digest_of,
    load_backbone,
    require_weights,
)
from csfd_core.errors import SettingsError
from csfd_core.runtime.compute import computing
from csfd_core.store.locations import Location

# Keras reads its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")
SHAPE = CropShape.of(CROPS.to_note())


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    put_tiny_backbone(monkeypatch)


def load(weights: str | Path, seed: int = 0) -> Any:
    return load_backbone("ResNet50", str(weights), SIDE, seed)


def test_every_classifier_is_opened_by_its_name(tmp_path: Path) -> None:
    names = [
        "basic_cnn",
        "triplanar_cnn",
        "inception_v3",
        "resnet50",
        "efficientnet_b5",
    ]
    assert list(CLASSIFIERS) == names
    for name in names:
        found = open_classifier(name, ClassifierConfig(), SHAPE, Location(tmp_path))
        spec = getattr(found, "spec", None)
        assert spec is None or spec.name == name
    with pytest.raises(SettingsError, match="no classifier 'vgg'. There are: basic_"):
        open_classifier("vgg", ClassifierConfig(), SHAPE, Location(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inception_v3", "resnet50", "efficientnet_b5"])
def test_every_backbone_of_keras_has_the_blocks_that_are_tuned(name: str) -> None:
    spec = open_classifier(name, ClassifierConfig(), SHAPE, Location("x")).spec  # type: ignore[attr-defined]
    with computing():
        import keras

        network = load_backbone(spec.application, "none", 96, 0)
        assert hasattr(getattr(keras.applications, spec.module), "preprocess_input")
    own = [layer.name.startswith(spec.top_blocks) for layer in network.layers]
    assert 0.5 < own.index(True) / len(own) < 1
    assert network.output_shape[1:3] in ((1, 1), (3, 3))


@pytest.mark.usefixtures("small")
def test_random_weights_are_those_of_the_seed() -> None:
    assert digest_of(load("none")) == digest_of(load("none"))
    assert digest_of(load("none")) != digest_of(load("none", seed=1))


@pytest.mark.usefixtures("small")
def test_random_weights_are_the_same_though_other_threads_draw_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Planted: each number that Keras takes from Python's generator is another."""
    before = load("none").get_weights()
    own = random.Random(7)
    monkeypatch.setattr("random.randint", own.randint)
    for value, expected in zip(load("none").get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, expected)
    assert all(value.std() > 0 for value in before if value.ndim == 4)


@pytest.mark.usefixtures("small")
def test_a_file_gives_its_weights(tmp_path: Path) -> None:
    kept = load("none", seed=7)
    file = tmp_path / "own.weights.h5"
    kept.save_weights(file)
    found = load(file)
    for own, expected in zip(found.get_weights(), kept.get_weights(), strict=True):
        np.testing.assert_array_equal(own, expected)
    assert digest_of(found) == digest_of(kept)
    changed = found.get_weights()
    changed[0][0, 0, 0, 0] += 1e-3
    found.set_weights(changed)
    assert digest_of(found) != digest_of(kept)


@pytest.mark.usefixtures("small")
def test_a_missing_file_names_what_there_is_to_choose() -> None:
    with pytest.raises(
        SettingsError, match="no weights file nowhere.h5. Use imagenet, none, or the"
    ):
        load("nowhere.h5")
    assert require_weights("none") == "none"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "name", ["text.h5", "text.weights.h5", "text.txt", "keras.keras"]
)
def test_a_file_of_something_else_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("no weights")
    with pytest.raises(SettingsError, match=f"{name} does not hold the weights of Res"):
        load(tmp_path / name)


@pytest.mark.usefixtures("small")
def test_the_weights_of_another_network_are_told(tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((SIDE, SIDE, 3))
    values = keras.layers.Conv2D(5, 3, name="first")(inputs)
    other = keras.Model(inputs, keras.layers.Dense(2, name="top")(values))
    file = tmp_path / "other.weights.h5"
    other.save_weights(file)
    with pytest.raises(SettingsError, match="does not hold the weights of ResNet50"):
        load(file)


def test_without_a_network_imagenet_names_the_other_ways(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with computing():
        from keras.src.applications import resnet

    def offline(*args: object, **options: object) -> None:
        raise Exception("URL fetch failure")  # noqa: TRY002 - as Keras does

    monkeypatch.setattr(resnet.file_utils, "get_file", offline)
    told = (
        "The ImageNet weights of ResNet50 could not be downloaded .* "
        "name a file with the weights in CSFD_WEIGHTS, or set CSFD_WEIGHTS=none"
    )
    with pytest.raises(SettingsError, match=told):
        load("imagenet")


def test_an_interrupted_download_is_told_and_never_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with computing():
        from keras.src.utils import file_utils
    asked: list[Path] = []

    def retrieve_half(origin: str, target: str, report: object) -> None:
        asked.append(Path(target))
        Path(target).write_bytes(b"half of a file")

    monkeypatch.setattr(file_utils, "urlretrieve", retrieve_half)
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path))
    for _ in range(2):  # what the first left behind is not taken for the weights
        with pytest.raises(SettingsError, match=r"not be downloaded \(ValueError\)"):
            load("imagenet")
    assert asked == [tmp_path / "models" / asked[0].name] * 2
