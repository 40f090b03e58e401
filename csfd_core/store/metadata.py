"""Metadata: the headers of each study, and one table of all studies.

``metadata/slices/<study_uid>.parquet`` has one row per slice with its header facts; its
note is the study's record: standing, geometry and the identity of its content.
``metadata/studies.parquet`` has one row per study, built from the records, the labels
and the boxes.
"""

import dataclasses
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from types import UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from csfd_core.dicom.findings import CATALOGUE, Finding, Severity, Status
from csfd_core.dicom.geometry import VolumeGeometry, positions_along_normal_mm
from csfd_core.dicom.headers import SliceHeader
from csfd_core.store.labels import BoxTable, LabelTable
from csfd_core.store.locations import Location
from csfd_core.store.parquet import read_note, read_parquet, write_parquet
from csfd_core.store.study import StudyScan
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES, OVERALL, require_uid

SLICES_FOLDER: Final = "metadata/slices"
STUDIES_PATH: Final = "metadata/studies.parquet"
_READERS: Final = 16  # reading footers waits for the disk or the network
SCAN_VERSION: Final = 1  # raised when older records must be made again

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
    ("quarantine_code", pa.string(), "Why it is quarantined; null: it is not."),
    ("quarantine_reason", pa.string(), "What was seen, and what to do."),
    ("warning_codes", pa.list_(pa.string()), "Findings that do not quarantine it."),
    ("transfer_syntax_uid", pa.string(), "The most frequent of its slices."),
    ("patient_key", pa.string(), "Digest of the PatientID."),
    ("source_bytes", pa.int64(), "Size of its files."),
    ("content_hash", pa.string(), "Identity of the content of its slices."),
    ("mask_hash", pa.string(), "Identity of its mask."),
)
_STUDIES_SCHEMA: Final = pa.schema([(name, kind) for name, kind, _ in STUDIES_COLUMNS])


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRecord:
    """What the store knows of one study. Kept as the note of its header table."""

    study_uid: str
    status: str
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

    @classmethod
    def of(cls, scan: StudyScan) -> "StudyRecord":
        """Summarize a scan."""
        first = scan.headers[0] if scan.headers else None
        syntaxes = Counter(header.transfer_syntax_uid for header in scan.headers)
        return cls(
            study_uid=scan.study_uid,
            status=str(scan.status),
            findings=tuple((f.code, f.detail) for f in scan.findings),
            notes=scan.notes,
            slice_count=len(scan.headers),
            slice_thickness_mm=first.slice_thickness_mm if first else None,
            transfer_syntax_uid=max(syntaxes, key=syntaxes.__getitem__, default=None),
            patient_key=first.patient_key if first else None,
            geometry=asdict(scan.geometry) if scan.geometry else None,
            source_bytes=scan.folder.size_bytes,
            content_hash=scan.content_hash,
            mask_hash=scan.mask_hash,
            fingerprint=scan.folder.fingerprint,
            mask_fingerprint=scan.folder.mask_fingerprint,
        )

    @property
    def is_quarantined(self) -> bool:
        """Whether the study must not be used."""
        return self.status == Status.QUARANTINED

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
        return f"{SLICES_FOLDER}/{require_uid(study_uid)}.parquet"

    def write_headers(
        self, record: StudyRecord, headers: Sequence[SliceHeader]
    ) -> None:
        """Write the headers of a study and its record."""
        columns: dict[str, Any] = {
            field.name: [getattr(header, field.name) for header in headers]
            for field in dataclasses.fields(SliceHeader)
        }
        columns["slice_index"] = list(range(len(headers)))
        has_place = record.geometry is not None
        columns["z_mm"] = (
            positions_along_normal_mm(headers) if has_place else [None] * len(headers)
        )
        table = pa.table(columns, schema=_slices_schema())
        write_parquet(self.location, self.path(record.study_uid), table, asdict(record))

    def read_record(self, study_uid: str) -> StudyRecord | None:
        """Return the record of a study, ``None`` where it was never scanned."""
        path = self.path(study_uid)
        if not self.location.exists(path):
            return None
        return _to_record(read_note(self.location, path))

    def read_headers(self, study_uid: str) -> tuple[StudyRecord, list[SliceHeader]]:
        """Return the record of a study and its headers, head to feet."""
        table, note = read_parquet(self.location, self.path(study_uid))
        names = [field.name for field in dataclasses.fields(SliceHeader)]
        rows = table.select(names).to_pylist()
        headers = [
            SliceHeader(**{key: _tuples(value) for key, value in row.items()})
            for row in rows
        ]
        return _to_record(note), headers

    def read_positions_mm(self, study_uid: str) -> npt.NDArray[np.float64]:
        """Return the position of each slice along the normal, head to feet, in mm."""
        table, _ = read_parquet(self.location, self.path(study_uid), ["z_mm"])
        return np.asarray(table.column("z_mm"), dtype=np.float64)

    def read_records(self) -> list[StudyRecord]:
        """Return the records of all studies, sorted by study."""
        with ThreadPoolExecutor(_READERS) as pool:
            records = pool.map(self.read_record, self.study_uids())
            return [record for record in records if record is not None]

    def study_uids(self) -> list[str]:
        """Return the studies that have a header table, sorted."""
        names = [entry.name for entry in self.location.entries(SLICES_FOLDER)]
        return [n.removesuffix(".parquet") for n in names if n.endswith(".parquet")]

    def write_studies(self, studies: pd.DataFrame) -> None:
        """Write the table of studies atomically."""
        table = pa.Table.from_pandas(studies, _STUDIES_SCHEMA, preserve_index=False)
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        self.location.write(STUDIES_PATH, sink.getvalue())

    def read_studies(self) -> pd.DataFrame:
        """Return the table of studies."""
        raw = self.location.read(STUDIES_PATH)
        studies: pd.DataFrame = pq.read_table(io.BytesIO(raw)).to_pandas()
        return studies


def build_studies_table(
    records: Iterable[StudyRecord], labels: LabelTable, boxes: BoxTable
) -> pd.DataFrame:
    """Build the table of studies, one row per record, sorted by study.

    Studies without labels have null labels. Labels of studies without images are not
    rows; ``labels_without_images`` lists them.
    """
    contradictory = set(labels.contradictions())
    box_counts = boxes.table["study_uid"].value_counts()
    rows = [
        _to_row(record, record.study_uid in contradictory, box_counts)
        for record in sorted(records, key=lambda record: record.study_uid)
    ]
    names = [name for name in _STUDIES_SCHEMA.names if name not in LABEL_COLUMNS]
    table = pd.DataFrame(rows, columns=names)
    table = table.merge(labels.table, how="left", left_on="study_uid", right_index=True)
    return table[list(_STUDIES_SCHEMA.names)]


def labels_without_images(
    records: Iterable[StudyRecord], labels: LabelTable
) -> list[str]:
    """Return the labelled studies that have no images, sorted."""
    return sorted(set(labels.table.index) - {record.study_uid for record in records})


def _to_row(
    record: StudyRecord, is_contradictory: bool, box_counts: "pd.Series[int]"
) -> dict[str, Any]:
    geometry = record.volume_geometry()
    quarantine = [
        Finding(code, detail)
        for code, detail in record.findings
        if CATALOGUE[code].severity is Severity.QUARANTINE
    ]
    warnings = [c for c in record.codes if CATALOGUE[c].severity is Severity.WARNING]
    if is_contradictory:
        warnings.append("contradictory_labels")
    status = record.status
    if warnings and not quarantine:
        status = str(Status.WARNING)
    facts: dict[str, Any] = dict.fromkeys(
        ("rows", "columns", "pixel_spacing_mm", "slice_spacing_mm"), None
    )
    facts |= {"z_extent_mm": None, "z_descending": None}
    if geometry is not None:
        facts = {
            "rows": geometry.shape_zyx[1],
            "columns": geometry.shape_zyx[2],
            "pixel_spacing_mm": float(np.mean(geometry.spacing_zyx_mm[1:])),
            "slice_spacing_mm": geometry.spacing_zyx_mm[0],
            "z_extent_mm": geometry.z_extent_mm,
            "z_descending": geometry.z_descending,
        }
    return {
        "study_uid": record.study_uid,
        "status": status,
        "slice_count": record.slice_count,
        **facts,
        "slice_thickness_mm": record.slice_thickness_mm,
        "has_mask": record.mask_fingerprint is not None,
        "box_count": int(box_counts.get(record.study_uid, 0)),
        "quarantine_code": quarantine[0].code if quarantine else None,
        "quarantine_reason": quarantine[0].reason if quarantine else None,
        "warning_codes": warnings,
        "transfer_syntax_uid": record.transfer_syntax_uid,
        "patient_key": record.patient_key,
        "source_bytes": record.source_bytes,
        "content_hash": record.content_hash,
        "mask_hash": record.mask_hash,
    }


def _to_record(note: dict[str, Any]) -> StudyRecord:
    return StudyRecord(**{key: _tuples(value) for key, value in note.items()})


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
