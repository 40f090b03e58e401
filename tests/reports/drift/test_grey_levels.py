"""Grey levels of studies: what is read, and when it is read again."""

from pathlib import Path

import numpy as np
from support.drift_store import write_slices

from csfd_core.lineage.forward import files_of
from csfd_core.reports.drift.grey import median_of_tissue, read_grey_levels
from csfd_core.store.locations import Location
from csfd_core.store.paths import GREY_LEVELS as GREY
from csfd_core.store.stores import Stores


def test_grey_levels_are_those_of_the_slices(tmp_path: Path) -> None:
    stores = Stores(Location(tmp_path))
    volume = np.zeros((10, 16, 16), np.uint8)
    volume[:, :8] = 100  # lossless as JPEG: blocks of one value
    write_slices(stores, "1.2", volume)
    found = read_grey_levels(stores, ["1.2", "1.3"])
    assert list(found.index) == ["1.2"]
    assert found.loc["1.2"].to_dict() == {
        level: 0.5 * (level in (0, 100)) for level in range(256)
    }
    assert median_of_tissue(found.to_numpy()).tolist() == [100]


def test_grey_levels_are_read_once_and_again_where_slices_changed(
    tmp_path: Path,
) -> None:
    stores = Stores(Location(tmp_path))
    write_slices(stores, "1.2", np.full((10, 16, 16), 50, np.uint8))
    read_grey_levels(stores, ["1.2"])
    (kept,) = [path for path in files_of(stores, "1.2") if path.startswith(GREY)]
    before = (tmp_path / kept).stat().st_mtime_ns
    read_grey_levels(stores, ["1.2"])
    assert (tmp_path / kept).stat().st_mtime_ns == before
    write_slices(stores, "1.2", np.full((10, 16, 16), 90, np.uint8))
    assert read_grey_levels(stores, ["1.2"]).loc["1.2", 90] == 1
