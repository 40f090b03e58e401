"""Phantoms and models that are small enough to run the whole graph in a test."""

import contextlib
import functools
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from PIL import Image

from csfd_core.classification import classifiers as registry
from csfd_core.classification import fit
from csfd_core.crops.cutting import CROP_PROFILES, CropConfig
from csfd_core.ingest.convert import StudyTask, convert_study
from csfd_core.ingest.studies_table import write_studies_table
from csfd_core.phantom import source as phantom_source
from csfd_core.phantom.config import GridOverride, PhantomConfig
from csfd_core.reports import render
from csfd_core.reports.eda import frames
from csfd_core.reports.leakage import config as audit_config
from csfd_core.runtime.executors import InlineExecutor
from csfd_core.segmentation import predict as prediction
from csfd_core.store.locations import Location
from csfd_core.store.source import Source, Sources
from csfd_core.store.stores import Stores
from support.drawn_crops import put_tiny_backbone

_PNG = io.BytesIO()
Image.new("RGB", (1, 1)).save(_PNG, "PNG")
_DOT = {"png": _PNG.getvalue(), "svg": b'<svg viewBox="0 0 1 1"></svg>'}
GRID = GridOverride(shape_zyx=(72, 56, 56), spacing_zyx_mm=(3.0, 3.0, 3.0))


def coarse_phantoms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paint phantoms of this process on a coarse grid."""
    paint = phantom_source.build_phantom_volume
    coarse = functools.partial(paint, grid=GRID)
    monkeypatch.setattr(phantom_source, "build_phantom_volume", coarse)


def write_converted_phantom(folder: Path, config: PhantomConfig) -> Stores:
    """Write coarse phantoms and a store with their slices, masks and table."""
    with pytest.MonkeyPatch.context() as patch:
        coarse_phantoms(patch)
        phantom_source.write_phantom_source(
            folder / "source", config, executor=InlineExecutor()
        )
    stores = Stores(Location(folder / "store"))
    sources = Sources([Source(folder / "source")])
    for study in sources.studies():
        convert_study(StudyTask(study, stores))
    write_studies_table(stores, sources)
    return stores


def one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the segmenter look once at each study."""
    monkeypatch.setattr(prediction, "_LOOKS", ((0, 0, 0),))


def plain_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a dot in place of every figure, for tests that look at none of them.

    A film has a frame for every five centimetres.
    """

    def save(figure: object, form: str, style: object, **options: object) -> bytes:
        return _DOT[form]

    def save_alone(figure: object, sink: BinaryIO, format: str, **_: object) -> None:  # noqa: A002
        sink.write(_DOT[format])

    monkeypatch.setattr(render, "_save", save)
    monkeypatch.setattr(frames, "STEP_MM", 50.0)
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", save_alone)


@contextlib.contextmanager
def untraced_networks() -> Iterator[None]:
    """Run networks without tracing them, which costs more than a few steps."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def cheap_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use small crops, one look, a tiny backbone three times, and a short audit."""
    from csfd_dagster.assets import comparison  # here: others do not need Dagster

    put_tiny_backbone(monkeypatch)
    one_look(monkeypatch)
    small = CropConfig(slices=3, side_px=48, pixel_mm=1.6)
    monkeypatch.setitem(CROP_PROFILES, "demo", small)
    for name in ("inception_v3", "efficientnet_b5"):
        monkeypatch.setitem(
            registry.CLASSIFIERS, name, registry.CLASSIFIERS["resnet50"]
        )
    monkeypatch.setattr(fit, "_TIMED", 1)
    short = audit_config.AuditConfig(steps=2, batch_size=4, side=16, slices_per_study=4)
    monkeypatch.setitem(comparison.AUDIT_PROFILES, "demo", short)
