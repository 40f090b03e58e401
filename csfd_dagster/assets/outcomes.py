"""What a step did to each study of a run, as Dagster shows it."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import dagster as dg

from csfd_core.inference.warm import ask_predictor
from csfd_core.ingest.outcomes import Outcome, StudyOutcome
from csfd_core.store.stores import Stores
from csfd_dagster.conditions import is_asked_by_conditions

OWNERS: Final = ["team:imaging"]
# Passing faults of a disk or network; what is wrong with a study is no fault.
RETRIES: Final = dg.RetryPolicy(max_retries=2, delay=2, backoff=dg.Backoff.EXPONENTIAL)
# What a schedule makes every week is out of date a day after the next one is missed.
FRESH_FOR_A_WEEK: Final = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=8))
_CHECK: Final = "no_study_failed"
_NAMED: Final = 5  # studies, as examples
# Tags of Dagster that are named in its documentation.
_DATA_VERSION: Final = "dagster/data_version"
_IS_OURS: Final = "dagster/data_version_is_user_provided"

Event = dg.MaterializeResult | dg.AssetMaterialization | dg.AssetCheckResult


def failure_check(asset: str) -> dg.AssetCheckSpec:
    """Return the check that ``record_outcomes`` fills in."""
    return dg.AssetCheckSpec(
        _CHECK,
        asset=asset,
        description="Each study of the run was done, quarantined or left as it was.",
    )


def record_outcomes(
    context: dg.AssetExecutionContext,
    outcomes: Sequence[StudyOutcome],
    metadata_of: Callable[[StudyOutcome], Mapping[str, Any]],
    version_of_study: Callable[[StudyOutcome], str],
    *checks: dg.AssetCheckResult,
) -> Iterator[Event]:
    """Tell of each study what was done and its data version, and the sums to the log.

    Dagster's own event of a partition has one data version for the whole run; the event
    that follows it here has the study's. Both take their time in batches: ADR 8.

    A fault may pass, so the step is tried again while one of its studies fails. After
    that a study that fails is data like one that is quarantined: its partition and the
    check of the run say so, and the others go on.

    Args:
        context: Of the asset.
        outcomes: One per study of the run.
        metadata_of: What else a partition tells of its outcome.
        version_of_study: Data version of its partition; the same while what is made of
            the study is the same.
        checks: Results of other checks of the asset.

    Raises:
        dagster.Failure: If a study failed and the step is to be tried again.
    """
    failed = [outcome for outcome in outcomes if outcome.action is Outcome.FAILED]
    if failed and context.retry_number < RETRIES.max_retries:
        raise dg.Failure(
            f"{len(failed)} of {len(outcomes)} studies failed; the first, "
            f"{failed[0].study_uid}: {failed[0].message} The others are done; what "
            "failed is tried again."
        )
    counts = Counter(outcome.action.value for outcome in outcomes)
    context.log.info("Studies: %s", dict(counts))
    check = dg.AssetCheckResult(
        check_name=_CHECK,
        passed=not failed,
        metadata={
            "studies": len(outcomes),
            "failed": [f"{one.study_uid}: {one.message}" for one in failed[:_NAMED]],
        },
    )
    yield dg.MaterializeResult(check_results=[check, *checks])
    provenance = _provenance(context)
    for outcome in outcomes:
        metadata = {"outcome": outcome.action.value, **metadata_of(outcome)}
        if outcome.message:
            metadata["note"] = outcome.message
        version = {_DATA_VERSION: version_of_study(outcome), _IS_OURS: "true"}
        yield dg.AssetMaterialization(
            context.asset_key,
            partition=outcome.study_uid,
            metadata=metadata,
            tags={**provenance, **version},
        )


def made_warm(
    context: dg.AssetExecutionContext, stores: Stores, step: str
) -> list[StudyOutcome]:
    """Let the process that keeps the models in memory make a step of one study.

    Returns:
        Its outcome; [] where the step must load the models itself: of many studies,
        where nobody answers, and when it is tried again.
    """
    keys = context.partition_keys
    if len(keys) != 1 or context.retry_number:
        return []
    outcome = ask_predictor(stores, step, keys[0])
    return [] if outcome is None else [outcome]


def not_yet(context: dg.AssetExecutionContext, why: str) -> None:
    """Leave an asset out that cannot be made yet, and say why.

    Raises:
        dagster.Failure: If a person has asked for it.
    """
    if not is_asked_by_conditions(context.run):
        raise dg.Failure(why, allow_retries=False)
    context.log.warning(why)


def nothing_failed(why: str) -> dg.AssetCheckResult:
    """Return the result of ``failure_check`` where no study was worked on."""
    return dg.AssetCheckResult(
        check_name=_CHECK, passed=True, metadata={"studies": 0, "why": why}
    )


def _provenance(context: dg.AssetExecutionContext) -> Mapping[str, str]:
    """Return the tags that Dagster gave its own events: code version and inputs."""
    newest = context.instance.fetch_materializations(context.asset_key, limit=1)
    for record in newest.records:
        if record.asset_materialization is not None:
            return record.asset_materialization.tags or {}
    return {}
