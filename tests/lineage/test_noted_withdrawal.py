"""Withdrawals that label files ask for: done without a person, within bounds."""

from pathlib import Path

import pytest

from csfd_core.lineage.withdrawal import withdraw_noted
from csfd_core.store.label_notes import LabelNote
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores


def test_label_files_that_would_empty_the_store_are_held_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = Stores(Location(tmp_path))
    notes = [
        LabelNote(
            study_uid=uid, labels={}, reader=None, date=None, slices=None, withdrawn="x"
        )
        for uid in ("1.2.3", "1.2.4", "1.2.5")
    ]
    monkeypatch.setenv("CSFD_MAX_WITHDRAWALS", "2")
    assert "withdraw 3 studies at once, more than 2; none is" in withdraw_noted(
        stores, notes
    )
    assert stores.withdrawn.study_uids() == set()
    assert (
        withdraw_noted(stores, notes[:2]) == "2 studies were withdrawn by label files."
    )
    # Of those that were withdrawn before none is asked for again.
    assert withdraw_noted(stores, notes[:2]) == ""
    assert withdraw_noted(stores, notes) == "1 study was withdrawn by label files."
