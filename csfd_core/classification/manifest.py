"""The training manifest: every vertebra of every study, and what it may be used for.

One row per study and level, also where nothing was found: what is left out of training
is named with the reason. Folds follow from the patient alone; they are written down
here so that checks and reports need no second rule.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from csfd_core.data_kind import DataKind
from csfd_core.errors import StoreError
from csfd_core.evaluation.folds import assign_folds
from csfd_core.learning.splits import Split
from csfd_core.store import paths
from csfd_core.store.locations import Location
from csfd_core.store.parquet import read_note, read_parquet, write_parquet
from csfd_core.store.stamp import stamp
from csfd_core.store.standing import usable_studies
from csfd_core.store.stores import Stores
from csfd_core.store.turns import one_writer
from csfd_core.vocabulary import LEVEL_NAMES, OVERALL

LEAST_VISIBLE: Final = 0.3  # of a vertebra; less tells nothing of a fracture

NO_CROPS: Final = "the study has no crops, or crops of other settings"
NOT_FOUND: Final = "not found by the segmentation"
NOT_LABELLED: Final = "no label"
BARELY_VISIBLE: Final = "less than 30 % of it is in the scan"

# Name, type and meaning of each column.
MANIFEST_COLUMNS: Final[tuple[tuple[str, pa.DataType, str], ...]] = (
    ("study_uid", pa.string(), "StudyInstanceUID."),
    ("patient", pa.string(), "What folds are cut by: PatientID's digest, or study."),
    ("level", pa.string(), "C1 to C7."),
    ("label", pa.int8(), "1: fractured; null: unlabelled."),
    ("fold", pa.int32(), "Held out when this fold's models are trained."),
    ("is_test", pa.bool_(), "In the locked test set, which trains nothing."),
    ("crop_path", pa.string(), "File of its crops in the store; null: none."),
    ("crop_row", pa.int32(), "First row of its crops in that file."),
    ("crop_count", pa.int32(), "Slices across it."),
    ("content_hash", pa.string(), "Identity of what the crops are made from."),
    ("visible_share", pa.float64(), "How much of the vertebra the scan shows, 0 to 1."),
    ("confidence", pa.float64(), "Of the segmentation, 0 to 1."),
    ("standing", pa.string(), "Whether the segmentation had seen the study."),
    ("slice_labels", pa.list_(pa.int8()), "1: a fracture box lies on the slice."),
    ("left_out", pa.string(), "Why it is not used; null: it is."),
)
_SCHEMA: Final = pa.schema([(name, kind) for name, kind, _ in MANIFEST_COLUMNS])


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The table, and what its crops look like."""

    table: pd.DataFrame  # columns as in MANIFEST_COLUMNS
    crop: Mapping[str, Any]  # settings of the crops
    data_kind: DataKind
    inputs: str  # identity of all that it was built from

    @property
    def usable(self) -> pd.DataFrame:
        """Rows that training and scoring may use."""
        return self.table[self.table["left_out"].isna()]

    @property
    def visible(self) -> pd.DataFrame:
        """Rows that can be predicted, labelled or not."""
        seen = self.table["left_out"].isna() | (self.table["left_out"] == NOT_LABELLED)
        return self.table[seen & self.table["crop_path"].notna()]


def write_manifest(stores: Stores, wanted: Mapping[str, Any]) -> Manifest:
    """Build and keep the manifest of everything in the crop store.

    Args:
        stores: Where the table of studies and the crops are.
        wanted: Settings of the crops; vertebrae whose crops have others are left out.
    """
    made_from = _made_from(stores, wanted)  # first: what changes meanwhile counts
    studies = stores.metadata.read_studies()
    studies = usable_studies(studies)
    folds = assign_folds(studies)
    rows: list[dict[str, Any]] = []
    pairs = zip(studies.itertuples(), folds.itertuples(), strict=True)
    for study, assigned in pairs:
        labels = {name: getattr(study, name) for name in LEVEL_NAMES}
        shared = {
            "study_uid": assigned.study_uid,
            "patient": assigned.patient,
            "fold": assigned.fold,
            "is_test": assigned.is_test,
        }
        rows += rows_of_study(stores, shared, labels, wanted)
    table, note = _tabled(rows, wanted, stores.metadata.read_data_kind())
    note["made_from"] = made_from
    with one_writer(stores.root, paths.MANIFEST):
        if made_from != _made_from(stores, wanted) and manifest_is_current(
            stores, wanted
        ):
            return read_manifest(stores.root)  # another one's, who has seen more
        write_parquet(stores.root, paths.MANIFEST, table, note)
    for study_uid in stores.withdrawn.study_uids() & {*table["study_uid"].to_pylist()}:
        drop_study(stores.root, study_uid)  # it was withdrawn meanwhile
    return _manifest(table, note)


def manifest_of(
    rows: Sequence[Mapping[str, Any]], wanted: Mapping[str, Any], data_kind: DataKind
) -> Manifest:
    """Return a manifest of rows that ``rows_of_study`` gave, without keeping it."""
    return _manifest(*_tabled(rows, wanted, data_kind))


def read_manifest(root: Location) -> Manifest:
    """Read the manifest of a store.

    Raises:
        StoreError: If there is none yet.
    """
    if not root.exists(paths.MANIFEST):
        raise StoreError(
            "The store has no training manifest. Materialize training_manifest first."
        )
    return _manifest(*read_parquet(root, paths.MANIFEST))


def drop_study(root: Location, study_uid: str) -> None:
    """Take a study out of the manifest, if it is in one; all other rows stay."""
    if not root.exists(paths.MANIFEST):
        return
    with one_writer(root, paths.MANIFEST):
        table, note = read_parquet(root, paths.MANIFEST)
        remaining = table.filter(pc.not_equal(table["study_uid"], study_uid))
        if remaining.num_rows < table.num_rows:
            note = {**note, "inputs": _digest(remaining.to_pylist())}
            write_parquet(root, paths.MANIFEST, remaining, note)


def manifest_inputs(root: Location) -> str | None:
    """Return the identity of a store's manifest, ``None`` where it has none."""
    if not root.exists(paths.MANIFEST):
        return None
    return str(read_note(root, paths.MANIFEST)["inputs"])


def manifest_is_current(stores: Stores, wanted: Mapping[str, Any]) -> bool:
    """Say whether a manifest is there and would be the same if it were built again.

    Compares listings: no crop is read.
    """
    if not stores.root.exists(paths.MANIFEST):
        return False
    note = read_note(stores.root, paths.MANIFEST)
    return note.get("made_from") == _made_from(stores, wanted)


def patients_in_two_folds(table: pd.DataFrame) -> list[str]:
    """Return the patients whose rows do not all have the same fold and standing."""
    counts = table.groupby("patient")[["fold", "is_test"]].nunique().max(axis=1)
    return sorted(str(patient) for patient in counts.index[counts > 1])


def labels_of(table: pd.DataFrame, studies: Sequence[str]) -> pd.DataFrame:
    """Return the labels of studies, also of vertebrae that were not found.

    Args:
        table: Rows of a manifest.
        studies: In the order of the result.

    Returns:
        One row per study, columns as in ``LABEL_COLUMNS``; NaN where unknown. A study
        is fractured where any level is, and intact where all are known to be.
    """
    rows = table[table["study_uid"].isin(studies)]
    labels = rows.assign(label=rows["label"].astype("Float64")).pivot_table(
        index="study_uid", columns="level", values="label", dropna=False
    )
    labels = labels.reindex(index=list(studies), columns=list(LEVEL_NAMES))
    labels = labels.astype(float)
    overall = labels.max(axis=1, skipna=True)
    overall = overall.where((overall == 1) | labels.notna().all(axis=1))
    labels.insert(0, OVERALL, overall)
    return labels


def balance_of_folds(table: pd.DataFrame) -> pd.DataFrame:
    """Return studies, vertebrae and the share of fractured ones per fold.

    Args:
        table: Rows that are used.

    Returns:
        Columns ``fold`` (``test`` for the locked set), ``studies``, ``vertebrae``,
        ``fractured``, ``share``.
    """
    name = table["fold"].astype(str).where(~table["is_test"], Split.TEST)
    groups = table.assign(fold=name).groupby("fold", sort=True)
    frame = groups.agg(
        studies=("study_uid", "nunique"),
        vertebrae=("label", "size"),
        fractured=("label", "sum"),
    ).reset_index()
    frame["share"] = frame["fractured"] / frame["vertebrae"]
    return frame


def rows_of_study(
    stores: Stores,
    shared: Mapping[str, Any],
    labels: Mapping[str, Any],
    wanted: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return the seven rows of a study.

    Args:
        stores: Where its crops are.
        shared: Its ``study_uid``, ``patient``, ``fold`` and ``is_test``.
        labels: By level.
        wanted: Settings of the crops; of others none are taken.
    """
    study_uid = str(shared["study_uid"])
    note = stores.crops.read_note(study_uid)
    if note is not None and note.crop != wanted:
        note = None
    by_level: dict[str, pd.DataFrame] = {}
    if note is not None:
        facts = stores.crops.read_facts(study_uid).to_pandas()
        facts["row"] = range(len(facts))
        by_level = {str(name): crops for name, crops in facts.groupby("level")}
    rows = []
    for level in LEVEL_NAMES:
        label = None if pd.isna(labels[level]) else int(labels[level])
        row: dict[str, Any] = {**shared, "level": level, "label": label}
        crops = by_level.get(level)
        if crops is None or note is None:
            reason = NO_CROPS if note is None else NOT_FOUND
            row |= {"crop_path": None, "crop_count": 0, "left_out": reason}
        else:
            share = float(crops["visible_share"].iloc[0])
            marked = crops["slice_label"]
            row |= {
                "crop_path": stores.crops.path(study_uid),
                "crop_row": int(crops["row"].iloc[0]),
                "crop_count": len(crops),
                "content_hash": note.inputs,
                "visible_share": share,
                "confidence": float(crops["confidence"].iloc[0]),
                "standing": note.standing,
                "slice_labels": None if marked.isna().any() else marked.tolist(),
                "left_out": _reason(label, share),
            }
        rows.append({name: row.get(name) for name in _SCHEMA.names})
    return rows


def _reason(label: int | None, share: float) -> str | None:
    if share < LEAST_VISIBLE:
        return BARELY_VISIBLE
    return NOT_LABELLED if label is None else None


def _digest(rows: Sequence[Mapping[str, Any]]) -> str:
    return stamp(rows)


def _tabled(
    rows: Sequence[Mapping[str, Any]], wanted: Mapping[str, Any], data_kind: DataKind
) -> tuple[pa.Table, dict[str, Any]]:
    """Return the table and the note of a manifest's file."""
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=_SCHEMA)
    note = {"crop": dict(wanted), "data_kind": data_kind, "inputs": _digest(rows)}
    return table, note


def _made_from(stores: Stores, wanted: Mapping[str, Any]) -> str:
    """Identify the table of studies and the crops by what a listing tells of them."""
    facts = [
        dict(wanted),
        stores.metadata.read_studies_inputs(),
        [(e.name, e.size_bytes, e.token) for e in stores.root.entries(paths.CROPS)],
    ]
    return stamp(facts)


def _manifest(table: pa.Table, note: Mapping[str, Any]) -> Manifest:
    frame = table.to_pandas()
    frame["label"] = frame["label"].astype("Int8")
    return Manifest(
        table=frame,
        crop=note["crop"],
        data_kind=DataKind(note["data_kind"]),
        inputs=str(note["inputs"]),
    )
