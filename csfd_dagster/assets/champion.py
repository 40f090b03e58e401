"""The champion: the best of the comparison meets whoever serves."""

import dagster as dg
import pandas as pd

from csfd_core.classification.ensemble import read_best
from csfd_core.classification.ensemble_predictions import unseen_studies
from csfd_core.classification.manifest import read_manifest
from csfd_core.errors import StoreError
from csfd_core.inference.predict import predict_stored
from csfd_core.registry.champion import ChampionRegistry
from csfd_core.registry.contest import hold_contest
from csfd_core.registry.history import CHAMPION
from csfd_core.registry.serving import open_ensemble
from csfd_core.vocabulary import LABEL_COLUMNS
from csfd_dagster.assets.classification import GROUP
from csfd_dagster.assets.comparison import comparison_report
from csfd_dagster.assets.ingest import OWNERS
from csfd_dagster.assets.segmentation import vertebra_crops
from csfd_dagster.presentation import table_of
from csfd_dagster.resources.mlflow import MlflowResource
from csfd_dagster.resources.promotion import PromotionResource
from csfd_dagster.resources.stores import StoreResource


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"mlflow"},
    deps=[comparison_report],
    code_version="1",
)
def champion_model(
    context: dg.AssetExecutionContext,
    store: StoreResource,
    mlflow: MlflowResource,
    promotion: PromotionResource,
) -> dg.MaterializeResult:
    """The ensemble that serves: alias champion of MLflow's registry.

    Registers the best of the comparison as challenger. It takes over only if it is
    better on the same test studies by more than chance, and costs neither sensitivity
    nor calibration nor time beyond what is allowed.
    """
    stores = store.open()
    best = read_best(stores)
    if best is None:
        raise StoreError(
            "No comparison has named a best classifier. Materialize comparison_report "
            "first."
        )
    registry = ChampionRegistry(stores, mlflow.uri())
    with mlflow.run(context) as run:
        by = f"csfd, Dagster run {context.run.run_id[:8]}"
        found = hold_contest(registry, best, run, promotion.to_core(), by)
    decision, champion = found.decision, found.champion
    for reason in decision.reasons:
        context.log.info(reason)
    scores = decision.scores_table()
    digest = "none" if champion is None else champion.digest
    return dg.MaterializeResult(
        metadata={
            "decision": decision.verdict,
            "reasons": dg.MetadataValue.md(
                "\n".join(f"- {reason}" for reason in decision.reasons)
            ),
            "promoted": decision.promoted,
            "champion": "none yet" if champion is None else champion.title,
            "challenger": found.challenger.title,
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
    code_version="1",
)
def unseen_predictions(
    store: StoreResource, mlflow: MlflowResource
) -> dg.MaterializeResult:
    """True and predicted probabilities of five studies that no model has seen.

    A digest draws them from the locked test set; the champion predicts them, or the
    best of the comparison while there is none.
    """
    stores = store.open()
    manifest = read_manifest(stores.root)
    test = manifest.table[manifest.table["is_test"]]
    chosen = unseen_studies(test["study_uid"].unique())
    ensemble = open_ensemble(stores, CHAMPION, mlflow.uri())
    notes = [predict_stored(stores, manifest, uid, ensemble) for uid in chosen]
    predicted = pd.DataFrame(
        [{"study_uid": note["study_uid"], **note["probabilities"]} for note in notes],
        columns=["study_uid", *LABEL_COLUMNS],
    )
    labels = stores.metadata.read_studies().set_index("study_uid")
    true = labels.loc[chosen, list(LABEL_COLUMNS)].reset_index()
    return dg.MaterializeResult(
        metadata={
            "model": ensemble.title,
            "note": ensemble.notice or "The champion speaks.",
            "trained_on": ensemble.data_kind.value,
            "studies": len(chosen),
            "true": table_of(true),
            "predicted": table_of(predicted),
        }
    )
