"""Phantoms and models that are small enough to run the whole graph in a test."""

import functools

import pytest

from csfd_core.classification import classifiers as registry
from csfd_core.crops.cutting import CROP_PROFILES, CropConfig
from csfd_core.phantom import source as phantom_source
from csfd_core.phantom.config import GridOverride
from csfd_core.reports.leakage import config as audit_config
from csfd_core.runtime.compute import computing
from csfd_core.segmentation import predict as prediction
from csfd_dagster.assets import comparison
from support.drawn_crops import tiny_backbone

GRID = GridOverride(shape_zyx=(72, 56, 56), spacing_zyx_mm=(3.0, 3.0, 3.0))


def coarse_phantoms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paint phantoms of this process on a coarse grid."""
    paint = phantom_source.build_phantom_volume
    coarse = functools.partial(paint, grid=GRID)
    monkeypatch.setattr(phantom_source, "build_phantom_volume", coarse)


def cheap_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use small crops, one look, a tiny backbone three times, and a short audit."""
    with computing():
        import keras
    monkeypatch.setattr(keras.applications, "ResNet50", tiny_backbone)
    monkeypatch.setattr(prediction, "_LOOKS", ((0, 0, 0),))
    small = CropConfig(slices=3, side_px=48, pixel_mm=1.6)
    monkeypatch.setitem(CROP_PROFILES, "demo", small)
    for name in ("inception_v3", "efficientnet_b5"):
        monkeypatch.setitem(
            registry.CLASSIFIERS, name, registry.CLASSIFIERS["resnet50"]
        )
    short = audit_config.AuditConfig(steps=2, batch_size=4, side=16, slices_per_study=4)
    monkeypatch.setitem(comparison.AUDIT_PROFILES, "demo", short)
