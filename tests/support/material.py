"""Where real material lies, for tests that use it and skip without it."""

import os
from pathlib import Path

import pytest

from support.paths import ROOT

VARIABLE = "CSFD_TEST_MATERIAL"


def require_material(*parts: str) -> Path:
    """Return a path in the material, or skip the test where there is none.

    ``CSFD_TEST_MATERIAL`` says where it lies, from the checkout if relative. Who says
    so wants these tests to run: then what is absent fails them.
    """
    stated = os.environ.get(VARIABLE)
    path = ROOT.joinpath(stated or "../shared/data", *parts)
    if not path.exists():
        missing = f"the real material is not at hand: {'/'.join(parts)}"
        if stated:
            pytest.fail(f"{VARIABLE}={stated}: {missing}")
        pytest.skip(missing)
    return path
