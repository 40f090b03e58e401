"""A page with one study that can be signed."""

import pytest
from support.reviews import add_study
from support.web import WebUnderTest


@pytest.fixture
def study(web: WebUnderTest) -> str:
    return add_study(web)


@pytest.fixture
def locked(web: WebUnderTest) -> str:
    """The study is of a patient of the locked test set."""
    return add_study(web, locked=True)
