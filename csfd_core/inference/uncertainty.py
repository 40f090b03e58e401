"""How sure an ensemble is of a study: do its members agree, is an answer certain?"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from csfd_core.classification.card import What
from csfd_core.classification.ensemble import threshold_of, what_is
from csfd_core.evaluation.conformal import Answer, AnswerBounds
from csfd_core.vocabulary import LABEL_COLUMNS, OVERALL


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What the members of an ensemble say of one level, or of the whole study."""

    lowest: float
    highest: float
    at_operating_point: bool  # some members are above it, and some below


def spreads_of(
    said: npt.NDArray[np.float64],
    thresholds: Mapping[str, float],
    assessed: Collection[str],
) -> dict[str, Spread | None]:
    """Return the spread of each level and of ``patient_overall``.

    ``None`` where there is none: of a single member, and of levels that were not
    assessed, as the members have not seen them.

    Args:
        said: Probabilities of each member, columns as in ``LABEL_COLUMNS``, (M, 8).
        thresholds: Operating points of the ensemble.
        assessed: The levels that it has judged.
    """
    spreads: dict[str, Spread | None] = dict.fromkeys(LABEL_COLUMNS)
    for name, column in zip(LABEL_COLUMNS, said.T, strict=True):
        is_assessed = bool(assessed) if name == OVERALL else name in assessed
        if len(column) < 2 or not is_assessed:
            continue
        above = column >= threshold_of(thresholds, name)
        spreads[name] = Spread(
            lowest=round(float(column.min()), 6),
            highest=round(float(column.max()), 6),
            at_operating_point=bool(above.any() and not above.all()),
        )
    return spreads


def answers_of(
    probabilities: Mapping[str, float | None], bounds: Mapping[What, AnswerBounds]
) -> dict[str, Answer | None]:
    """Return what each probability leaves open, by name.

    ``None`` of a level that was not assessed, and of all where there are no bounds.

    Args:
        probabilities: Of ``patient_overall`` and C1 to C7.
        bounds: Of the ensemble.
    """
    return {
        name: bounds[what_is(name)].answer(value)
        if bounds and value is not None
        else None
        for name, value in probabilities.items()
    }


def spreads_to_json(spreads: Mapping[str, Spread | None]) -> dict[str, Any]:
    """Return spreads as they stand in the JSON of a prediction."""
    return {name: s if s is None else asdict(s) for name, s in spreads.items()}
