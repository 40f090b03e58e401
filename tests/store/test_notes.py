"""Notes of the stores: older versions are read, those of a newer csfd refused."""

import hashlib
import json
from typing import Any

import pytest

from csfd_core.dicom.geometry import VolumeGeometry
from csfd_core.errors import StoreError
from csfd_core.store.notes import (
    CropNote,
    GivenMaskNote,
    Note,
    PredictedMaskNote,
    SliceNote,
)
from csfd_core.store.slices import ConversionSettings
from csfd_core.store.stamp import is_current, stamp

AFFINE = [[0, 0, 1.5, 0], [0, 1.5, 0, 0], [-2.0, 0, 0, 8], [0, 0, 0, 1.0]]
GRID: dict[str, Any] = {
    "study_uid": "1.2.3",
    "content_hash": "c",
    "shape_zyx": [5, 16, 16],
    "spacing_zyx_mm": [2.0, 1.5, 1.5],
    "affine_lps": AFFINE,
    "z_extent_mm": 8.0,
    "z_descending": True,
}
# What later ones know besides.
LATER: dict[type[Note], dict[str, Any]] = {CropNote: {"spacing_zyx_mm": None}}
# As csfd 0.1.0 wrote them: without a version.
FIRST: dict[type[Note], dict[str, Any]] = {
    SliceNote: {
        **GRID,
        "conversion": {
            "format": 1,
            "jpeg_quality": 96,
            "window": {"center_hu": 400.0, "width_hu": 1800.0},
        },
        "encoder": "simplejpeg 1.9.0",
    },
    GivenMaskNote: {**GRID, "format": 1, "mask_hash": "m"},
    PredictedMaskNote: {
        **GRID,
        "format": 1,
        "fold": 0,
        "model_id": "fold0-abc",
        "standing": "out_of_fold",
        "levels": {
            "C3": {
                "volume_ml": 8.25,
                "confidence": 0.97,
                "is_cut": False,
                "centre_zyx_mm": [40.0, 80.5, 79.0],
            }
        },
        "flags": ["C4 is missing between its neighbours."],
    },
    CropNote: {
        "study_uid": "1.2.3",
        "inputs": "i",
        "crop": {"format": 1, "side_px": 96, "neighbours": 1},
        "model_id": "fold0-abc",
        "standing": "out_of_fold",
        "levels": ["C3"],
    },
}


@pytest.mark.parametrize("kind", FIRST)
def test_notes_of_the_first_csfd_are_read_and_kept_whole(kind: type[Note]) -> None:
    note = kind.read(FIRST[kind], "x.parquet")
    assert note.to_json() == {
        **FIRST[kind],
        **LATER.get(kind, {}),
        "schema_version": 1,
    }
    assert kind.read(json.loads(json.dumps(note.to_json())), "x.parquet") == note


def test_a_note_of_a_newer_csfd_is_refused() -> None:
    with pytest.raises(StoreError, match="note of version 2, this csfd reads up to 1"):
        CropNote.read({**FIRST[CropNote], "schema_version": 2}, "crops/1.2.3.parquet")


def test_a_note_that_lacks_something_names_it() -> None:
    lacking = {k: v for k, v in FIRST[CropNote].items() if k != "inputs"}
    with pytest.raises(StoreError, match=r"1\.2\.3\.parquet cannot be used: inputs"):
        CropNote.read(lacking, "crops/1.2.3.parquet")


def test_geometry_and_conversion_come_back_as_they_were() -> None:
    note = SliceNote.read(FIRST[SliceNote], "x")
    assert note.geometry == VolumeGeometry(
        shape_zyx=(5, 16, 16),
        spacing_zyx_mm=(2.0, 1.5, 1.5),
        affine_lps=tuple(tuple(row) for row in AFFINE),
        z_extent_mm=8.0,
        z_descending=True,
    )
    assert note.conversion == ConversionSettings().to_note()
    assert note.conversion != ConversionSettings(jpeg_quality=95).to_note()


def test_what_was_made_from_something_else_is_not_current() -> None:
    note = GivenMaskNote.read(FIRST[GivenMaskNote], "x")
    assert is_current(note, content_hash="c", mask_hash="m")
    assert not is_current(note, content_hash="c", mask_hash="other")
    assert not is_current(None, content_hash="c")


def test_a_stamp_is_the_digest_of_sorted_json() -> None:
    facts = {"b": [1, None], "a": "x"}
    text = '{"a": "x", "b": [1, null]}'
    assert stamp(facts) == hashlib.sha256(text.encode()).hexdigest()
    assert stamp(dict(reversed(facts.items()))) == stamp(facts)
