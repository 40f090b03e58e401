"""Asset check: whether the champion may serve."""

import dagster as dg

from csfd_core.registry.appointment import standing_of
from csfd_core.registry.champion import ChampionRegistry
from csfd_dagster.resources.mlflow import MlflowResource
from csfd_dagster.resources.stores import StoreResource


@dg.asset_check(asset="champion_model", blocking=True)
def champion_may_serve(
    store: StoreResource, mlflow: MlflowResource
) -> dg.AssetCheckResult:
    """The alias points to whole files that no locked test study has trained.

    Whoever holds it met the conditions of its decision, or a person gave it the title.
    """
    champion, problems = standing_of(ChampionRegistry(store.open(), mlflow.uri()))
    return dg.AssetCheckResult(
        passed=not problems,
        metadata={
            "champion": "none" if champion is None else champion.title,
            "problems": problems,
        },
    )


CHAMPION_CHECKS = [champion_may_serve]
