"""MLflow as a resource: one run per materialization.

An own resource, because ``dagster-mlflow`` shares one run between parallel steps.
MLflow itself is imported when a run starts, never when the definitions load.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from pydantic import Field

from csfd_core.runtime.tracking import (
    RunIdentity,
    TrackedRun,
    prepare_tracking,
    tracked_run,
)
from csfd_core.settings import Settings


class MlflowResource(dg.ConfigurableResource):
    """Where runs are recorded."""

    tracking_uri: str = Field(
        default="",
        description="sqlite:///file or a server's URL; MLFLOW_TRACKING_URI.",
    )

    def prepare(self) -> None:
        """Create the SQLite database; call this before steps run in parallel."""
        prepare_tracking(self.uri())

    @contextmanager
    def run(self, context: dg.AssetExecutionContext) -> Iterator[TrackedRun]:
        """Open the run of this materialization, in the experiment of its group."""
        group = context.assets_def.group_names_by_key[context.asset_key]
        identity = self.identity(context, _partition(context))
        with tracked_run(self.uri(), group, identity) as run:
            yield run

    def identity(
        self, context: dg.AssetExecutionContext, partition: str | None
    ) -> RunIdentity:
        """Say which materialization a run belongs to."""
        key = context.asset_key
        return RunIdentity(
            asset=key.to_user_string(),
            code_version=context.assets_def.code_versions_by_key[key] or "",
            dagster_run_id=context.run.run_id,
            partition=partition,
        )

    def uri(self) -> str:
        """Return where MLflow is."""
        return self.tracking_uri or Settings.read().mlflow_tracking_uri


def _partition(context: dg.AssetExecutionContext) -> str | None:
    if context.assets_def.partitions_def is None:
        return None
    first, *others = context.partition_keys
    return f"{first} and {len(others)} more" if others else first
