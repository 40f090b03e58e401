"""The card of a segmentation model: its networks, and what they were made from."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar

from csfd_core.learning.card import ModelCard, Score
from csfd_core.learning.splits import Split
from csfd_core.segmentation.config import FORMAT, ModelConfig, TrainingConfig

Seen = tuple[str | None, str | None]  # identities of a study's slices and its mask


class SegmentationCard(ModelCard):
    """What a segmentation model says of itself.

    Attributes:
        networks: Locator and segmenter.
        training: How they were trained; ``None``: the model that comes with csfd.
        initial: Identity of the model that the training started from.
        training_studies: By study, the identities of its slices and its mask.
        validation_studies: The same, of the held-out fold.
        seconds: How long the training took.
        training_data: What it learnt from, where that was no store.
        validation_dice_on_grid: Of the weights that were kept, where no history is.
        notice: For whoever uses it.
    """

    kind: ClassVar[str] = "a segmentation model"
    newest: ClassVar[int] = 3  # 2: its files had no mark

    schema_version: int = newest
    networks: ModelConfig
    training: TrainingConfig | None = None
    initial: str | None = None
    training_studies: dict[str, Seen] = {}
    validation_studies: dict[str, Seen] = {}
    seconds: Score = math.nan
    training_data: str | None = None
    validation_dice_on_grid: float | None = None
    notice: str | None = None

    @property
    def started_from(self) -> str | None:
        """Return the identity of the model that the training started from."""
        return self.initial

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings of the training as JSON values."""
        return {} if self.training is None else asdict(self.training)

    def contents(self, split: Split) -> Mapping[str, Seen]:
        """Return the identities of each study's slices and mask, as they were seen."""
        return {
            Split.TRAINING: self.training_studies,
            Split.VALIDATION: self.validation_studies,
            Split.TEST: {},  # they take no part
        }[split]

    @classmethod
    def upgraded(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a card as they are called since schema version 2."""
        if values.get("schema_version", 1) > 1:
            return dict(values)
        networks = dict(values["config"])
        if (received := networks.pop("format")) != FORMAT:
            raise ValueError(f"`format` must be {FORMAT}. Received: {received}.")
        return {**values["facts"], "networks": networks}
