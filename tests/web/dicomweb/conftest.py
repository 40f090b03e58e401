"""``/dicom-web`` on a real server."""

from collections.abc import Iterator

import pytest
from support.dicomweb import (
    Archive,
    ServedWeb,
    files_in,
    make_token,
    nameless,
    served,
)
from support.viewed_study import place_study
from support.web import WebUnderTest, web_app


@pytest.fixture
def node(web: WebUnderTest) -> Iterator[ServedWeb]:
    with served(web) as found:
        yield found


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """The study that every voxel tells of, de-identified and predicted."""
    home = tmp_path_factory.mktemp("archive")
    with pytest.MonkeyPatch.context() as patch, web_app(home, patch) as web:
        place_study(home, nameless)
        token = make_token(web)
        with served(web) as node:
            files = files_in(home / "source")
            yield Archive(node, node.client(token), token, files)


@pytest.fixture
def empty(web: WebUnderTest) -> Iterator[Archive]:
    """A node that holds nothing yet."""
    token = make_token(web)
    with served(web) as node:
        yield Archive(node, node.client(token), token, {})
