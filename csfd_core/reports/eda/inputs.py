"""What the exploratory analysis rests on, read from the sources and the store."""

import hashlib
import io
from dataclasses import dataclass

import pandas as pd

from csfd_core.data_kind import DataKind
from csfd_core.reports.eda.quality import count_slices_by_syntax
from csfd_core.store import paths
from csfd_core.store.labels import LabelTable, read_all_boxes, read_all_labels
from csfd_core.store.metadata import STUDIES_COLUMNS
from csfd_core.store.source import Sources, data_kind
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LABEL_COLUMNS


@dataclass(frozen=True, slots=True, kw_only=True)
class EdaInputs:
    """Tables of the analysis.

    ``studies`` is the table of studies; from a label table alone its other columns are
    null. ``syntaxes`` counts slices by transfer syntax, ``None`` without a store.
    ``stores`` is ``None`` where there are no images.
    """

    studies: pd.DataFrame
    boxes: pd.DataFrame
    syntaxes: pd.DataFrame | None
    labels_without_images: int
    kind: DataKind
    stores: Stores | None


def read_inputs(
    sources: Sources, stores: Stores | None, *, with_headers: bool = True
) -> EdaInputs:
    """Read the tables.

    Args:
        sources: Where labels and boxes are.
        stores: The store; where it has no table of studies, the labels alone count.
        with_headers: Count slices by transfer syntax, from all header tables.

    Raises:
        SourceError: If a table cannot be read.
    """
    withdrawn = stores.withdrawn.study_uids() if stores else frozenset[str]()
    labels = (
        stores.label_history.read_labels(sources.locations, withdrawn)
        if stores
        else read_all_labels(sources.locations)
    )
    boxes = read_all_boxes(sources.locations, withdrawn)
    kind = data_kind(sources.locations)
    if stores is None or not stores.root.exists(paths.STUDIES):
        return EdaInputs(
            studies=studies_from_labels(labels),
            boxes=boxes.table,
            syntaxes=None,
            labels_without_images=len(labels.table),
            kind=kind,
            stores=None,
        )
    studies = stores.metadata.read_studies()
    return EdaInputs(
        studies=studies,
        boxes=boxes.table,
        syntaxes=count_slices_by_syntax(stores.metadata) if with_headers else None,
        labels_without_images=len(set(labels.table.index) - set(studies["study_uid"])),
        kind=kind,
        stores=stores,
    )


def studies_from_labels(labels: LabelTable) -> pd.DataFrame:
    """Make a table of studies from labels alone; what images tell is null."""
    table = pd.DataFrame({"study_uid": labels.table.index.astype("str")})
    for name, _, _ in STUDIES_COLUMNS[1:]:
        if name in LABEL_COLUMNS:
            table[name] = labels.table[name].to_numpy()
        else:
            table[name] = pd.Series([None] * len(table), dtype="object")
    table["status"] = "labels only"
    table["has_mask"] = False
    return table.sort_values("study_uid", ignore_index=True)


def content_digest(inputs: EdaInputs, version: int) -> str:
    """Return the identity of the inputs and of the way they are shown.

    The table of studies holds the identity of every study's slices and mask.
    """
    sink = io.StringIO()
    inputs.studies.to_csv(sink, index=False)
    inputs.boxes.to_csv(sink, index=False)
    tail = f"{inputs.labels_without_images} {inputs.kind} {version}"
    text = f"{sink.getvalue()}\n{tail} {inputs.stores is not None}"
    return hashlib.sha256(text.encode()).hexdigest()
