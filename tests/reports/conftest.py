"""Figures that no test looks at."""

import pytest
from support.coarse import plain_figures


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw figures, and put a dot in place of their pictures, which cost more."""
    plain_figures(monkeypatch)
