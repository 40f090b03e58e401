"""Builder: a study with one very dense spot in a vertebra, and a classifier of spots.

The spot stands for a fracture whose place is known to the voxel. The stack can lie in
any orientation; the voxels stay what they are.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from csfd_core.classification.classifier import Classifier, CropShape
from csfd_core.classification.config import ClassifierConfig
from csfd_core.classification.ensemble import Ensemble
from csfd_core.classification.validation import Logits
from csfd_core.classification.vertebrae import Vertebra
from csfd_core.crops.cutting import CropConfig
from csfd_core.segmentation.bundle import ModelBundle
from csfd_core.segmentation.postprocess import LevelFinding, Review
from csfd_core.segmentation.predict import Prediction, VertebraPredictor
from csfd_core.store.locations import Location
from csfd_core.vocabulary import BONE_WINDOW, LEVEL_NAMES
from support.cards import classifier_card, segmentation_card
from support.dicom_studies import (
    SLICE_MM,
    neck_hounsfield,
    neck_mask,
    write_study,
)
from support.drawn_crops import BrightClassifier

Box = tuple[slice, slice, slice]
Directions = tuple[Sequence[float], Sequence[float]]

CROPS = CropConfig(slices=12, neighbours=1, side_px=80, pixel_mm=0.5, margin_mm=1.0)
LEVEL = "C4"
SPOT: Box = (slice(12, 13), slice(40, 46), slice(25, 31))  # within the bone of C4
ROWS, COLUMNS = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
SPACING_MM = (1.25, 1.5)  # between rows, between columns
_BONE = (700 - BONE_WINDOW.center_hu) / BONE_WINDOW.width_hu + 0.5  # of the grey levels


class SpotClassifier(BrightClassifier):
    """Sees what is denser than bone, from 0 at bone to 1 at the top of the window."""

    def __init__(self, shift: float = 0.0) -> None:
        crop = CropShape.of(CROPS.to_note())
        super().__init__(ClassifierConfig(), crop, Location("."))
        self.shift = shift

    def logits(self, vertebrae: Sequence[Vertebra]) -> Logits:
        peaks = [float(self.heat(vertebra).max()) for vertebra in vertebrae]
        return np.array([4 * peak - 2 + self.shift for peak in peaks])

    def heat(self, vertebra: Vertebra) -> npt.NDArray[np.float32]:
        grey = vertebra.images[:, CROPS.neighbours].astype(np.float32) / 255
        return np.clip((grey - _BONE) / (1 - _BONE), 0, 1)


def spot_ensemble(*shifts: float) -> Ensemble:
    """One member for each shift of the logits."""
    members: list[Classifier] = [SpotClassifier(shift) for shift in shifts or (0.0,)]
    card = classifier_card(crop=CROPS.to_note())
    return Ensemble(name="spots", members=members, cards=[card] * len(members))


class _KnownMask:
    bundle = ModelBundle(card=segmentation_card(model_id="known"), weights=[])
    step_mm = 1.5

    def __init__(self, mask: npt.NDArray[np.uint8]) -> None:
        self._mask = mask

    def predict(self, volume: object) -> Prediction:
        levels = tuple(
            LevelFinding(
                level=name,
                volume_ml=9.0,
                confidence=0.9,
                centre_zyx_mm=(20.0, 60.0, 40.0),
                is_cut=False,
            )
            for label, name in enumerate(LEVEL_NAMES, start=1)
            if (self._mask == label).any()
        )
        review = Review(levels=levels, flags=("C5 is <squeezed>.",))
        return Prediction(mask=self._mask, review=review, seconds={})


def known_mask(mask: npt.NDArray[np.uint8] | None = None) -> VertebraPredictor:
    """In place of a segmentation: a mask, head to feet; by default the builder's."""
    found = neck_mask() if mask is None else mask
    return cast(VertebraPredictor, _KnownMask(found))


def spot_hounsfield() -> npt.NDArray[np.int16]:
    volume = neck_hounsfield()
    volume[SPOT] = 2000
    return volume


def write_spot_study(
    source: Path,
    rows: Sequence[float] = ROWS,
    columns: Sequence[float] = COLUMNS,
    *,
    feet_first: bool = False,
) -> Path:
    """Write the study as a stack whose rows and columns run in any directions.

    Args:
        source: Folder of the source.
        rows: Direction along a row, in LPS.
        columns: Direction along a column.
        feet_first: The first file is the lowest slice.
    """
    to_head = np.cross(rows, columns)
    to_head = to_head if to_head[np.argmax(np.abs(to_head))] > 0 else -to_head
    count = len(spot_hounsfield())

    def edit(dataset: Dataset) -> None:
        number = int(dataset.InstanceNumber)
        index = count - number if feet_first else number - 1
        place = np.array([-48.0, -40.0, 100.0]) - index * SLICE_MM * to_head
        dataset.ImagePositionPatient = [round(float(v), 6) for v in place]
        dataset.ImageOrientationPatient = [*rows, *columns]
        dataset.PixelSpacing = list(SPACING_MM)

    return write_study(
        source, hounsfield=spot_hounsfield(), z_descending=not feet_first, edit=edit
    )
