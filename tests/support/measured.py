"""Builder: studies as they are measured, drawn from a law that a test knows."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from csfd_core.classification.ensemble import Ensemble
from csfd_core.classification.reference import Reference, learn_reference
from csfd_core.classification.study_facts import LEVEL_FACTS, MeasuredStudy

QUIET_LOGITS = np.array([-4.0, -3.5, -3.0, -2.5, -2.0, -1.5, -1.0])


def draw_study(rng: np.random.Generator, **shifts: float) -> MeasuredStudy:
    """A study whose levels differ from each other, and from those of other studies.

    ``shifts`` are added to the facts of all levels, to ``pixel`` or to ``gap``.
    """
    own = rng.normal(0, 1, len(LEVEL_FACTS))
    levels = {
        name: np.arange(7) + value + rng.normal(0, 0.3, 7) + shifts.get(name, 0.0)
        for name, value in zip(LEVEL_FACTS, own, strict=True)
    }
    levels["spacing"][0] = np.nan
    return MeasuredStudy(
        levels=levels,
        pixel=float(rng.normal(-0.2, 0.1)) + shifts.get("pixel", 0.0),
        gap=float(rng.normal(0.5, 0.1)) + shifts.get("gap", 0.0),
    )


def draw_studies(count: int, seed: int) -> list[MeasuredStudy]:
    rng = np.random.default_rng(seed)
    return [draw_study(rng) for _ in range(count)]


def draw_logits(count: int, seed: int) -> npt.NDArray[np.float64]:
    """Logits of the levels of each study, (count, 7)."""
    rng = np.random.default_rng(seed)
    return QUIET_LOGITS + rng.normal(0, 0.5, (count, 1))


def drawn_reference(training: int = 60, held_out: int = 40, seed: int = 0) -> Reference:
    found = learn_reference(
        draw_studies(training, seed),
        draw_studies(held_out, seed + 1),
        draw_logits(held_out, seed + 2),
    )
    assert found is not None
    return found


def with_limits(ensemble: Ensemble, limits: Sequence[float]) -> Ensemble:
    """The ensemble with a reference for each member, and this limit."""
    reference = drawn_reference()
    cards = [
        card.model_copy(update={"reference": replace(reference, limit=limit)})
        for card, limit in zip(ensemble.cards, limits, strict=True)
    ]
    return replace(ensemble, cards=cards)
