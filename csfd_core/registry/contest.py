"""The contest: the best of a comparison is registered and meets the champion.

Both are judged as they would serve now. What was predicted at training counts as long
as the crops of a study are what they were; new test studies, and those that were cut
anew, are predicted again by whoever lacks them. The labels are today's, for both.

Every step can be repeated: a process that dies leaves the champion as it was, and the
next call takes up what is there. Should the champion change while it is measured, the
challenger meets the new one.
"""

import json
import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
import pandas as pd

from csfd_core.classification.classifier_store import (
    ClassifierStore,
    FoldResult,
)
from csfd_core.classification.ensemble_predictions import predictions_on_test_set
from csfd_core.classification.manifest import Manifest, labels_of, read_manifest
from csfd_core.classification.score_tables import mean_threshold
from csfd_core.classification.vertebrae import read_vertebrae
from csfd_core.errors import OvertakenError, SettingsError, StoreError
from csfd_core.learning.splits import Split
from csfd_core.registry.appointment import locked_studies_learnt_from, require_whole
from csfd_core.registry.champion import ChampionRegistry, Version
from csfd_core.registry.decision import (
    Condition,
    Contender,
    Decision,
    DecisionNote,
    PromotionConfig,
    refuse,
)
from csfd_core.registry.frozen import (
    NOTE,
    FrozenEnsemble,
    freeze,
    read_frozen,
    studies_learnt_from,
)
from csfd_core.registry.history import (
    Action,
    Alias,
    Change,
    ChangeKind,
    taken_back,
)
from csfd_core.registry.promotion import decide
from csfd_core.registry.serving import open_version
from csfd_core.store import paths
from csfd_core.store.notes import Note, named
from csfd_core.store.stamp import is_current
from csfd_core.store.stores import Stores
from csfd_core.text import capital, count
from csfd_core.vocabulary import LABEL_COLUMNS, OVERALL

if TYPE_CHECKING:
    from csfd_core.runtime.tracking import TrackedRun

_REPRODUCED: Final = 3  # studies
_MOST_CHALLENGES: Final = 5  # of one version, as the champion changes meanwhile
_SAME: Final = 0.02  # of a probability; half precision changes less than half of it
DECISION_TAG: Final = "csfd.decision"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """What came of a challenge."""

    challenger: Version
    champion: Version | None  # afterwards
    decision: Decision


class LastDecision(Note):
    """The last decision of a store, for whoever cannot ask MLflow."""

    at: Annotated[str, named("when")]
    version: int
    digest: str  # of the challenger's frozen ensemble
    inputs: tuple[str, ...]  # what each of its folds was trained from
    decision: DecisionNote


def hold_contest(
    registry: ChampionRegistry,
    model: str,
    run: "TrackedRun",
    config: PromotionConfig,
    by: str,
) -> Contest:
    """Register a classifier as challenger, decide, and move the title if it won.

    Args:
        registry: Of the store whose newest folds of the classifier are meant.
        model: Name in the registry of backbones.
        run: Holds the description of a new version, and the decision.
        config: What the challenger must reach.
        by: Who is recorded.

    Raises:
        SettingsError: If MLflow cannot be used, or lost the champion.
        StoreError: If the classifier is not there, or has no whole files.
    """
    stores = registry.stores
    registry.champion()  # or it is lost: that is not settled
    registry.settle()
    frozen = freeze(stores, model)
    run.log_files({f"ensemble/{NOTE}": frozen.to_bytes()})
    version = registry.register(frozen, run.run_id)
    before = registry.holder(Alias.CHALLENGER)
    if before is None or before.number != version.number:
        registry.move(
            Alias.CHALLENGER,
            version,
            Change(
                alias=Alias.CHALLENGER,
                after=version.number,
                model=model,
                action=Action.CONSIDER,
                kind=ChangeKind.DECISION,
                by=by,
                reason=f"{capital(version.title)} is the best of the comparison.",
            ),
        )
    contest = _challenge(registry, version, config, by)
    note = contest.decision.to_note()
    run.log_files({"decision.json": note.to_bytes()})
    _write_last(stores, frozen, version, note)
    return contest


def _challenge(
    registry: ChampionRegistry, version: Version, config: PromotionConfig, by: str
) -> Contest:
    """Let a version meet the champion, and whoever takes its place meanwhile."""
    for _ in range(_MOST_CHALLENGES):
        holder = registry.champion()
        decision = _decide(registry, holder, version, config)
        if holder is None or holder.number != version.number:
            told = json.dumps(decision.to_note().to_json())
            registry.tag(version, DECISION_TAG, told)
        if not decision.promoted:
            return Contest(challenger=version, champion=holder, decision=decision)
        change = _promotion(version, decision, by)
        measured = None if holder is None else holder.number
        try:
            registry.move(Alias.CHAMPION, version, change, measured)
        except OvertakenError:
            continue
        return Contest(challenger=version, champion=version, decision=decision)
    raise OvertakenError(
        f"The champion has changed {_MOST_CHALLENGES} times while {version.title} was "
        "compared with it. Nothing was promoted; materialize champion_model again."
    )


def is_settled(stores: Stores, model: str) -> bool:
    """Say whether the newest folds of a classifier have met the champion already.

    Asks the store only. New test studies and corrected labels are part of what the
    folds were made from, so they bring on a new contest.
    """
    last = read_decision(stores)
    models = ClassifierStore(stores.root)
    inputs = tuple(card.inputs for card in models.cards([model]))
    return is_current(last, inputs=inputs)


def read_decision(stores: Stores) -> LastDecision | None:
    """Return the last decision, ``None`` where there was none."""
    path = paths.LAST_DECISION
    content = stores.root.read_if_there(path)
    return None if content is None else LastDecision.read(json.loads(content), path)


def contender_of(
    registry: ChampionRegistry, version: Version, manifest: Manifest
) -> Contender:
    """Return a version with what it says of today's locked test set.

    Raises:
        StoreError: If its files are damaged.
        SettingsError: If studies must be predicted anew and the network cannot be had.
    """
    frozen = require_whole(registry, version)
    results = frozen.results(registry.stores)
    rows = manifest.usable[manifest.usable["is_test"]]
    studies = sorted(str(uid) for uid in rows["study_uid"].unique())
    predictions = predictions_on_test_set({version.model: results})
    fresh = _still_hold(rows, results, manifest) & set(predictions["study_uid"])
    parts = [predictions[predictions["study_uid"].isin(fresh)]]
    stale = [uid for uid in studies if uid not in fresh]
    if stale and results[0].card.crop == dict(manifest.crop):
        parts.append(_predict_anew(registry, version, rows, stale))
    frame = pd.concat(parts, ignore_index=True)
    return Contender(
        name=version.title,
        predictions=_relabelled(frame, manifest),
        thresholds={
            "vertebra": mean_threshold(results, "vertebra"),
            "overall": mean_threshold(results, "overall"),
        },
        ms_per_study=sum(r.card.ms_per_study for r in results),
        prevalence={
            name: float(np.mean([r.card.prevalence[name] for r in results]))
            for name in LABEL_COLUMNS
        },
        learnt_from=frozenset(studies_learnt_from(results)),
    )


def _decide(
    registry: ChampionRegistry,
    holder: Version | None,
    version: Version,
    config: PromotionConfig,
) -> Decision:
    """Return the decision; what cannot be compared is a reason to refuse."""
    title = None if holder is None else holder.title
    if holder is not None and holder.number == version.number:
        sentence = f"{capital(version.title)} is the champion already."
        return refuse(title, version.title, _unmet("is_new", sentence), config)
    by_hand = taken_back(registry.history(), version.number)
    if by_hand is not None:
        sentence = (
            f"{capital(version.title)} was champion until {by_hand.by} took the title "
            f"back on {by_hand.at[:10]} ({by_hand.reason.rstrip('.')}). Only csfd "
            f"champion promote {version.number} gives it back."
        )
        return refuse(title, version.title, _unmet("taken_back", sentence), config)
    manifest = read_manifest(registry.stores.root)
    challenger = contender_of(registry, version, manifest)
    frozen = read_frozen(registry.stores, version.digest)
    if leaked := locked_studies_learnt_from(registry.stores, frozen):
        seen = count(len(leaked), "study")
        sentence = (
            f"The challenger was trained or calibrated on {seen} of the locked test "
            f"set, first {leaked[0]}; there must be none."
        )
        return refuse(title, version.title, _unmet("unseen_test_set", sentence), config)
    try:
        champion = None if holder is None else contender_of(registry, holder, manifest)
    except (StoreError, SettingsError) as error:
        sentence = f"The champion cannot be compared with: {error}"
        return refuse(title, version.title, _unmet("champion_whole", sentence), config)
    decision = decide(champion, challenger, config)
    if not decision.promoted:
        return decision
    condition = _of_reproduction(registry, version, manifest, challenger)
    return replace(
        decision,
        promoted=condition.is_met,
        conditions=(*decision.conditions, condition),
    )


def _of_reproduction(
    registry: ChampionRegistry,
    version: Version,
    manifest: Manifest,
    challenger: Contender,
) -> Condition:
    """Compare what was scored with what the frozen files say: that is what serves."""
    told = challenger.predictions.set_index(["study_uid", "level"])["probability"]
    studies = sorted(told.index.unique("study_uid"))[:_REPRODUCED]
    rows = manifest.usable
    try:
        anew = _predict_anew(registry, version, rows, studies)
    except (StoreError, SettingsError) as error:
        return _unmet("reproduction", f"The frozen challenger cannot speak: {error}")
    again = anew.set_index(["study_uid", "level"])["probability"]
    furthest = float((again - told.reindex(again.index)).abs().max())
    return Condition(
        name="reproduction",
        is_met=furthest <= _SAME,
        sentence=f"Opened from its frozen files, it says of {len(studies)} test "
        f"studies what was scored, within {furthest:.4f}; {_SAME:g} is allowed.",
    )


def _unmet(name: str, sentence: str) -> Condition:
    return Condition(name=name, is_met=False, sentence=sentence)


def _still_hold(
    rows: pd.DataFrame, results: list[FoldResult], manifest: Manifest
) -> set[str]:
    """Return the studies of which every fold has said what it would say now."""
    levels = _levels_by_study(rows)
    content = rows.drop_duplicates("study_uid").set_index("study_uid")["content_hash"]
    holding = set(levels)
    for result in results:
        said = result.predictions
        said = said[(said["group"] == Split.TEST) & said["logit"].notna()]
        told = _levels_by_study(said)
        holding = {uid for uid in holding if told.get(uid) == levels[uid]}
        hashes = result.card.test_studies
        if hashes is not None:
            holding = {uid for uid in holding if hashes.get(uid) == str(content[uid])}
        elif result.card.manifest != manifest.inputs:  # of an older card
            return set()
    return holding


def _levels_by_study(rows: pd.DataFrame) -> dict[str, frozenset[str]]:
    levels = rows["level"].groupby(rows["study_uid"])
    return {str(uid): frozenset(names) for uid, names in levels}


def _predict_anew(
    registry: ChampionRegistry,
    version: Version,
    rows: pd.DataFrame,
    studies: list[str],
) -> pd.DataFrame:
    ensemble = open_version(registry, version)
    predictions = []
    for uid in studies:
        of_study = rows[rows["study_uid"] == uid]
        pairs = dict(read_vertebrae(registry.stores.crops, of_study))
        vertebrae = {str(of_study.at[at, "level"]): v for at, v in pairs.items()}
        predictions += [
            {
                "study_uid": uid,
                "model": version.model,
                "level": level,
                "label": math.nan,
                "probability": probability,
                "patient": str(of_study["patient"].iloc[0]),
                "is_assessed": level == OVERALL or level in vertebrae,
            }
            for level, probability in ensemble.predict(vertebrae).items()
        ]
    return pd.DataFrame(predictions)


def _relabelled(frame: pd.DataFrame, manifest: Manifest) -> pd.DataFrame:
    """Give predictions today's labels."""
    studies = sorted(str(uid) for uid in frame["study_uid"].unique())
    labels = labels_of(manifest.table, studies).stack(future_stack=True)
    index = pd.MultiIndex.from_frame(frame[["study_uid", "level"]])
    return frame.assign(label=labels.reindex(index).to_numpy(dtype=float))


def _promotion(version: Version, decision: Decision, by: str) -> Change:
    return Change(
        alias=Alias.CHAMPION,
        after=version.number,
        model=version.model,
        action=Action.PROMOTE,
        kind=ChangeKind.DECISION,
        by=by,
        reason=" ".join([decision.verdict, *decision.reasons]),
        decision=decision.to_note(),
    )


def _write_last(
    stores: Stores, frozen: FrozenEnsemble, version: Version, note: DecisionNote
) -> None:
    last = LastDecision(
        at=datetime.now(UTC).isoformat("T", "seconds"),
        version=version.number,
        digest=frozen.digest,
        inputs=frozen.inputs,
        decision=note,
    )
    stores.root.write(paths.LAST_DECISION, last.to_bytes())
