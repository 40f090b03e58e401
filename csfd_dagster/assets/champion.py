"""The champion: the best of the comparison meets whoever serves."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import dagster as dg
import pandas as pd

from csfd_core.classification.assessment import NOT_ASSESSED, rests_on
from csfd_core.classification.ensemble import read_best
from csfd_core.classification.ensemble_predictions import unseen_studies
from csfd_core.classification.manifest import read_manifest
from csfd_core.inference.predict import StoredPredictor, predict_stored, read_prediction
from csfd_core.inference.warm import PREDICTIONS
from csfd_core.ingest.outcomes import StudyOutcome, make_all
from csfd_core.registry.champion import ChampionRegistry
from csfd_core.registry.contest import hold_contest
from csfd_core.registry.history import Alias
from csfd_core.registry.serving import may_judge, open_ensemble, open_serving
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LABEL_COLUMNS
from csfd_dagster.assets.classification import GROUP
from csfd_dagster.assets.comparison import comparison_report
from csfd_dagster.assets.outcomes import (
    OWNERS,
    RETRIES,
    Event,
    failure_check,
    made_warm,
    not_yet,
    nothing_failed,
    record_outcomes,
)
from csfd_dagster.assets.segmentation import vertebra_crops
from csfd_dagster.conditions import follows, is_asked_by_conditions
from csfd_dagster.partitions import MANY_STUDIES, TABLES, studies
from csfd_dagster.presentation import table_of, version_of
from csfd_dagster.resources.mlflow import MlflowResource
from csfd_dagster.resources.promotion import PromotionResource
from csfd_dagster.resources.stores import StoreResource

NO_MODEL: Final = (
    "No classifier was trained and compared yet, so nothing can be predicted. "
    "Materialize comparison_report first, or wait for its run."
)


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"mlflow"},
    deps=[comparison_report],
    pool=TABLES,
    automation_condition=follows("comparison_report", needs=["comparison_report"]),
    output_required=False,
    code_version="1",
)
def champion_model(
    context: dg.AssetExecutionContext,
    store: StoreResource,
    mlflow: MlflowResource,
    promotion: PromotionResource,
) -> Iterator[dg.MaterializeResult]:
    """The ensemble that serves: alias champion of MLflow's registry.

    Registers the best of the comparison as challenger. It takes over only if it is
    better on the same test studies by more than chance, and costs neither sensitivity
    nor calibration nor time beyond what is allowed.
    """
    stores = store.open()
    best = read_best(stores)
    if best is None:
        not_yet(
            context,
            "No comparison has named a best classifier yet. Materialize "
            "comparison_report first, or wait for its run.",
        )
        return
    registry = ChampionRegistry(stores, mlflow.uri())
    with mlflow.run(context) as run:
        by = f"csfd, Dagster run {context.run.run_id[:8]}"
        contest = hold_contest(registry, best, run, promotion.to_core(), by)
    decision, champion = contest.decision, contest.champion
    for reason in decision.reasons:
        context.log.info(reason)
    scores = decision.scores_table()
    digest = "none" if champion is None else champion.digest
    yield dg.MaterializeResult(
        metadata={
            "decision": decision.verdict,
            "reasons": dg.MetadataValue.md(
                "\n".join(f"- {reason}" for reason in decision.reasons)
            ),
            "promoted": decision.promoted,
            "champion": "none yet" if champion is None else champion.title,
            "challenger": contest.challenger.title,
            "test_studies": decision.studies,
            **({} if scores.empty else {"scores": table_of(scores)}),
        },
        data_version=dg.DataVersion(digest),
    )


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"json"},
    deps=[champion_model, vertebra_crops],
    automation_condition=follows("champion_model", needs=["champion_model"]),
    output_required=False,
    code_version="2",
)
def unseen_predictions(
    context: dg.AssetExecutionContext, store: StoreResource, mlflow: MlflowResource
) -> Iterator[dg.MaterializeResult]:
    """True and predicted probabilities of five studies that no model has seen.

    A digest draws them from the locked test set; the champion predicts them, or who
    stands in for it while there is none.
    """
    stores = store.open()
    if read_best(stores) is None:
        not_yet(context, NO_MODEL)
        return
    ensemble = open_ensemble(stores, Alias.CHAMPION, mlflow.uri())
    manifest = read_manifest(stores.root)
    test = manifest.visible[manifest.visible["is_test"]]
    drawn = unseen_studies(test["study_uid"].unique())
    notes = [predict_stored(stores, uid, ensemble) for uid in drawn]
    predicted = pd.DataFrame(
        [_shown(note) for note in notes],
        columns=["study_uid", *LABEL_COLUMNS, "rests_on"],
    )
    labels = stores.metadata.read_studies().set_index("study_uid")
    true = labels.loc[drawn, list(LABEL_COLUMNS)].reset_index()
    yield dg.MaterializeResult(
        metadata={
            "model": ensemble.title,
            "note": ensemble.notice or "The champion speaks.",
            "trained_on": ensemble.data_kind.value,
            "studies": len(drawn),
            "true": table_of(true),
            "predicted": table_of(predicted),
        }
    )


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"json"},
    deps=[vertebra_crops, champion_model],
    partitions_def=studies,
    backfill_policy=MANY_STUDIES,
    retry_policy=RETRIES,
    automation_condition=follows(
        "vertebra_crops", needs=["vertebra_crops", "champion_model"]
    ),
    check_specs=[failure_check("study_predictions")],
    output_required=False,
    code_version="2",
)
def study_predictions(
    context: dg.AssetExecutionContext, store: StoreResource, mlflow: MlflowResource
) -> Iterator[Event]:
    """Probabilities of a fracture for each study, as ``csfd predict`` writes them.

    By the champion; before there is one, by the best of the comparison if it beats the
    prevalences, or the general classifier, which comes with csfd. Before there was a
    comparison, who asks for it has the general one; the conditions wait. A study that
    arrives is predicted; a new champion predicts the others again only when asked, by
    the job ``predict_again``.
    """
    stores = store.open()
    if read_best(stores) is None and not _general_speaks(context, stores):
        not_yet(context, NO_MODEL)
        yield nothing_failed(NO_MODEL)
        return
    outcomes = made_warm(context, stores, PREDICTIONS)
    if not outcomes:
        predictor = StoredPredictor(stores, lambda: open_serving(stores, mlflow.uri()))
        outcomes = list(make_all(predictor.make, context.partition_keys))
    yield from record_outcomes(
        context,
        outcomes,
        lambda one: _facts(stores, one),
        lambda one: _prediction_version(stores, one),
    )


def _general_speaks(context: dg.AssetExecutionContext, stores: Stores) -> bool:
    """Say whether the general classifier judges: of studies that somebody asks for."""
    is_read = any(stores.metadata.read_record(uid) for uid in context.partition_keys)
    return is_read and not is_asked_by_conditions(context.run) and may_judge(stores)


def _shown(note: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of a prediction in a table for readers."""
    numbers = {
        name: NOT_ASSESSED if value is None else value
        for name, value in note["probabilities"].items()
    }
    levels = rests_on(note["overall_rests_on"])
    return {"study_uid": note["study_uid"], **numbers, "rests_on": levels}


def _facts(stores: Stores, outcome: StudyOutcome) -> dict[str, Any]:
    """Return what Dagster shows of one study's prediction."""
    note = read_prediction(stores, outcome.study_uid) or {}
    return {
        "verdict": str(note.get("verdict", "")),
        "unlike": note["unlike"]["told"] if note else "",
        "model": str(note.get("model", "")),
        "trained_on": str(note.get("trained_on", "")),
        "suspicious": ", ".join(note.get("suspicious", [])) or "none",
        "not_assessed": ", ".join(note.get("not_assessed", [])) or "none",
        "overall_rests_on": rests_on(note["overall_rests_on"]) if note else "",
        "needs_eyes": "\n".join(note.get("needs_eyes", [])) or "no",
        "probabilities": dg.MetadataValue.json(dict(note.get("probabilities", {}))),
        "seconds": outcome.seconds,
    }


def _prediction_version(stores: Stores, outcome: StudyOutcome) -> str:
    """Identify a study's prediction: its crops, and the models that spoke."""
    note = read_prediction(stores, outcome.study_uid) or {}
    return version_of(note.get("made_from"))
