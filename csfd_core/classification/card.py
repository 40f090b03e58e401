"""The card of a classifier: what it was made from, and how it is calibrated."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

import pydantic

from csfd_core.classification.config import NONE, ClassifierConfig
from csfd_core.classification.reference import Reference
from csfd_core.data_kind import DataKind
from csfd_core.evaluation.calibration import Calibration
from csfd_core.evaluation.conformal import AnswerBounds
from csfd_core.evaluation.metrics import OperatingPoint
from csfd_core.evaluation.study_calibration import StudyCalibration
from csfd_core.learning.card import ModelCard, Score
from csfd_core.learning.outcomes import StopReason
from csfd_core.learning.splits import Split, learnt_from

# As cards of schema version 1 said why a training had stopped.
_STOPPED: Final = {
    "": StopReason.ALL_EPOCHS,
    "no lower validation loss": StopReason.NO_IMPROVEMENT,
    "the loss was not a number": StopReason.NOT_A_NUMBER,
}


def _undefined_as_nan(point: object) -> object:
    if not isinstance(point, Mapping):
        return point
    return {name: math.nan if v is None else v for name, v in point.items()}


def _of_older_cards(config: object) -> object:
    """Nothing could start from trained weights before there was a setting for it."""
    return {"initial": NONE, **config} if isinstance(config, Mapping) else config


What = Literal["vertebra", "overall"]  # of which a probability is told
WHATS: Final[tuple[What, ...]] = ("vertebra", "overall")
Point = Annotated[OperatingPoint, pydantic.BeforeValidator(_undefined_as_nan)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrations:
    """What the held-out fold has taught of a classifier's logits.

    Attributes:
        vertebra: From the logit of a vertebra to its probability.
        overall: From the vertebrae of a study to its probability.
    """

    vertebra: Calibration
    overall: StudyCalibration


class ClassifierCard(ModelCard):
    """What a classifier says of itself.

    Attributes:
        model: Name in the registry of classifiers.
        config: How it was trained.
        start: What it started from: ``weights``, and their ``digest``.
        crop: Settings of the crops that it sees.
        training_studies: By study, the identity of its crops.
        validation_studies: The same, of the held-out fold.
        test_studies: The same, of the locked test set; ``None``: of an older card.
        label_digests: Of training and validation studies, a character per level; see
            ``trained_labels``.
        manifest: Digest of the training manifest.
        data_kind: What it was trained on: phantom, mixed or real.
        calibration: Of vertebrae and studies, fitted on the held-out fold.
        thresholds: Operating points, chosen there.
        bounds: Between which probabilities an answer is not certain, found there; {}:
            of an older card.
        prevalence: Of each level, and of fractured studies, among the training studies.
        reference: What the training studies look like, and how far an ordinary study
            lies from them; ``None``: of an older card, or of too few studies.
        parameters: Number of weights.
        disk_bytes: Of the weights as they are kept.
        train_s: How long the training took.
        ms_per_study: From crops in memory to logits.
        trained_at: UTC; empty: of an older card.
        weights_sha256: Of their file; ``None``: of an older card.
    """

    kind: ClassVar[str] = "a classifier"
    # 4: its files had no mark; 3: without a reference; 2: a study had a temperature
    newest: ClassVar[int] = 5

    schema_version: int = newest
    model: str
    config: Annotated[ClassifierConfig, pydantic.BeforeValidator(_of_older_cards)]
    start: dict[str, str]
    crop: dict[str, int | float]
    training_studies: dict[str, str]
    validation_studies: dict[str, str]
    test_studies: dict[str, str] | None = None
    label_digests: dict[str, str] = {}
    manifest: str
    data_kind: DataKind
    calibration: Calibrations
    thresholds: dict[What, Point]
    bounds: dict[What, AnswerBounds] = {}
    prevalence: dict[str, float]
    reference: Reference | None = None
    parameters: int | None = None
    disk_bytes: int | None = None
    train_s: Score = math.nan
    ms_per_study: Score = math.nan
    trained_at: str = ""
    weights_sha256: str | None = None

    @property
    def weights(self) -> str:
        """What the backbone started from; ``none``: from nothing."""
        return self.start["weights"]

    @property
    def started_from(self) -> str:
        """Return the weights that the training started from."""
        return self.weights

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings of the training as JSON values."""
        return dict(self.model_dump(mode="json", include={"config"})["config"])

    @property
    def age(self) -> tuple[str, int]:
        """Return what the newest card has the most of.

        Of cards without a date, the newest is the one that has learnt from most
        studies.
        """
        return self.trained_at, len(learnt_from([self]))

    def contents(self, split: Split) -> Mapping[str, str]:
        """Return the identity of each study's crops, as they were seen."""
        return {
            Split.TRAINING: self.training_studies,
            Split.VALIDATION: self.validation_studies,
            Split.TEST: self.test_studies or {},
        }[split]

    @classmethod
    def upgraded(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a card of an older schema version as they are now."""
        version = values.get("schema_version", 1)
        if version < 3:
            values = {**values, "calibration": _with_weights(values["calibration"])}
        if version > 1:
            return dict(values)
        stopped = values.get("stopped")
        prose = re.sub(r" in .*", "", stopped or "")  # without epochs
        return {
            **values,
            # The first networks did not average over views.
            "config": {"average_views": False, **values["config"]},
            "stopped": None if stopped is None else _STOPPED[prose],
        }


def _with_weights(calibration: Mapping[str, Any]) -> dict[str, Any]:
    """Return the calibrations of a card up to schema version 2.

    A study had a temperature and a bias of the logit of ``1 - Π(1 - pᵢ)``.
    """
    overall = dict(calibration["overall"])
    weight = 1 / overall.pop("temperature", 1.0)
    return {**calibration, "overall": {**overall, "any_weight": weight}}
