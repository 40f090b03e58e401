"""What MLflow knows of a training: its run, its model, its version in the registry.

Asked only, never written to. MLflow is imported when it is asked, and only where there
is one: an SQLite database that is absent is not made by looking.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from csfd_core.errors import SettingsError
from csfd_core.learning.card import ModelCard
from csfd_core.registry.champion import ChampionRegistry, Version
from csfd_core.registry.history import Alias
from csfd_core.runtime.tracking import database_file, open_client
from csfd_core.store.stores import Stores

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """The MLflow run of a training; ``None`` stands for what is not recorded."""

    run_id: str | None = None
    model_id: str | None = None
    code_version: str | None = None  # of the asset


class RecordedRuns:
    """MLflow as far as it can be used; ``problem`` says why it cannot."""

    def __init__(self, stores: Stores, tracking_uri: str) -> None:
        """Take the store whose versions are asked for, and MLflow's backend."""
        self._registry = ChampionRegistry(stores, tracking_uri)
        self._uri = tracking_uri
        self.problem = ""

    @cached_property
    def _client(self) -> "MlflowClient | None":
        database = database_file(self._uri)
        if database is not None and not database.is_file():
            self.problem = "There is no MLflow database yet. Check MLFLOW_TRACKING_URI."
            return None
        try:
            return open_client(self._uri)
        except SettingsError as error:
            self.problem = str(error)
            return None

    def training_run(self, card: ModelCard) -> RecordedRun:
        """Return the run that trained a model, by its card, or by its inputs."""
        told = card.mlflow_run_id
        client = self._client
        if client is None:
            return RecordedRun(run_id=told)
        experiments = [e.experiment_id for e in client.search_experiments()]
        inputs = card.inputs.replace("'", "")
        query = f"params.inputs = '{inputs}' and attributes.status = 'FINISHED'"
        runs = list(client.search_runs(experiments, query)) if inputs else []
        matching = [run for run in runs if told in (None, run.info.run_id)]
        if not matching:
            return RecordedRun(run_id=told)
        run = matching[0]
        models = client.search_logged_models(
            [run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"
        )
        return RecordedRun(
            run_id=str(run.info.run_id),
            model_id=str(models[0].model_id) if models else None,
            code_version=run.data.tags.get("csfd.code_version"),
        )

    @cached_property
    def versions(self) -> dict[int, Version]:
        """The registered versions of the store by number; empty where none is known."""
        if not self._registry.is_begun or self._client is None:
            return {}
        return {version.number: version for version in self._registry.versions()}

    @cached_property
    def aliases(self) -> dict[int, list[str]]:
        """The aliases of each version that has any."""
        by_version: dict[int, list[str]] = {}
        if not self.versions:
            return by_version
        for alias in Alias:
            holder = self._registry.holder(alias)
            if holder is not None:
                by_version.setdefault(holder.number, []).append(alias)
        return by_version

    def titles_of(self, digest: str) -> list[str]:
        """Return what a frozen ensemble is called: its versions, with their aliases."""
        return [
            " ".join([f"version {number}", *self.aliases.get(number, [])])
            for number, version in sorted(self.versions.items())
            if version.digest == digest
        ]
