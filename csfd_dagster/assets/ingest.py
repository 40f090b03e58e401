"""Ingestion: headers, slices and masks of each study, and the table of all studies.

The work is done by ``csfd_core.store``; here it is only named, described and recorded.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import dagster as dg

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
from csfd_core.reports.eda.histograms import plot_histograms
from csfd_core.reports.eda.montage import mask_montage, study_montage
from csfd_core.store.masks import GivenMaskStore
from csfd_core.store.metadata import STUDIES_COLUMNS, MetadataStore
from csfd_core.store.standing import usable_studies
from csfd_core.text import count
from csfd_core.vocabulary import is_uid
from csfd_dagster.assets.outcomes import (
    OWNERS,
    RETRIES,
    Event,
    failure_check,
    record_outcomes,
)
from csfd_dagster.assets.sources import source_labels, source_studies
from csfd_dagster.checks.slices import check_decoding, check_spacing, slice_check_specs
from csfd_dagster.conditions import follows
from csfd_dagster.partitions import MANY_STUDIES, TABLES, studies
from csfd_dagster.presentation import (
    picture,
    table_of_counts,
    table_preview,
    version_of,
)
from csfd_dagster.resources.stores import (
    ExecutorResource,
    SourceResource,
    StoreResource,
)

GROUP = "ingest"
_BAD = (Outcome.QUARANTINED, Outcome.FAILED)


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"dicom", "parquet"},
    deps=[source_studies],
    partitions_def=studies,
    backfill_policy=MANY_STUDIES,
    retry_policy=RETRIES,
    automation_condition=follows("source_studies"),
    check_specs=[
        failure_check("study_headers"),
        *slice_check_specs("study_headers", "spacing_is_uniform"),
    ],
    code_version="1",
)
def study_headers(
    context: dg.AssetExecutionContext,
    source: SourceResource,
    store: StoreResource,
    executor: ExecutorResource,
) -> Iterator[Event]:
    """Header facts of every slice of a study, its geometry, checks and quarantine."""
    tasks, settled = _tasks(context, source, store)
    outcomes = [*executor.run(scan_headers, tasks), *settled]
    metadata = store.open().metadata
    written = [o.study_uid for o in outcomes if o.action is Outcome.WRITTEN]
    records = [metadata.read_record(study_uid) for study_uid in written]
    good = [r.study_uid for r in records if r is not None and not r.is_quarantined]
    check = check_spacing(store.open(), good)
    yield from record_outcomes(
        context, outcomes, _facts, lambda one: _record_version(metadata, one), check
    )


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"jpeg", "parquet"},
    deps=[study_headers],
    partitions_def=studies,
    backfill_policy=MANY_STUDIES,
    retry_policy=RETRIES,
    automation_condition=follows("study_headers", needs=["study_headers"]),
    code_version="1",
    check_specs=[
        failure_check("slice_store"),
        *slice_check_specs("slice_store", "slices_decode"),
    ],
)
def slice_store(
    context: dg.AssetExecutionContext,
    source: SourceResource,
    store: StoreResource,
    executor: ExecutorResource,
) -> Iterator[Event]:
    """JPEG slices of each study in the bone window, one row per slice, head to feet."""
    tasks, settled = _tasks(context, source, store)
    outcomes = [*executor.run(convert_slices, tasks), *settled]
    stores = store.open()
    stored = {
        o.study_uid
        for o in outcomes
        if o.action in (Outcome.WRITTEN, Outcome.UNCHANGED)
    }
    written = {o.study_uid for o in outcomes if o.action is Outcome.WRITTEN}
    anew = [task for task in tasks if task.folder.name in written]
    check = check_decoding(executor.run(verify_slices, anew))

    def facts(outcome: StudyOutcome) -> dict[str, Any]:
        told = _facts(outcome)
        if outcome.study_uid in stored:
            montage = study_montage(stores.slices, outcome.study_uid)
            told["montage"] = picture(
                stores.pictures.write("slice_store", outcome.study_uid, montage)
            )
        return told

    yield from record_outcomes(context, outcomes, facts, _version, check)


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"nifti", "parquet"},
    deps=[study_headers],
    partitions_def=studies,
    backfill_policy=MANY_STUDIES,
    retry_policy=RETRIES,
    automation_condition=follows("study_headers", needs=["study_headers"]),
    check_specs=[failure_check("mask_store")],
    code_version="1",
)
def mask_store(
    context: dg.AssetExecutionContext,
    source: SourceResource,
    store: StoreResource,
    executor: ExecutorResource,
) -> Iterator[Event]:
    """Vertebra masks in the grid of the slices, lossless, for studies that have one."""
    tasks, settled = _tasks(context, source, store)
    outcomes = [*executor.run(convert_mask, tasks), *settled]
    stores = store.open()
    masks = stores.masks

    def facts(outcome: StudyOutcome) -> dict[str, Any]:
        told = _facts(outcome)
        if masks.read_note(outcome.study_uid):
            montage = mask_montage(masks, outcome.study_uid)
            told["montage"] = picture(
                stores.pictures.write("mask_store", outcome.study_uid, montage)
            )
        return told

    yield from record_outcomes(
        context, outcomes, facts, lambda one: _mask_version(masks, one)
    )


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"pandas", "parquet"},
    deps=[study_headers, source_labels],
    retry_policy=RETRIES,
    pool=TABLES,
    automation_condition=follows(
        "study_headers", "source_labels", some_of=["study_headers"], by_content=True
    ),
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
    good = plot_histograms(usable_studies(table))
    chart = stores.pictures.write_chart("metadata_table", "distributions", good)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(table),
            "standing": table_of_counts("standing", Counter(table["status"])),
            "quarantined": table_of_counts(
                "code", Counter(table["quarantine_code"].dropna())
            ),
            "distributions": picture(chart),
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
    stored fails. Studies that were withdrawn are left out, wherever their files still
    lie.
    """
    sources, stores, settings = source.open(), store.open(), store.conversion()
    withdrawn = stores.withdrawn.study_uids()
    folders, others = [], []
    for study_uid in context.partition_keys:
        if study_uid in withdrawn:
            continue
        folder = sources.study(study_uid)
        if folder is None:
            others.append(keep_study(stores, study_uid) or _gone(study_uid))
        else:
            folders.append(folder)
    retained = [outcome for outcome in others if outcome.action is not Outcome.FAILED]
    if retained:
        context.log.warning(
            "%s no images any more, such as %s; what is stored is kept.",
            count(len(retained), "study", "has", "have"),
            retained[0].study_uid,
        )
    return study_tasks(folders, stores, settings), others


def _gone(study_uid: str) -> StudyOutcome:
    return StudyOutcome(
        study_uid=study_uid,
        action=Outcome.FAILED,
        message="It has no images in the source or the inbox. Delete the partition or "
        "bring the images back.",
    )


def _facts(outcome: StudyOutcome) -> dict[str, Any]:
    return {
        "slices": outcome.slice_count,
        "source_bytes": outcome.source_bytes,
        "written_bytes": outcome.stored_bytes,
        "findings": ", ".join(outcome.codes) or "none",
    }


def _version(outcome: StudyOutcome) -> str:
    """Identify what was made of a study: its content, and whether it is trusted."""
    return version_of([outcome.content_hash, outcome.codes, outcome.action in _BAD])


def _mask_version(masks: GivenMaskStore, outcome: StudyOutcome) -> str:
    note = masks.read_note(outcome.study_uid)
    mask_hash = None if note is None else note.mask_hash
    return version_of([mask_hash, _version(outcome)])


def _record_version(metadata: MetadataStore, outcome: StudyOutcome) -> str:
    """Identify all that the store has noted of a study's headers."""
    if not is_uid(outcome.study_uid):
        return _version(outcome)
    return version_of(
        [metadata.record_version(outcome.study_uid), outcome.action in _BAD]
    )
