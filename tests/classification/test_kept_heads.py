"""A head that was kept says what it said."""

import numpy as np
import pytest

from csfd_core.classification.backbones.application import BackboneClassifier
from csfd_core.classification.backbones.resnet50 import RESNET50
from csfd_core.classification.classifier import CropShape
from csfd_core.classification.config import ClassifierConfig
from csfd_core.store.locations import Location


def open_with_small_backbone() -> BackboneClassifier:
    import keras

    shape = CropShape(slices=4, channels=3, side_px=8)
    found = BackboneClassifier(RESNET50, ClassifierConfig(), shape, Location("nowhere"))
    inputs = keras.Input((8, 8, 3))
    small = keras.Model(inputs, keras.layers.Conv2D(6, 3)(inputs))
    found.__dict__["_network"] = small  # in place of the property that builds ResNet50
    return found


@pytest.mark.slow
def test_head_of_features_far_from_one_is_taken_up_whole() -> None:
    features = np.random.default_rng(0).normal(40.0, 1e-4, (20, 4, 6))
    features = features.astype(np.float32)
    trained = open_with_small_backbone()
    trained._head.get_layer("scale").adapt(features)
    expected = trained._head_logits(features)
    again = open_with_small_backbone()
    again.set_weights(trained.get_weights())
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(again._head_logits(features), expected, atol=1e-4)
