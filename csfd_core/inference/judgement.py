"""What an ensemble says of one study: how likely, how surely, and where.

A ``JudgedScan`` is all that was seen of a study while it is in memory. What is written
beside the JSON of a prediction, heatmaps and pages, is made from it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from csfd_core.classification.assessment import Assessment
from csfd_core.classification.card import What
from csfd_core.classification.ensemble import Ensemble, mean_of_members
from csfd_core.classification.manifest import LEAST_VISIBLE
from csfd_core.classification.study_facts import SeenStudy
from csfd_core.classification.unlike import Unlike
from csfd_core.classification.vertebrae import Vertebra
from csfd_core.crops.boxes import Affine
from csfd_core.crops.study import MaskedStudy, cut_vertebrae, visible_shares
from csfd_core.dicom.geometry import VolumeGeometry
from csfd_core.evaluation.conformal import Answer, AnswerBounds
from csfd_core.inference.evidence import LevelHeat, evidence_to_json
from csfd_core.inference.uncertainty import Spread, answers_of, spreads_of
from csfd_core.ingest.scan import StudyScan


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What an ensemble says of the vertebrae of a study.

    Attributes:
        said: Probabilities of each member, columns as in ``LABEL_COLUMNS``, (M, 8).
        assessed: The levels that it has judged.
        heats: Where it suspects fractures, of those whose place in the study is known.
        thresholds: Its operating points.
        bounds: Between which its answers are not certain; {}: not known.
        unlike: How far the study lies from what it has learnt from.
    """

    said: npt.NDArray[np.float64]
    assessed: tuple[str, ...]
    heats: tuple[LevelHeat, ...]
    thresholds: Mapping[str, float]
    bounds: Mapping[What, AnswerBounds]
    unlike: Unlike

    @property
    def assessment(self) -> Assessment:
        """The mean of the members, of what was assessed."""
        return Assessment.of(mean_of_members(self.said), self.assessed)

    @property
    def spreads(self) -> dict[str, Spread | None]:
        """How far the members agree on each level and on the whole study."""
        return spreads_of(self.said, self.thresholds, self.assessed)

    @property
    def answers(self) -> dict[str, Answer | None]:
        """What is certain of each level and of the whole study.

        Nothing is, where the study is unlike those that the bounds were found on.
        """
        told = answers_of(self.assessment.probabilities, self.bounds)
        if not self.unlike.is_above:
            return told
        return {name: answer and Answer.UNDECIDED for name, answer in told.items()}

    def evidence(
        self, geometry: VolumeGeometry, sop_uids: Sequence[str | None]
    ) -> dict[str, Any]:
        """Return where the strongest place of each level lies, as in the JSON.

        Args:
            geometry: Of the study.
            sop_uids: SOPInstanceUID of each of its slices, head to feet.
        """
        by_level = evidence_to_json(self.heats, geometry, sop_uids)
        return {level: by_level.get(level) for level in self.assessed}


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedScan:
    """One study and what an ensemble says of it.

    Attributes:
        scan: Headers, findings and notes.
        study: Grey levels, mask and geometry.
        judgement: What the ensemble says.
        note: The JSON of the prediction.
        out: Folder of the results.
    """

    scan: StudyScan
    study: MaskedStudy
    judgement: Judgement
    note: Mapping[str, Any]
    out: Path

    @property
    def name(self) -> str:
        """What its files are called."""
        return self.scan.name


WriteBeside = Callable[[JudgedScan], None]


def judge_study(study: MaskedStudy, ensemble: Ensemble) -> Judgement:
    """Cut the vertebrae of a study, and judge those that show enough."""
    shares = visible_shares(study.levels)
    crops = [
        crop
        for crop in cut_vertebrae(study, ensemble.crop)
        if shares.get(crop.level, 1.0) >= LEAST_VISIBLE
    ]
    vertebrae = {
        crop.level: Vertebra(
            images=crop.images,
            masks=crop.masks,
            heights_mm=crop.middles_mm,
            boxes=None,
        )
        for crop in crops
    }
    affines = {crop.level: crop.affine_lps for crop in crops}
    seen = SeenStudy(
        vertebrae=vertebrae,
        confidences={name: level.confidence for name, level in study.levels.items()},
        shares=shares,
        spacing_zyx_mm=study.geometry.spacing_zyx_mm,
        crop=ensemble.crop,
    )
    return judge_vertebrae(ensemble, seen, affines)


def judge_vertebrae(
    ensemble: Ensemble, seen: SeenStudy, affines: Mapping[str, Affine]
) -> Judgement:
    """Judge the vertebrae of a study.

    Args:
        ensemble: The classifier.
        seen: The vertebrae, and what else is seen of the study.
        affines: By level, from (crop, row, column, 1) to LPS mm, where that is known.
    """
    vertebrae = seen.vertebrae
    looked = ensemble.look(vertebrae)
    return Judgement(
        said=looked.said,
        unlike=ensemble.unlike(seen, looked.logits),
        assessed=tuple(vertebrae),
        heats=tuple(
            LevelHeat(
                level=level,
                heat=looked.heats[level],
                masks=vertebra.masks,
                affine_lps=affines[level],
            )
            for level, vertebra in vertebrae.items()
            if level in affines
        ),
        thresholds=ensemble.thresholds,
        bounds=ensemble.bounds,
    )
