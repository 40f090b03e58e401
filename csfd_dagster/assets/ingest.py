"""Ingestion: headers, slices and masks of each study, and the table of all studies.

The work is done by ``csfd_core.store``; here it is only named, described and recorded.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg
import pandas as pd

from csfd_core.ingest.convert import (
    StudyTask,
    convert_mask,
    convert_slices,
    scan_headers,
    study_tasks,
    verify_slices,
)
from csfd_core.ingest.outcomes import Outcome, StudyOutcome
from csfd_core.ingest.presence import keep_study, presence_notes
from csfd_core.ingest.studies_table import write_studies_table
from csfd_core.reports.eda.histograms import plot_counts, plot_histograms
from csfd_core.reports.eda.montage import mask_montage, study_montage
from csfd_core.store.metadata import STUDIES_COLUMNS
from csfd_core.store.standing import usable_studies
from csfd_core.text import count
from csfd_dagster.partitions import MANY_STUDIES, studies
from csfd_dagster.presentation import picture, table_of_counts, table_preview
from csfd_dagster.resources.stores import (
    ExecutorResource,
    SourceResource,
    StoreResource,
)

GROUP = "ingest"
OWNERS = ["team:imaging"]
# Passing faults of a disk or network; what is wrong with a study is no fault.
RETRIES = dg.RetryPolicy(max_retries=3, delay=2, backoff=dg.Backoff.EXPONENTIAL)


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"dicom", "parquet"},
    partitions_def=studies,
    backfill_policy=MANY_STUDIES,
    retry_policy=RETRIES,
    code_version="1",
)
def study_headers(
    context: dg.AssetExecutionContext,
    source: SourceResource,
    store: StoreResource,
    executor: ExecutorResource,
) -> dg.MaterializeResult:
    """Header facts of every slice of a study, its geometry, checks and quarantine."""
    tasks, kept = _tasks(context, source, store)
    outcomes = [*executor.run(scan_headers, tasks), *kept]
    result = _record(context, outcomes)
    counts = pd.Series([outcome.slice_count for outcome in outcomes])
    histogram = plot_counts(counts, "Slices per study of this run", "slices")
    metadata = {
        **(result.metadata or {}),
        "slices_per_study": picture(histogram, kind="png"),
    }
    return dg.MaterializeResult(metadata=metadata)


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"jpeg", "parquet"},
    deps=[study_headers],
    partitions_def=studies,
    backfill_policy=MANY_STUDIES,
    retry_policy=RETRIES,
    code_version="1",
    check_specs=[
        dg.AssetCheckSpec(
            "slices_decode",
            asset="slice_store",
            description="Every slice decodes to the size that is recorded for it.",
        )
    ],
)
def slice_store(
    context: dg.AssetExecutionContext,
    source: SourceResource,
    store: StoreResource,
    executor: ExecutorResource,
) -> dg.MaterializeResult:
    """JPEG slices of each study in the bone window, one row per slice, head to feet."""
    tasks, kept = _tasks(context, source, store)
    outcomes = [*executor.run(convert_slices, tasks), *kept]
    slices = store.open().slices
    names = {
        o.study_uid
        for o in outcomes
        if o.action in (Outcome.WRITTEN, Outcome.UNCHANGED)
    }
    result = _record(
        context,
        outcomes,
        lambda uid: study_montage(slices, uid) if uid in names else None,
    )
    chosen = [task for task in tasks if task.folder.name in names]
    check = _check_slices(executor.run(verify_slices, chosen))
    return dg.MaterializeResult(metadata=result.metadata, check_results=[check])


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"nifti", "parquet"},
    deps=[study_headers],
    partitions_def=studies,
    backfill_policy=MANY_STUDIES,
    retry_policy=RETRIES,
    code_version="1",
)
def mask_store(
    context: dg.AssetExecutionContext,
    source: SourceResource,
    store: StoreResource,
    executor: ExecutorResource,
) -> dg.MaterializeResult:
    """Vertebra masks in the grid of the slices, lossless, for studies that have one."""
    tasks, kept = _tasks(context, source, store)
    outcomes = [*executor.run(convert_mask, tasks), *kept]
    masks = store.open().masks
    return _record(
        context,
        outcomes,
        lambda uid: mask_montage(masks, uid) if masks.read_note(uid) else None,
    )


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"pandas", "parquet"},
    deps=[study_headers],
    retry_policy=RETRIES,
    code_version="1",
    metadata={
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn(name, str(kind), description=description)
                for name, kind, description in STUDIES_COLUMNS
            ]
        )
    },
)
def metadata_table(
    source: SourceResource, store: StoreResource
) -> dg.MaterializeResult:
    """One row per study: geometry, labels, boxes, standing and identity of content."""
    stores, sources = store.open(), source.open()
    table, notes = write_studies_table(stores, sources)
    notes += presence_notes(stores, sources)
    good = usable_studies(table)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(table),
            "standing": table_of_counts("standing", Counter(table["status"])),
            "quarantined": table_of_counts(
                "code", Counter(table["quarantine_code"].dropna())
            ),
            "distributions": picture(plot_histograms(good), kind="png"),
            "preview": table_preview(table),
            "notes": dg.MetadataValue.md("\n".join(f"- {note}" for note in notes)),
        },
        # What follows is made anew when the table is another, not whenever it was made.
        data_version=dg.DataVersion(str(stores.metadata.read_studies_inputs())[:16]),
    )


def _tasks(
    context: dg.AssetExecutionContext, source: SourceResource, store: StoreResource
) -> tuple[list[StudyTask], list[StudyOutcome]]:
    """List the studies of this run, and what comes of those that need no work.

    A stored study that has left the sources is kept as it is; one of which nothing is
    stored fails the run. Studies that were withdrawn are left out, wherever their files
    still lie.
    """
    sources, stores, settings = source.open(), store.open(), store.conversion()
    withdrawn = stores.withdrawn.study_uids()
    folders, kept, gone = [], [], []
    for study_uid in context.partition_keys:
        if study_uid in withdrawn:
            continue
        folder = sources.study(study_uid)
        if folder is not None:
            folders.append(folder)
        elif (outcome := keep_study(stores, study_uid)) is not None:
            kept.append(outcome)
        else:
            gone.append(study_uid)
    if gone:
        raise dg.Failure(
            f"{count(len(gone), 'study', 'has', 'have')} no images in the source or "
            f"the inbox, such as {gone[0]}. Delete the partition or bring the images "
            "back.",
            allow_retries=False,
        )
    if kept:
        context.log.warning(
            "%s no images any more, such as %s; what is stored is kept.",
            count(len(kept), "study", "has", "have"),
            kept[0].study_uid,
        )
    return study_tasks(folders, stores, settings), kept


def _check_slices(outcomes: Sequence[StudyOutcome]) -> dg.AssetCheckResult:
    failed = [outcome for outcome in outcomes if outcome.action == Outcome.FAILED]
    return dg.AssetCheckResult(
        check_name="slices_decode",
        passed=not failed,
        metadata={
            "studies": len(outcomes),
            "slices": sum(outcome.slice_count for outcome in outcomes),
            "damaged": [outcome.study_uid for outcome in failed[:5]],
        },
    )


def _record(
    context: dg.AssetExecutionContext,
    outcomes: Sequence[StudyOutcome],
    montage_of: Callable[[str], bytes | None] = lambda uid: None,
) -> dg.MaterializeResult:
    """Attach each study's outcome and picture to its partition, the sums to the run."""
    failed = [outcome for outcome in outcomes if outcome.action == Outcome.FAILED]
    if failed:
        raise dg.Failure(
            f"{len(failed)} of {len(outcomes)} studies failed; the first, "
            f"{failed[0].study_uid}: {failed[0].message} The others are stored and "
            "will not be done again."
        )
    for outcome in outcomes:
        metadata: dict[str, Any] = {
            "outcome": outcome.action.value,
            "slices": outcome.slice_count,
            "source_bytes": outcome.source_bytes,
            "written_bytes": outcome.stored_bytes,
            "content_hash": outcome.content_hash,
            "findings": ", ".join(outcome.codes) or "none",
        }
        if outcome.message:
            metadata["note"] = outcome.message
        if (montage := montage_of(outcome.study_uid)) is not None:
            metadata["montage"] = picture(montage)
        # Once per study: each call has Dagster look up all partitions of the run.
        context.add_asset_metadata(metadata, partition_key=outcome.study_uid)
    counts = Counter(outcome.action for outcome in outcomes)
    context.log.info("Studies: %s", dict(counts))
    return dg.MaterializeResult(
        metadata={f"studies_{action}": count for action, count in counts.items()}
    )
