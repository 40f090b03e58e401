"""One MLflow run per piece of work: what was shown or measured, and from what.

Runs are written through MLflow's client, not its global state, so that several can be
open at once. MLflow is imported when a run starts, never when this module is. Tags and
parameters hold identifiers and numbers only, nothing of a patient; MLflow's own usage
reports are switched off.
"""

import logging
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from csfd_core.errors import SettingsError

if TYPE_CHECKING:
    import keras
    from mlflow import MlflowClient

_SQLITE: Final = "sqlite:///"
_ARTIFACTS: Final = "mlartifacts"  # beside the database
_BATCH: Final = 100  # most parameters in one request
_EXAMPLE_VALUES: Final = 200_000  # numbers in an input example that is kept


@dataclass(frozen=True, slots=True, kw_only=True)
class RunIdentity:
    """What a run belongs to; becomes its tags.

    ``dagster_run_id`` and ``partition`` are ``None`` outside Dagster and for assets
    without partitions.
    """

    asset: str
    code_version: str
    dagster_run_id: str | None = None
    partition: str | None = None

    def to_tags(self) -> dict[str, str]:
        """Return the tags; those that are not known are left out."""
        tags = {
            "csfd.asset": self.asset,
            "csfd.code_version": self.code_version,
            "dagster.run_id": self.dagster_run_id,
            "csfd.partition": self.partition,
        }
        return {name: value for name, value in tags.items() if value is not None}


class TrackedRun:
    """An open run. Everything that is logged is visible at once."""

    def __init__(self, client: "MlflowClient", run_id: str, experiment_id: str) -> None:
        """Take a run that ``tracked_run`` has made."""
        self._client = client
        self._experiment_id = experiment_id
        self.run_id = run_id

    @contextmanager
    def child(self, identity: "RunIdentity") -> Iterator["TrackedRun"]:
        """Open a run below this one, as for one fold."""
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        tags = {**identity.to_tags(), MLFLOW_PARENT_RUN_ID: self.run_id}
        with _opened(self._client, self._experiment_id, tags, _run_name(identity)) as r:
            yield r

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record settings; each can be written once."""
        from mlflow.entities import Param

        entities = [Param(name, str(value)) for name, value in params.items()]
        for start in range(0, len(entities), _BATCH):
            batch = entities[start : start + _BATCH]
            self._client.log_batch(self.run_id, params=batch)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record numbers, at a step where they are part of a curve."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        entities = [
            Metric(name, float(value), now_ms, step) for name, value in metrics.items()
        ]
        self._client.log_batch(self.run_id, metrics=entities)

    def log_files(self, files: Mapping[str, bytes]) -> None:
        """Store files, by their path within the run's artifacts."""
        with tempfile.TemporaryDirectory(prefix="csfd-mlflow-") as folder:
            for path, content in files.items():
                parts = PurePosixPath(path)
                local = Path(folder) / parts
                local.parent.mkdir(parents=True, exist_ok=True)
                local.write_bytes(content)
            self._client.log_artifacts(self.run_id, folder)

    def log_datasets(
        self, datasets: Mapping[str, tuple[str, str]], source: str = "crop store"
    ) -> None:
        """Record what the run has read.

        Args:
            datasets: By what they are for (``training``, ``validation``, ``test``): a
                name and a digest of the content.
            source: Where they were read from.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

        inputs = [
            DatasetInput(
                Dataset(name=name, digest=digest, source_type="csfd", source=source),
                [InputTag(MLFLOW_DATASET_CONTEXT, context)],
            )
            for context, (name, digest) in datasets.items()
        ]
        self._client.log_inputs(self.run_id, datasets=inputs)

    def log_model(
        self,
        name: str,
        model: "keras.Model",
        example: Any,  # noqa: ANN401 - an array, or a dictionary of arrays
        extra_files: Mapping[str, bytes] | None = None,
    ) -> str:
        """Store a Keras model with its signature and an example of its input.

        Args:
            name: Of the model in MLflow.
            model: Without an optimizer's state.
            example: Input that the signature is read from; kept with the model where it
                is small.
            extra_files: Further files beside the model, by name.

        Returns:
            MLflow's identifier of the model.
        """
        with warnings.catch_warnings():
            # Of its own type hints, and of what NumPy 2 deprecates in Keras.
            warnings.simplefilter("ignore")
            return self._log_model(name, model, example, extra_files or {})

    def _log_model(
        self,
        name: str,
        model: "keras.Model",
        example: Any,  # noqa: ANN401 - an array, or a dictionary of arrays
        extra_files: Mapping[str, bytes],
    ) -> str:
        import mlflow.tensorflow
        from mlflow.models import infer_signature

        output = model.predict_on_batch(example)
        is_small = not isinstance(example, dict) and example.size <= _EXAMPLE_VALUES
        logged = self._client.create_logged_model(
            self._experiment_id, name=name, source_run_id=self.run_id
        )
        with tempfile.TemporaryDirectory(prefix="csfd-mlflow-") as folder:
            path = Path(folder) / "model"
            mlflow.tensorflow.save_model(
                model,
                str(path),
                signature=infer_signature(example, output),
                input_example=example if is_small else None,
                pip_requirements=["keras", "tensorflow"],
            )
            for file_name, content in extra_files.items():
                (path / file_name).write_bytes(content)
            self._client.log_model_artifacts(logged.model_id, str(path))
        self._client.finalize_logged_model(logged.model_id, "READY")
        return str(logged.model_id)


def prepare_tracking(tracking_uri: str) -> None:
    """Create the SQLite database, if that is what the URI names and it is absent.

    MLflow sets up an absent database on its first use; two processes that do so at once
    disturb each other. So this runs before steps that may run in parallel.

    Raises:
        SettingsError: If it cannot be created.
    """
    open_client(tracking_uri)


@contextmanager
def tracked_run(
    tracking_uri: str, experiment: str, identity: RunIdentity
) -> Iterator[TrackedRun]:
    """Open a run; it ends as finished, or as failed if the block raises.

    Args:
        tracking_uri: ``sqlite:///file``, or the URL of a tracking server.
        experiment: Name of the experiment; made if absent.
        identity: What the run belongs to.

    Raises:
        SettingsError: If the tracking backend cannot be used.
    """
    client = open_client(tracking_uri)
    experiment_id = _experiment_id(client, tracking_uri, experiment)
    name = _run_name(identity)
    with _opened(client, experiment_id, identity.to_tags(), name) as run:
        yield run


@contextmanager
def _opened(
    client: "MlflowClient", experiment_id: str, tags: dict[str, str], name: str
) -> Iterator[TrackedRun]:
    run = client.create_run(experiment_id, tags=tags, run_name=name)
    run_id = str(run.info.run_id)
    try:
        yield TrackedRun(client, run_id, experiment_id)
    except BaseException:
        client.set_terminated(run_id, status="FAILED")
        raise
    client.set_terminated(run_id, status="FINISHED")


def open_client(tracking_uri: str) -> "MlflowClient":
    """Return MLflow's client, once the backend has answered.

    Raises:
        SettingsError: If the tracking backend cannot be used.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    if (database := database_file(tracking_uri)) is not None:
        _make_folder(database.parent)
    # Its set-up of a database is told in a hundred lines otherwise.
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        with warnings.catch_warnings():
            # MLflow uses what SQLAlchemy 2.1 deprecates.
            warnings.filterwarnings("ignore", module="mlflow|sqlalchemy")
            client = MlflowClient(tracking_uri=tracking_uri)
            client.search_experiments(max_results=1)
    except MlflowException as error:
        raise SettingsError(
            f"The MLflow backend {_without_login(tracking_uri)} cannot be used "
            f"({type(error).__name__}). Check MLFLOW_TRACKING_URI."
        ) from error
    return client


def database_file(tracking_uri: str) -> Path | None:
    """Return the SQLite database that a URI names; ``None``: it names a server."""
    if not tracking_uri.startswith(_SQLITE):
        return None
    return Path(tracking_uri.removeprefix(_SQLITE)).absolute()


def artifacts_folder(database: Path) -> Path:
    """Return where the artifacts of an SQLite database lie, a folder per experiment."""
    return database.parent / _ARTIFACTS


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"Cannot create {folder} for MLflow: {error.strerror}. Check "
            "MLFLOW_TRACKING_URI."
        ) from error


def _experiment_id(client: "MlflowClient", tracking_uri: str, experiment: str) -> str:
    from mlflow.exceptions import MlflowException

    existing: Any = client.get_experiment_by_name(experiment)
    if existing is None:
        location = _artifact_location(tracking_uri, experiment)
        try:
            return str(client.create_experiment(experiment, artifact_location=location))
        except MlflowException:  # another process was faster
            existing = client.get_experiment_by_name(experiment)
            if existing is None:
                raise
    return str(existing.experiment_id)


def _artifact_location(tracking_uri: str, experiment: str) -> str | None:
    """Return a folder beside an SQLite database; a server decides for itself."""
    database = database_file(tracking_uri)
    if database is None:
        return None
    return (artifacts_folder(database) / experiment).as_uri()


def _run_name(identity: RunIdentity) -> str:
    if identity.partition is None:
        return identity.asset
    return f"{identity.asset} {identity.partition}"


def _without_login(tracking_uri: str) -> str:
    """Leave out a user and password from a URL that is shown."""
    scheme, separator, rest = tracking_uri.partition("://")
    return f"{scheme}{separator}{rest.rsplit('@', 1)[-1]}"
