"""Evidence of studies from a store and of phantoms, and what the documentation says."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pydicom
import pytest
from support.dicom_studies import STUDY_UID, add_series, neck_mask
from support.paths import ROOT
from support.spots import (
    CROPS,
    LEVEL,
    known_mask,
    spot_ensemble,
    write_spot_study,
)

from csfd_core.crops.maker import CropMaker
from csfd_core.inference.predict import predict_input, predict_stored
from csfd_core.inference.reading import Reading
from csfd_core.ingest.convert import StudyTask, convert_study, study_tasks
from csfd_core.phantom.config import PhantomConfig
from csfd_core.phantom.dicom_writer import PixelStyle, write_dicom_series
from csfd_core.phantom.volume import build_phantom_volume
from csfd_core.store.locations import Location
from csfd_core.store.notes import PredictedMaskNote
from csfd_core.store.source import Source
from csfd_core.store.stores import Stores
from csfd_core.store.volume_choices import VolumeChoice
from csfd_core.vocabulary import LEVEL_NAMES

PAGE = (ROOT / "docs" / "predictions.md").read_text()
# Fields whose names are data: levels, and what a study says.
_NAMED = {"probabilities", "answers", "uncertainty", "evidence", "levels"}


def write_mask(stores: Stores, mask: np.ndarray) -> None:
    record = stores.metadata.read_record(STUDY_UID)
    assert record is not None
    geometry = record.volume_geometry()
    assert geometry is not None
    note = PredictedMaskNote(
        study_uid=STUDY_UID,
        format=1,
        content_hash=record.content_hash,
        model_id="known",
        fold=0,
        standing="unseen",
        levels=known_mask().predict(cast(Any, None)).review.notes(),
        flags=(),
        **asdict(geometry),
    )
    stores.predicted_masks.write(STUDY_UID, mask, note)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_spot_study(tmp_path / "source", (-1, 0, 0), (0, 0.94, 0.34), feet_first=True)
    return tmp_path / "source"


@pytest.fixture
def stores(source: Path, tmp_path: Path) -> Stores:
    found = Stores(Location(tmp_path / "store"))
    for folder in Source(source).studies():
        convert_study(StudyTask(folder, found))
    write_mask(found, neck_mask())
    labels = pd.DataFrame(columns=list(LEVEL_NAMES))
    boxes = pd.DataFrame(columns=["study_uid", "x", "y", "width", "height"])
    CropMaker(found, CROPS, labels, boxes).make(STUDY_UID)
    return found


def predict(source: Path, out: Path, *shifts: float) -> dict[str, Any]:
    ensemble = spot_ensemble(*shifts)
    list(predict_input(str(source), out, known_mask(), ensemble, print, Reading()))
    note: dict[str, Any] = json.loads((out / f"{STUDY_UID}.json").read_text())
    return note


def test_a_store_says_the_same_as_the_files(
    source: Path, stores: Stores, tmp_path: Path
) -> None:
    expected = predict(source, tmp_path / "out")["evidence"]
    found = predict_stored(stores, STUDY_UID, spot_ensemble())["evidence"]
    assert list(found) == list(expected) == list(LEVEL_NAMES)
    assert expected["C1"] is None
    assert found["C1"] is None or found["C1"]["peak"] < 0.1  # what JPEG adds
    one, other = found[LEVEL], expected[LEVEL]
    assert one["sop_instance_uid"] == other["sop_instance_uid"]
    assert one["slice_index"] == other["slice_index"]
    # JPEG moves an edge by a pixel of the crops, which is a third of the slice's.
    assert one["box_px"] == pytest.approx(other["box_px"], abs=0.7)
    for end in ("lower", "upper"):
        near = pytest.approx(other["box_lps_mm"][end], abs=0.8)
        assert one["box_lps_mm"][end] == near


def test_a_place_is_not_told_by_a_mask_that_the_crops_do_not_know(
    stores: Stores,
) -> None:
    write_mask(stores, np.roll(neck_mask(), 1, axis=0))
    note = predict_stored(stores, STUDY_UID, spot_ensemble())
    assert note["evidence"] == dict.fromkeys(LEVEL_NAMES)
    assert note["probabilities"][LEVEL] > 0.5


def test_of_a_chosen_volume_the_prediction_is_its_own_and_says_so(
    tmp_path: Path,
) -> None:
    """The spot of C4 is on the volume that is read by default alone."""
    write_spot_study(tmp_path / "source")
    (folder,) = Source(tmp_path / "source").studies()
    add_series(tmp_path / "source" / folder.path, "9")
    (folder,) = Source(tmp_path / "source").studies()
    stores = Stores(Location(tmp_path / "store"))
    labels = pd.DataFrame(columns=list(LEVEL_NAMES))
    boxes = pd.DataFrame(columns=["study_uid", "x", "y", "width", "height"])
    said = []
    for slice_uid in ("", f"{STUDY_UID}.9.1", f"{STUDY_UID}.1.1"):
        if slice_uid:
            choice = VolumeChoice(
                study_uid=STUDY_UID, slice_uid=slice_uid, told="", by="ann", version=2
            )
            stores.volume_choices.add(choice)
        convert_study(study_tasks([folder], stores)[0])
        write_mask(stores, neck_mask())
        CropMaker(stores, CROPS, labels, boxes).make(STUDY_UID)
        said.append(predict_stored(stores, STUDY_UID, spot_ensemble()))
    assert [note["volume"] for note in said] == [1, 2, 1]
    suspicious = [note["probabilities"][LEVEL] > 0.5 for note in said]
    assert suspicious == [True, False, True]
    assert ["reader has chosen" in note["notes"][0] for note in said] == [
        False, True, True,
    ]  # fmt: skip
    assert said[0]["content_hash"] == said[2]["content_hash"] != said[1]["content_hash"]


def fields(note: Mapping[str, Any]) -> Iterator[str]:
    """Yield the name of every field, at any depth; names that are data apart."""
    for name, value in note.items():
        yield name
        parts = value.values() if name in _NAMED else [value]
        for part in parts:
            if isinstance(part, Mapping):
                yield from fields(part)


def test_every_field_is_documented(
    source: Path, stores: Stores, tmp_path: Path
) -> None:
    told = predict(source, tmp_path / "out", -0.5, 0.5)
    kept = predict_stored(stores, STUDY_UID, spot_ensemble(-0.5, 0.5))
    names = {*fields(told), *fields(kept)}
    assert {"at_operating_point", "sop_instance_uid", "made_from", "is_cut"} <= names
    assert [name for name in sorted(names) if f"`{name}`" not in PAGE] == []


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 3])
def test_the_box_touches_the_fracture_of_a_phantom(index: int, tmp_path: Path) -> None:
    labels = {name: int(name == "C5") for name in LEVEL_NAMES}
    config = PhantomConfig(studies=4, metal_share=0.0)
    volume = build_phantom_volume(config, index, labels=labels)
    true = [box for box in volume.boxes if box.level == "C5"]
    middle = true[len(true) // 2]
    rows = slice(int(middle.y), int(middle.y + middle.height))
    columns = slice(int(middle.x), int(middle.x + middle.width))
    volume.hounsfield[middle.slice_index, rows, columns] = 2500
    uid = volume.plan.study_uid
    folder = tmp_path / "source" / "train_images" / uid
    folder.mkdir(parents=True)
    plain = PixelStyle(pydicom.uid.ExplicitVRLittleEndian, True, 16, -1024, False)
    write_dicom_series(volume, plain, folder)
    mask = np.where(volume.mask <= len(LEVEL_NAMES), volume.mask, 0).astype(np.uint8)
    if volume.z_step_mm > 0:
        mask = mask[::-1]
    out, source = tmp_path / "out", str(tmp_path / "source")
    predictor = known_mask(np.ascontiguousarray(mask))
    list(predict_input(source, out, predictor, spot_ensemble(), print, Reading()))
    found = json.loads((out / f"{uid}.json").read_text())["evidence"]["C5"]
    names = {
        pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID: file.stem
        for file in folder.iterdir()
    }
    # Files of a phantom are named by their instance numbers, from 1.
    shown = int(names[found["sop_instance_uid"]]) - 1
    assert abs(shown - middle.slice_index) <= 1
    box = found["box_px"]
    assert box["x"] < middle.x + middle.width
    assert box["x"] + box["width"] > middle.x
    assert box["y"] < middle.y + middle.height
    assert box["y"] + box["height"] > middle.y
