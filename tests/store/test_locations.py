"""What is read of a place where something may be or not be."""

from pathlib import Path

import pytest

from csfd_core.errors import SourceError
from csfd_core.store.locations import Location


def test_absent_file_is_none_and_any_other_fault_is_told(tmp_path: Path) -> None:
    location = Location(tmp_path)
    location.write("folder/file", b"content")
    assert location.read_if_there("folder/file") == b"content"
    assert location.read_if_there("folder/absent") is None
    assert location.read_if_there("absent/file") is None
    assert location.read_if_there("folder/file/below") is None
    with pytest.raises(SourceError, match="Is a directory"):
        location.read_if_there("folder")
