"""``csfd serve --dicom``: the DICOM node beside the page."""

import socket
from contextlib import closing
from pathlib import Path

import pytest
from support.ports import free_port
from typer.testing import CliRunner

from csfd_core.cli.main import app
from csfd_core.settings import DicomSettings, WebSettings
from csfd_dagster.serving import serve_services


@pytest.fixture
def home(places: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CSFD_HOME", str(places))
    monkeypatch.setenv("CSFD_WEB_DATABASE", f"sqlite:///{places}/web.db")
    for name in ("CSFD_WEB_PORT", "CSFD_DICOM_PORT"):
        monkeypatch.setenv(name, str(free_port()))
    return places


def checked() -> str:
    return CliRunner().invoke(app, ["serve", "--check", "--dicom"]).output


def test_check_looks_at_the_node_where_it_is_to_start(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Ready to start" in checked()
    monkeypatch.setenv("CSFD_DICOM_TLS_KEY", str(home / "node.key"))
    assert "needs a certificate of this node" in checked()
    monkeypatch.delenv("CSFD_DICOM_TLS_KEY")
    with closing(socket.create_server(("127.0.0.1", 0))) as busy:
        port = str(busy.getsockname()[1])
        monkeypatch.setenv("CSFD_DICOM_PORT", port)
        assert f"The DICOM node cannot listen at port {port}" in checked()
        plain = CliRunner().invoke(app, ["serve", "--check"]).output
        assert "Ready to start" in plain
    monkeypatch.setenv("CSFD_DICOM_HOST", "0.0.0.0")  # noqa: S104 - refused
    assert "CSFD_DICOM_CALLERS" in checked()


def test_the_node_is_one_of_the_services_where_it_is_asked_for(home: Path) -> None:
    web, dicom = WebSettings.read(), DicomSettings.read()
    names = {one.name for one in serve_services(web, home, has_predictor=False)}
    services = serve_services(web, home, has_predictor=False, dicom=dicom)
    (node,) = [one for one in services if one.name not in names]
    assert node.command[1:] == ["-m", "csfd_core.network.node"]
    assert not node.is_ready()
    with closing(socket.create_server(("127.0.0.1", dicom.port))):
        assert node.is_ready()
