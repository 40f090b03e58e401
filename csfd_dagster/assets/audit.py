"""The audit: a weekly look at everything that the store holds.

Checks of the other assets look at what a run has made; what happens to files afterwards
is seen here alone.
"""

from typing import Final

import dagster as dg

from csfd_core.ingest.convert import StudyTask, verify_slices
from csfd_core.store.source import StudyFolder
from csfd_core.store.standing import usable_studies
from csfd_dagster.assets.ingest import mask_store, metadata_table, slice_store
from csfd_dagster.assets.outcomes import FRESH_FOR_A_WEEK, OWNERS
from csfd_dagster.assets.segmentation import vertebra_masks
from csfd_dagster.checks.masks import check_masks, mask_check_specs
from csfd_dagster.checks.slices import (
    check_decoding,
    check_rows,
    check_spacing,
    slice_check_specs,
)
from csfd_dagster.resources.stores import (
    ExecutorResource,
    SourceResource,
    StoreResource,
)

GROUP: Final = "ingest"


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"parquet"},
    deps=[metadata_table, slice_store, mask_store, vertebra_masks],
    freshness_policy=FRESH_FOR_A_WEEK,
    code_version="1",
    check_specs=[
        *slice_check_specs(
            "store_audit",
            "rows_agree_with_source",
            "spacing_is_uniform",
            "slices_decode",
        ),
        *mask_check_specs("store_audit"),
    ],
)
def store_audit(
    source: SourceResource, store: StoreResource, executor: ExecutorResource
) -> dg.MaterializeResult:
    """Every study of the store, looked at again: rows, positions, slices, masks."""
    stores, sources = store.open(), source.open()
    table = stores.metadata.read_studies()
    good = [str(uid) for uid in usable_studies(table)["study_uid"]]
    stored = [uid for uid in good if stores.slices.read_note(uid) is not None]
    # The files of the source do not matter here: what is stored is decoded.
    folders = [StudyFolder(source=stores.root, path=uid, files=()) for uid in stored]
    tasks = [StudyTask(folder, stores) for folder in folders]
    outcomes = executor.run(verify_slices, tasks)
    read = {uid: stores.predicted_masks.read_note(uid) for uid in good}
    notes = {uid: note for uid, note in read.items() if note is not None}
    return dg.MaterializeResult(
        metadata={"studies": len(table), "masks": len(notes)},
        check_results=[
            check_rows(stores, sources),
            check_spacing(stores, good),
            check_decoding(outcomes),
            *check_masks(stores, notes),
        ],
    )
