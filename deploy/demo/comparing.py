"""What a cluster has made against what one process has made of the same studies."""

import hashlib
import io
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from csfd_core.store.paths import COMPARISON_REPORT, LEAKAGE_REPORT
from deploy.demo.machines import DemoError
from deploy.demo.seaweed import BUCKET, open_client

SAME_BYTES: Final = ("slices", "masks", "predicted_masks", "crops")
SAME_NUMBERS: Final = (
    f"{COMPARISON_REPORT}/models.csv",
    f"{COMPARISON_REPORT}/predictions.csv",
    f"{LEAKAGE_REPORT}/protocols.csv",
)
_TIMES: Final = (
    "train_s",
    "ms_per_study",
    "seconds",
)  # of columns: those that may differ


@dataclass(frozen=True, slots=True)
class Same:
    """What was compared, and found to be the same."""

    files: int
    numbers: int


def files_below(folder: Path) -> dict[str, bytes]:
    """Return what is compared of a store on a disk."""
    return {
        name: path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and _is_compared(name := path.relative_to(folder).as_posix())
    }


def objects_below(variables: Mapping[str, str], prefix: str) -> dict[str, bytes]:
    """Return what is compared of a store on S3, read by botocore alone."""
    with closing(open_client(variables)) as client:
        pages = client.get_paginator("list_objects_v2").paginate(
            Bucket=BUCKET, Prefix=f"{prefix}/"
        )
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        names = {key: key.removeprefix(f"{prefix}/") for key in keys}
        return {
            name: client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            for key, name in names.items()
            if _is_compared(name)
        }


def require_same(ours: Mapping[str, bytes], theirs: Mapping[str, bytes]) -> Same:
    """Require the same files with the same bytes, and tables with the same numbers.

    Raises:
        DemoError: If anything differs; the first few are named.
    """
    differ = sorted(ours.keys() ^ theirs.keys())
    differ += [
        name
        for name in sorted(ours.keys() & theirs.keys() - set(SAME_NUMBERS))
        if _digest(ours[name]) != _digest(theirs[name])
    ]
    if differ:
        told = ", ".join(differ[:5])
        raise DemoError(f"{len(differ)} files differ from those of one process: {told}")
    numbers = 0
    for name in SAME_NUMBERS:
        if name in ours:
            numbers += _require_same_numbers(name, ours[name], theirs[name])
    return Same(len(ours), numbers)


def _is_compared(name: str) -> bool:
    return name.split("/", 1)[0] in SAME_BYTES or name in SAME_NUMBERS


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _require_same_numbers(name: str, ours: bytes, theirs: bytes) -> int:
    """Compare two tables; return how many numbers they have."""
    a, b = (pd.read_csv(io.BytesIO(table)) for table in (ours, theirs))
    if list(a.columns) != list(b.columns) or len(a) != len(b):
        raise DemoError(f"{name} has other rows or columns than that of one process.")
    columns = [c for c in a.columns if not any(part in c for part in _TIMES)]
    a, b = (t.sort_values(_text_columns(t)).reset_index(drop=True) for t in (a, b))
    count = 0
    for column in columns:
        if pd.api.types.is_numeric_dtype(a[column]):
            same = np.array_equal(a[column], b[column], equal_nan=True)
            count += len(a)
        else:
            same = a[column].astype(str).equals(b[column].astype(str))
        if not same:
            raise DemoError(
                f"{name} differs in {column} from that of one process:\n"
                f"{pd.DataFrame({'ours': a[column], 'theirs': b[column]}).head(10)}"
            )
    return count


def _text_columns(table: pd.DataFrame) -> list[str]:
    return [c for c in table.columns if not pd.api.types.is_numeric_dtype(table[c])]
