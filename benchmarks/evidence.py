"""Does the box of a fracture that was found touch the true fracture?

New phantoms, which no model has seen, take the way of ``csfd predict --model general``:
DICOM files, vertebrae and probabilities by what comes with csfd. A fracture is found
where its vertebra is above the operating point. Its box touches it where the two
overlap on the very slice that the box names. What a box of the same size would touch,
put on any place of the same vertebra, is measured beside it.
"""

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Result, spread
from benchmarks.studies import write_copy
from csfd_core.classification.ensemble import Ensemble
from csfd_core.inference.predict import predict_input
from csfd_core.inference.reading import Reading
from csfd_core.phantom.config import PhantomConfig
from csfd_core.phantom.volume import FractureBox, PhantomVolume, build_phantom_volume
from csfd_core.registry.serving import open_general
from csfd_core.segmentation.bundle import builtin_location, read_bundle
from csfd_core.segmentation.predict import VertebraPredictor
from csfd_core.vocabulary import LEVEL_NAMES

STUDIES = 100
SEED = 7  # no model has learnt from it
LEAST_TOUCHED = 0.85
_RANDOM_BOXES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle on a slice, in pixels, and the slice as the phantom counts."""

    slice_index: int
    x: float
    y: float
    width: float
    height: float

    def touches(self, other: FractureBox) -> bool:
        """Whether the two overlap on one slice."""
        return (
            self.slice_index == other.slice_index
            and self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )

    def moved_to(self, place: Sequence[int]) -> "Box":
        """Return a box of the same size around a voxel (slice, row, column)."""
        index, row, column = place
        return Box(
            slice_index=int(index),
            x=column + 0.5 - self.width / 2,
            y=row + 0.5 - self.height / 2,
            width=self.width,
            height=self.height,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fracture:
    """A fracture, and what was said of its vertebra."""

    site: str
    is_found: bool
    touches: bool
    middle_is_in: bool  # the middle of the box lies in the true one
    by_chance: float  # share of boxes elsewhere on the vertebra that touch
    box_mm: float  # mean side
    true_mm: float


def run() -> Result:
    """Predict new phantoms; compare boxes with the fractures that were drawn."""
    ensemble = open_general()
    predictor = VertebraPredictor(read_bundle(builtin_location()))
    config = PhantomConfig(studies=STUDIES, seed=SEED)
    fractures: list[Fracture] = []
    for index in range(STUDIES):
        volume = build_phantom_volume(config, index)
        if any(volume.labels.values()):
            note = _predict(volume, index, ensemble, predictor)
            fractures += _compare(volume, note)
            print(f"{index + 1} studies, {len(fractures)} fractures", file=sys.stderr)
    found = [one for one in fractures if one.is_found]
    touched = _share(found, "touches")
    return Result(
        question="of the fractures that are found, for how many does the box touch the "
        "true one on the slice that it names?",
        target=f"at least {LEAST_TOUCHED:.0%}",
        met=touched >= LEAST_TOUCHED,
        data=f"{STUDIES} new demo phantoms, judged by what comes with csfd",
        measured={
            "fractures": len(fractures),
            "found": len(found),
            "touched": touched,
            "middle_within": _share(found, "middle_is_in"),
            "touched_by_chance": _share(found, "by_chance"),
            "touched_of_all": _share(fractures, "touches"),
            "side_of_boxes_mm": spread([one.box_mm for one in found] or [0.0], 1),
            "side_of_true_boxes_mm": spread([o.true_mm for o in found] or [0.0], 1),
            "missed_sites": sorted(one.site for one in found if not one.touches),
        },
    )


def _predict(
    volume: PhantomVolume, index: int, ensemble: Ensemble, predictor: VertebraPredictor
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "source", Path(folder) / "out"
        study_uid = write_copy(source, volume, index)
        done = predict_input(
            str(source), out, predictor, ensemble, lambda _: None, Reading()
        )
        refused = [study.message for study in done if study.message]
        assert not refused, refused
        note: dict[str, Any] = json.loads((out / f"{study_uid}.json").read_text())
        return note


def _compare(volume: PhantomVolume, note: Mapping[str, Any]) -> list[Fracture]:
    """Compare every fracture that the scan shows and whose vertebra was assessed."""
    fractures = []
    for level, site in volume.fractures.items():
        true = [box for box in volume.boxes if box.level == level]
        found = note["evidence"].get(level)
        if not (true and found):
            continue
        box = _box_of(volume, found)
        on_slice = [other for other in true if box.touches(other)]
        point = Box(
            slice_index=box.slice_index,
            x=box.x + box.width / 2,
            y=box.y + box.height / 2,
            width=1e-6,
            height=1e-6,
        )
        step = (volume.spacing_zyx_mm[1] + volume.spacing_zyx_mm[2]) / 2
        fractures.append(
            Fracture(
                site=site,
                is_found=level in note["suspicious"],
                touches=bool(on_slice),
                middle_is_in=any(point.touches(other) for other in true),
                by_chance=_by_chance(volume, level, box, true),
                box_mm=step * (box.width + box.height) / 2,
                true_mm=step * float(np.mean([(b.width + b.height) / 2 for b in true])),
            )
        )
    return fractures


def _box_of(volume: PhantomVolume, evidence: Mapping[str, Any]) -> Box:
    """Return the box of an evidence, its slice as the phantom counts."""
    index = int(evidence["slice_index"])  # from the head
    if volume.z_step_mm > 0:
        index = len(volume.hounsfield) - 1 - index
    return Box(slice_index=index, **evidence["box_px"])


def _by_chance(
    volume: PhantomVolume, level: str, box: Box, true: Sequence[FractureBox]
) -> float:
    """Return how often a box of this size touches, anywhere on the vertebra."""
    places = np.argwhere(volume.mask == LEVEL_NAMES.index(level) + 1)
    rng = np.random.default_rng(len(places))
    drawn = places[rng.integers(len(places), size=_RANDOM_BOXES)]
    hits = [any(box.moved_to(place).touches(one) for one in true) for place in drawn]
    return float(np.mean(hits))


def _share(fractures: Sequence[Fracture], name: str) -> float:
    values = [float(getattr(one, name)) for one in fractures]
    return round(float(np.mean(values)), 3) if values else 0.0
