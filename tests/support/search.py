"""A search through everything below a folder, as an auditor would do it."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq


def naming(
    folder: Path, wanted: Iterable[bytes], but: Iterable[str] = ()
) -> dict[str, bytes]:
    """Return the files whose name or content holds one of some texts, and which.

    Parquet is read as text as well, as its pages are compressed.

    Args:
        folder: Where to search.
        wanted: What to search for.
        but: Folders and files right below it that are left out.
    """
    left_out = set(but)
    texts = list(wanted)
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name.split("/")[0] in left_out or not path.is_file():
            continue
        for content in (name.encode(), *contents(path)):
            held = [text for text in texts if text in content]
            if held:
                found[name] = held[0]
    return found


def contents(path: Path) -> Iterator[bytes]:
    raw = path.read_bytes()
    yield raw
    if path.suffix == ".parquet":
        table = pq.read_table(io.BytesIO(raw))
        for column in table.columns:
            if str(column.type) in ("string", "binary", "large_string"):
                for value in column.to_pylist():
                    yield value if isinstance(value, bytes) else str(value).encode()
