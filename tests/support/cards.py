"""Builder: whole cards of trained models, of which a test names what matters to it."""

import json
from typing import Any

from csfd_core.classification.card import Calibrations, ClassifierCard
from csfd_core.classification.config import ClassifierConfig
from csfd_core.evaluation.calibration import Calibration
from csfd_core.evaluation.metrics import OperatingPoint
from csfd_core.evaluation.study_calibration import StudyCalibration
from csfd_core.segmentation.card import SegmentationCard
from csfd_core.segmentation.config import SMALL
from csfd_core.store.locations import Location
from csfd_core.vocabulary import LABEL_COLUMNS

PLAIN = Calibrations(vertebra=Calibration(), overall=StudyCalibration())


def kept_file(place: Location, kind: str, card: str = "card.json") -> str:
    """Name of the file that the card in a place speaks of."""
    mark = json.loads(place.read(card))["files_mark"]
    assert mark
    return kind.replace(".", f"-{mark}.")


def point_of(threshold: float, *, is_default: bool = False) -> OperatingPoint:
    return OperatingPoint(
        threshold=threshold,
        sensitivity=1.0,
        specificity=1.0,
        n=2,
        is_default=is_default,
    )


def classifier_card(**changes: Any) -> ClassifierCard:
    values: dict[str, Any] = {
        "model": "basic_cnn",
        "model_id": "m",
        "fold": 0,
        "inputs": "inputs",
        "config": ClassifierConfig(),
        "start": {"weights": "none", "digest": "of no network"},
        "crop": {"slices": 8, "neighbours": 1, "side_px": 96},
        "training_studies": {},
        "validation_studies": {},
        "manifest": "manifest",
        "data_kind": "phantom",
        "calibration": PLAIN,
        "thresholds": {"vertebra": point_of(0.2), "overall": point_of(0.5)},
        "prevalence": dict.fromkeys(LABEL_COLUMNS, 0.2),
        "code_version": "1",
    }
    return ClassifierCard.model_validate({**values, **changes})


def segmentation_card(**changes: Any) -> SegmentationCard:
    return SegmentationCard.model_validate(
        {"model_id": "m", "fold": 0, "networks": SMALL, **changes}
    )
