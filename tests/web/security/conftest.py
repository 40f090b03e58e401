"""A provider, and a page whose readers sign in there."""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from support.oidc import Provider, served_provider
from support.oidc_page import settings_of
from support.web import WebUnderTest, set_environment, web_app

from csfd_core.web.database import addresses
from csfd_core.web.security.users import Role, add_user


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    with served_provider() as served:
        for name, value in settings_of(served).items():
            monkeypatch.setenv(name, value)
        yield served


@pytest.fixture
def page(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WebUnderTest]:
    """The page, with a reader ann who has no password, and who is number 2."""
    with web_app(tmp_path, monkeypatch) as opened:
        with opened.services.database.transaction() as connection:
            add_user(connection, None, "ann", None, Role.READER)
        yield opened


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[WebUnderTest, Provider]]:
    """A page that keeps nothing of an attempt that fails."""
    home = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch, served_provider() as served:
        for name, value in settings_of(served).items():
            patch.setenv(name, value)
        with web_app(home, patch) as opened:
            with opened.services.database.transaction() as connection:
                add_user(connection, None, "ann", None, Role.READER)
            patch.undo()  # what others of this file set is theirs
            yield opened, served


@pytest.fixture
def attacked(
    shared: tuple[WebUnderTest, Provider], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[WebUnderTest, Provider]]:
    """The page and its provider, which tells the truth again afterwards."""
    opened, served = shared
    set_environment(Path(opened.services.settings.home), monkeypatch)
    with opened.services.database.transaction() as connection:
        connection.execute(addresses.delete())
    yield shared
    fresh = Provider(served.port)
    for one in fields(Provider):
        setattr(served, one.name, getattr(fresh, one.name))
