"""Kinds of data: what is said of each, and what several are together."""

import pytest

from csfd_core.data_kind import DataKind


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (["phantom"], "phantom"),
        (["real", DataKind.REAL], "real"),
        (["real", "phantom"], "mixed"),
        (["mixed", "real"], "mixed"),
    ],
)
def test_no_phantom_passes_for_real(kinds: list[str], expected: str) -> None:
    assert DataKind.joined(kinds) == expected


def test_nothing_is_of_no_kind() -> None:
    with pytest.raises(ValueError, match="must hold at least one kind"):
        DataKind.joined([])


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="'imagined' is not a valid DataKind"):
        DataKind.joined(["imagined"])


def test_only_real_data_go_without_a_warning() -> None:
    assert {kind for kind in DataKind if kind.banner is None} == {DataKind.REAL}
    assert "no clinical meaning" in str(DataKind.MIXED.banner)
    assert DataKind.REAL.notice == "Research software; not for clinical use."
    assert DataKind.PHANTOM.notice.endswith("trained on a synthetic phantom.")
    cautions = {kind: kind.caution for kind in DataKind}
    assert all(told.startswith("Research software;") for told in cautions.values())
    meaningless = {k for k, told in cautions.items() if "nothing clinically" in told}
    assert meaningless == {DataKind.PHANTOM, DataKind.MIXED}
