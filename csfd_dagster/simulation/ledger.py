"""What a simulation must show, and its table: one row a week."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pandas as pd

from csfd_core.classification.classifiers import CLASSIFIERS
from csfd_core.evaluation.folds import assign_folds
from csfd_core.learning.card import ModelCard
from csfd_core.learning.splits import learnt_among
from csfd_core.store.stores import Stores
from csfd_core.text import join
from csfd_dagster.simulation.plan import CORRECTED_AFTER, Week

_MODELS: Final = ("segmentation_model", *CLASSIFIERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeekFacts:
    """What happened in a week.

    Attributes:
        week: What had arrived.
        expected: Studies whose slices were new or had changed.
        made: Partitions or assets that were written anew, by asset.
        converted: Studies whose slices were written.
        studies: Good studies in the store, quarantined ones apart.
        quarantined: Studies that are not trusted.
        retraining: What the schedule said, when it did not start.
        decision: Of the champion; ``None``: no training.
        champion: Title of who serves afterwards.
    """

    week: Week
    expected: frozenset[str]
    made: Mapping[str, int]
    converted: frozenset[str]
    studies: int
    quarantined: int
    retraining: str | None
    decision: Mapping[str, Any] | None
    champion: str | None

    def row(self) -> dict[str, Any]:
        """Return the row of the table."""
        decision = self.decision or {}
        scores = decision.get("scores") or {}
        return {
            "week": self.week.number,
            "arrived": len(self.week.arrivals),
            "events": events_of(self.week),
            "good": self.studies,
            "quarantined": self.quarantined,
            "converted": len(self.converted),
            "crops": self.made.get("vertebra_crops", 0),
            "models": sum(self.made.get(name, 0) for name in _MODELS),
            "candidate": _score(scores, decision.get("challenger")),
            "champion": _score(scores, decision.get("champion")),
            "serves": self.champion or "nobody",
            "decision": decision.get("verdict") or self._told(),
        }

    def _told(self) -> str:
        """Say why there was no decision, without what the week does not need."""
        if self.retraining is None:
            return "no training: a fold has no study to stop by, or nothing has changed"
        return f"no training: {self.retraining.partition(' since ')[0]}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that a simulation must show, and whether it did."""

    holds: bool
    sentence: str


@dataclass(slots=True)
class Ledger:
    """Keeps the weeks, and where each study was locked or folded first."""

    weeks: list[WeekFacts] = field(default_factory=list)
    splits: dict[str, tuple[int, bool]] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)
    leaked: set[str] = field(default_factory=set)

    def note_splits(self, stores: Stores) -> None:
        """Compare the fold of every study with that of the weeks before."""
        table = assign_folds(stores.metadata.read_studies())
        for row in table.to_dict("records"):
            uid, split = str(row["study_uid"]), (int(row["fold"]), bool(row["is_test"]))
            if self.splits.setdefault(uid, split) != split:
                self.moved.add(uid)

    def note_learnt(self, cards: Sequence[ModelCard]) -> None:
        """Look for locked studies among those that trained, stopped or calibrated."""
        locked = {uid for uid, (_, is_test) in self.splits.items() if is_test}
        self.leaked |= learnt_among(cards, locked)

    def table(self) -> pd.DataFrame:
        """Return one row a week."""
        return pd.DataFrame([facts.row() for facts in self.weeks])

    def verdicts(self, kept_of_withdrawn: Sequence[str]) -> list[Verdict]:
        """Say what must hold, and whether it does.

        Args:
            kept_of_withdrawn: Files that the store still has of withdrawn studies.
        """
        wrong = [f.week.number for f in self.weeks if f.converted != f.expected]
        converted = sum(len(facts.converted) for facts in self.weeks)
        locked = sum(is_test for _, is_test in self.splits.values())
        return [
            Verdict(
                not wrong,
                f"{converted} conversions: those of new and changed studies, and no "
                "others" + (f", but for the weeks {wrong}." if wrong else "."),
            ),
            Verdict(
                not self.moved,
                f"{len(self.splits)} studies kept their fold and their place in or "
                f"outside the locked test set; {len(self.moved)} did not.",
            ),
            Verdict(
                not self.leaked,
                f"{len(self.leaked)} of {locked} locked test studies reached a "
                "training.",
            ),
            Verdict(
                not kept_of_withdrawn,
                f"{len(kept_of_withdrawn)} files of withdrawn studies are left in the "
                "store.",
            ),
            self._degraded(),
        ]

    def _degraded(self) -> Verdict:
        """Judge the models that were trained while the wrong labels were there."""
        (wrong,) = [f.week.number for f in self.weeks if f.week.is_degraded]
        decisions = {
            facts.week.number: facts.decision
            for facts in self.weeks
            if wrong <= facts.week.number < wrong + CORRECTED_AFTER and facts.decision
        }
        if not decisions:
            return Verdict(
                False, f"The wrong labels of week {wrong} trained no model to judge."
            )
        won = [number for number, decision in decisions.items() if decision["promoted"]]
        told = f"took over in the weeks {won}" if won else "were refused"
        return Verdict(
            not won,
            f"{len(decisions)} models that learnt from the wrong labels of week "
            f"{wrong} (weeks {join(decisions)}) {told}.",
        )


def events_of(week: Week) -> str:
    """Say in a few words what was special about a week."""
    counts = {
        "broken": len(week.damaged),
        "half-copied": int(week.half_copied is not None),
        "misread": len(week.misread),
        "repaired": len(week.repaired),
        "completed": int(week.completed is not None),
        "corrected": len(week.corrected),
        "copied again": len(week.again),
        "withdrawn": int(week.withdrawn is not None),
    }
    told = [f"{count} {name}" for name, count in counts.items() if count]
    if week.is_degraded:
        told.append("all labels wrong")
    return ", ".join(told) or "none"


def _score(scores: Mapping[str, Mapping[str, Any]], name: str | None) -> float | None:
    """Return the competition log loss of a contender, ``None`` where it has none."""
    if name is None or name not in scores:
        return None
    loss = scores[name].get("competition_log_loss")
    return None if loss is None else float(loss)
