"""Metadata: the headers of each study, and one table of all studies.

``metadata/slices/<study_uid>.parquet`` has one row per slice with its header facts; its
note is the study's record: standing, geometry and the identity of its content.
``metadata/listings/<study_uid>.json`` is there where files were touched since, or
copied once more, without another content: the listing that the record stands for, too.
``metadata/studies.parquet`` has one row per study, built from the records, the labels
and the boxes.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from csfd_core.data_kind import DataKind
from csfd_core.dicom.findings import Finding, Status
from csfd_core.dicom.geometry import VolumeGeometry, positions_along_normal_mm
from csfd_core.dicom.headers import SliceHeader
from csfd_core.errors import SourceError, StoreError
from csfd_core.store import paths
from csfd_core.store.locations import FileEntry, Location
from csfd_core.store.note_index import read_notes
from csfd_core.store.parquet import read_note, read_parquet, write_parquet
from csfd_core.store.stamp import stamp
from csfd_core.store.turns import one_writer
from csfd_core.vocabulary import LEVEL_NAMES, OVERALL

SCAN_VERSION: Final = 2  # raised when studies must be scanned again
_READABLE: Final = frozenset((1, SCAN_VERSION))  # until they are, and if they are gone

# Name, type and meaning of each column of the table of studies, in their order.
STUDIES_COLUMNS: Final[tuple[tuple[str, pa.DataType, str], ...]] = (
    ("study_uid", pa.string(), "StudyInstanceUID."),
    ("status", pa.string(), "good, warning or quarantined."),
    ("slice_count", pa.int64(), "DICOM slices."),
    ("rows", pa.int64(), "Pixels along a column."),
    ("columns", pa.int64(), "Pixels along a row."),
    ("pixel_spacing_mm", pa.float64(), "Between pixels, mean of both directions."),
    ("slice_spacing_mm", pa.float64(), "Between slices, along their normal."),
    ("slice_thickness_mm", pa.float64(), "As in the header."),
    ("z_extent_mm", pa.float64(), "From the first to the last slice."),
    ("z_descending", pa.bool_(), "z falls as the instance number rises."),
    ("has_mask", pa.bool_(), "The source has a vertebra mask."),
    ("box_count", pa.int64(), "Fracture boxes in the source."),
    (OVERALL, pa.int8(), "1 where any vertebra is fractured; null: unlabelled."),
    *((name, pa.int8(), f"1 where {name} is fractured.") for name in LEVEL_NAMES),
    ("label_version", pa.int64(), "Which of its labels; null: never labelled."),
    ("quarantine_code", pa.string(), "Why it is quarantined; null: it is not."),
    ("quarantine_reason", pa.string(), "What was seen, and what to do."),
    ("warning_codes", pa.list_(pa.string()), "Findings that do not quarantine it."),
    ("transfer_syntax_uid", pa.string(), "The most frequent of its slices."),
    ("patient_key", pa.string(), "Digest of the PatientID."),
    ("source_bytes", pa.int64(), "Size of its files."),
    ("content_hash", pa.string(), "Identity of the content of its slices."),
    ("mask_hash", pa.string(), "Identity of its mask."),
    ("labels_digest", pa.string(), "Identity of its labels and boxes; empty: none."),
)
_STUDIES_SCHEMA: Final = pa.schema([(name, kind) for name, kind, _ in STUDIES_COLUMNS])


# Header facts that tables of scan version 1 do not have.
_UNKNOWN: Final[dict[str, Any]] = {
    "has_odd_uid": False,
    "acquisition_number": None,
    "is_localizer": False,
    "kernel_key": None,
    "is_bone_kernel": False,
    "high_bit": None,
    "is_rescaled_to_hu": True,
}


# Digests of the listing of a study's slice files and of its mask, if it has one.
Listing = tuple[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRecord:
    """What the store knows of one study. Kept as the note of its header table."""

    study_uid: str
    status: Status
    findings: tuple[tuple[str, str], ...]  # (code, detail), in order of precedence
    notes: tuple[str, ...]
    slice_count: int
    slice_thickness_mm: float | None
    transfer_syntax_uid: str | None
    patient_key: str | None
    geometry: dict[str, Any] | None
    source_bytes: int
    content_hash: str
    mask_hash: str | None
    fingerprint: str
    mask_fingerprint: str | None
    scan_version: int = SCAN_VERSION
    volume: int = 1  # that was read; 1 is read unless another is chosen
    volumes: tuple[dict[str, Any], ...] = ()  # facts of each; (): there is no choice

    @property
    def is_quarantined(self) -> bool:
        """Whether the study must not be used."""
        return self.status is Status.QUARANTINED

    @property
    def codes(self) -> list[str]:
        """Codes of all findings, in order of precedence."""
        return [code for code, _ in self.findings]

    @property
    def reasons(self) -> list[str]:
        """What was seen and what to do, in the same order."""
        return [Finding(code, detail).reason for code, detail in self.findings]

    def volume_geometry(self) -> VolumeGeometry | None:
        """Return the geometry, ``None`` where the study has none."""
        if self.geometry is None:
            return None
        values = {key: _tuples(value) for key, value in self.geometry.items()}
        return VolumeGeometry(**values)


@dataclass(frozen=True, slots=True)
class MetadataStore:
    """Header tables, study records and the table of studies."""

    location: Location

    def path(self, study_uid: str) -> str:
        """Return the path of a study's header table, relative to the store.

        Raises:
            IdentifierError: If ``study_uid`` is no valid UID.
        """
        return paths.of_study(paths.HEADERS, study_uid)

    def write_headers(
        self, record: StudyRecord, headers: Sequence[SliceHeader]
    ) -> None:
        """Write the headers of a study and its record."""
        columns: dict[str, Any] = {
            field.name: [getattr(header, field.name) for header in headers]
            for field in dataclasses.fields(SliceHeader)
        }
        columns["slice_index"] = list(range(len(headers)))
        has_geometry = record.geometry is not None
        columns["z_mm"] = (
            positions_along_normal_mm(headers)
            if has_geometry
            else [None] * len(headers)
        )
        table = pa.table(columns, schema=_slices_schema())
        write_parquet(self.location, self.path(record.study_uid), table, asdict(record))

    def listing_path(self, study_uid: str) -> str:
        """Return the path of a study's newest listing, relative to the store.

        Raises:
            IdentifierError: If ``study_uid`` is no valid UID.
        """
        return paths.of_study(paths.LISTINGS, study_uid, ".json")

    def holds(self, record: StudyRecord, headers: Sequence[SliceHeader]) -> bool:
        """Say whether a study is stored just so, whatever the times of its files."""
        stored = self.read_record(record.study_uid)
        if stored is None or _content_of(stored) != _content_of(record):
            return False
        return self.read_headers(record.study_uid)[1] == list(headers)

    def write_listing(self, record: StudyRecord) -> None:
        """Keep that the stored record stands for the listing of another one, too.

        The record itself stays as it is, and with it all that is made from it.
        """
        stored = self.read_record(record.study_uid)
        note = {"now": _listing_of(record), "record": stored and _listing_of(stored)}
        self.location.write(
            self.listing_path(record.study_uid), json.dumps(note).encode()
        )

    def stands_for(self, record: StudyRecord, listing: Listing) -> bool:
        """Say whether a stored record describes files that are listed like this.

        One of an older scan version knows less of them than this csfd looks at.
        """
        if record.scan_version != SCAN_VERSION:
            return False
        recorded = _listing_of(record)
        if recorded == listing:
            return True
        path = self.listing_path(record.study_uid)
        content = self.location.read_if_there(path)
        if content is None:
            return False
        try:
            note = json.loads(content)
            return (tuple(note["now"]), tuple(note["record"])) == (listing, recorded)
        except (ValueError, KeyError, TypeError):  # of another origin: scan again
            return False

    def read_record(self, study_uid: str) -> StudyRecord | None:
        """Return the record of a study.

        ``None`` where it was never scanned, or by a csfd that wrote another form.
        """
        path = self.path(study_uid)
        if not self.location.exists(path):
            return None
        try:
            note = read_note(self.location, path)
        except (SourceError, FileNotFoundError):  # withdrawn meanwhile?
            if self.location.exists(path):
                raise
            return None
        return _to_record(note) if note["scan_version"] in _READABLE else None

    def record_version(self, study_uid: str) -> str | None:
        """Identify the record of a study, whatever the times of its files.

        Raises:
            IdentifierError: If ``study_uid`` is no valid UID.
        """
        record = self.read_record(study_uid)
        return None if record is None else stamp(_content_of(record))

    def read_headers(self, study_uid: str) -> tuple[StudyRecord, list[SliceHeader]]:
        """Return the record of a study and its headers, head to feet."""
        table, note = read_parquet(self.location, self.path(study_uid))
        names = {field.name for field in dataclasses.fields(SliceHeader)}
        rows = table.select([n for n in table.column_names if n in names]).to_pylist()
        headers = [
            SliceHeader(
                **_UNKNOWN | {key: _tuples(value) for key, value in row.items()}
            )
            for row in rows
        ]
        return _to_record(note), headers

    def read_positions_mm(self, study_uid: str) -> npt.NDArray[np.float64]:
        """Return the position of each slice along the normal, head to feet, in mm."""
        table, _ = read_parquet(self.location, self.path(study_uid), ["z_mm"])
        return np.asarray(table.column("z_mm"), dtype=np.float64)

    def read_instance_numbers(self, study_uid: str) -> list[int | None]:
        """Return the instance number of each slice, head to feet."""
        path = self.path(study_uid)
        table, _ = read_parquet(self.location, path, ["instance_number"])
        return list(table.column("instance_number").to_pylist())

    def read_sop_uids(self, study_uid: str) -> list[str | None]:
        """Return the SOPInstanceUID of each slice, head to feet."""
        table, _ = read_parquet(self.location, self.path(study_uid), ["sop_uid"])
        return list(table.column("sop_uid").to_pylist())

    def read_records(self) -> list[StudyRecord]:
        """Return the records of all studies, sorted by study."""
        notes = read_notes(self.location, paths.HEADERS).values()
        return [_to_record(n) for n in notes if n["scan_version"] in _READABLE]

    def record_entries(self) -> list[FileEntry]:
        """List the header tables of all studies, sorted by study."""
        entries = self.location.entries(paths.HEADERS)
        return [entry for entry in entries if entry.name.endswith(".parquet")]

    def study_uids(self) -> list[str]:
        """Return the studies that have a header table, sorted."""
        return [entry.name.removesuffix(".parquet") for entry in self.record_entries()]

    def update_studies(
        self, studies: pd.DataFrame, inputs: str, data_kind: DataKind
    ) -> bool:
        """Write the table as ``write_studies`` does, if it is built from other inputs.

        Returns:
            Whether it was written.
        """
        with one_writer(self.location, paths.STUDIES):
            if is_new := inputs != self.read_studies_inputs():
                self._write_studies(studies, inputs, data_kind)
            return is_new

    def write_studies(
        self, studies: pd.DataFrame, inputs: str, data_kind: DataKind
    ) -> None:
        """Write the table of studies atomically.

        Args:
            studies: With the columns of ``STUDIES_COLUMNS``.
            inputs: Identity of what the table was built from.
            data_kind: Whether the studies are synthetic.
        """
        with one_writer(self.location, paths.STUDIES):
            self._write_studies(studies, inputs, data_kind)

    def _write_studies(
        self, studies: pd.DataFrame, inputs: str, data_kind: DataKind
    ) -> None:
        table = pa.Table.from_pandas(studies, _STUDIES_SCHEMA, preserve_index=False)
        note = {"inputs": inputs, "data_kind": data_kind}
        write_parquet(self.location, paths.STUDIES, table, note)

    def drop_study(self, study_uid: str) -> None:
        """Take a study out of the table of studies, if it is in one.

        The table still says what it was built from: so it is built anew, with all that
        follows from it, by whoever compares that with the headers next.
        """
        if not self.location.exists(paths.STUDIES):
            return
        with one_writer(self.location, paths.STUDIES):
            table, note = read_parquet(self.location, paths.STUDIES)
            remaining = table.filter(pc.not_equal(table["study_uid"], study_uid))
            if remaining.num_rows < table.num_rows:
                write_parquet(self.location, paths.STUDIES, remaining, note)

    def read_studies(self) -> pd.DataFrame:
        """Return the table of studies.

        Raises:
            SourceError: If there is none yet.
        """
        table, _ = read_parquet(self.location, paths.STUDIES)
        studies: pd.DataFrame = table.to_pandas()
        return studies

    def read_label_digests(self) -> dict[str, str]:
        """Return the identity of the labels that each study of the table has.

        Empty where there is no table, or one of an older csfd.
        """
        if not self.location.exists(paths.STUDIES):
            return {}
        try:
            table, _ = read_parquet(self.location, paths.STUDIES)
        except StoreError:  # of another origin: it is built anew
            return {}
        if "labels_digest" not in table.column_names:
            return {}
        pairs = zip(table["study_uid"], table["labels_digest"], strict=True)
        return {uid.as_py(): digest.as_py() or "" for uid, digest in pairs}

    def read_data_kind(self) -> DataKind:
        """Say whether the studies in the table are synthetic.

        Raises:
            SourceError: If there is no table yet.
        """
        return DataKind(read_note(self.location, paths.STUDIES)["data_kind"])

    def read_studies_inputs(self) -> str | None:
        """Return what the table was built from, ``None`` where there is no table."""
        if not self.location.exists(paths.STUDIES):
            return None
        try:
            return str(read_note(self.location, paths.STUDIES)["inputs"])
        except StoreError:  # of another origin: it is built anew
            return None


def _listing_of(record: StudyRecord) -> Listing:
    return record.fingerprint, record.mask_fingerprint


def _content_of(record: StudyRecord) -> str:
    """Return a record as text, but for the times of its files."""
    note = asdict(record)
    del note["fingerprint"]
    note["mask_fingerprint"] = record.mask_fingerprint is not None
    return json.dumps(note, sort_keys=True)


def _to_record(note: dict[str, Any]) -> StudyRecord:
    values = {key: _tuples(value) for key, value in note.items()}
    return StudyRecord(**{**values, "status": Status(note["status"])})


def _tuples(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Turn lists, as JSON and Parquet give them, into tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _slices_schema() -> pa.Schema:
    """Derive the schema from the fields of ``SliceHeader``."""
    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    fields = [("slice_index", pa.int32()), ("z_mm", pa.float64())]
    for name, hint in get_type_hints(SliceHeader).items():
        options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        kind = next(option for option in options if option is not type(None))
        is_tuple = get_origin(kind) is tuple
        fields.append((name, pa.list_(pa.float64()) if is_tuple else types[kind]))
    return pa.schema(fields)
