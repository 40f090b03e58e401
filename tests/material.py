"""Where real material lies, for tests that use it and skip without it."""

from pathlib import Path

import pytest

MATERIAL = Path(__file__).resolve().parents[2] / "shared" / "data"


def require_material(*parts: str) -> Path:
    """Return a path in the material, or skip the test where it is absent."""
    path = MATERIAL.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"the real material is not at hand: {'/'.join(parts)}")
    return path
