"""Fixtures: two studies, one of them with a mask, and an empty store."""

from pathlib import Path

import pytest
from support.conversion import OTHER_UID
from support.dicom_studies import (
    neck_mask,
    reorient,
    volume_affine_ras,
    write_mask,
    write_study,
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    write_study(folder)
    moved = reorient(neck_mask(), volume_affine_ras(), (2, 1, 0), (True, False, True))
    write_mask(folder, *moved)
    write_study(folder, OTHER_UID, z_descending=False)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"
