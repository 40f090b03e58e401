"""Associations that are encrypted, and who may not have one."""

import socket
import ssl
import threading
import time

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from support.certificates import Authority, Certificate
from support.receiving import associate, listening, status_of
from support.uploading import study_files

from csfd_core.errors import SettingsError
from csfd_core.network.tls import server_context
from csfd_core.settings import DicomSettings


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "certificates")


@pytest.fixture
def own(authority):
    return authority.sign("node")


def context(authority: Authority, shown: Certificate | None = None) -> ssl.SSLContext:
    found = ssl.create_default_context(cafile=str(authority.path))
    if shown is not None:
        found.load_cert_chain(shown.certificate, shown.key)
    return found


def test_a_study_arrives_encrypted_and_a_sender_without_tls_does_not(
    place, authority, own, tmp_path
):
    files = study_files(tmp_path)
    with listening(place, tls_certificate=own.certificate, tls_key=own.key) as node:
        tls = (context(authority), "127.0.0.1")
        association = associate(node.port, ExplicitVRLittleEndian, tls_args=tls)
        assert [status_of(association, one) for one in files] == [0] * len(files)
        association.release()
        plain = associate(node.port)
        assert not plain.is_established
    assert len(place.waiting()) == len(files)


def test_a_sender_shows_a_certificate_where_it_is_to(place, authority, own, tmp_path):
    (content, *_) = study_files(tmp_path)
    stranger = Authority(tmp_path / "stranger").sign("stranger")
    with listening(
        place,
        tls_certificate=own.certificate,
        tls_key=own.key,
        tls_authorities=authority.path,
    ) as node:
        for shown in (None, stranger):
            tls = (context(authority, shown), "127.0.0.1")
            refused = associate(node.port, ExplicitVRLittleEndian, tls_args=tls)
            assert not refused.is_established
        tls = (context(authority, authority.sign("scanner")), "127.0.0.1")
        association = associate(node.port, ExplicitVRLittleEndian, tls_args=tls)
        assert status_of(association, content) == 0
        association.release()


def test_who_shakes_no_hands_keeps_nobody_waiting(
    place, authority, own, tmp_path, monkeypatch
):
    monkeypatch.setattr("csfd_core.network.listening._BEGINNING_S", 4.0)
    (content, *_) = study_files(tmp_path)
    with listening(place, tls_certificate=own.certificate, tls_key=own.key) as node:
        before = threading.active_count()
        silent = [
            socket.create_connection(("127.0.0.1", node.port), timeout=10)
            for _ in range(5)
        ]
        tls = (context(authority), "127.0.0.1")
        begun = time.monotonic()
        association = associate(node.port, ExplicitVRLittleEndian, tls_args=tls)
        assert status_of(association, content) == 0
        assert time.monotonic() - begun < 3.5
        association.release()
        for client in silent:
            assert client.recv(1) == b""  # it was closed
            client.close()
        until = time.monotonic() + 5
        while threading.active_count() > before and time.monotonic() < until:
            time.sleep(0.05)
        assert threading.active_count() <= before


def test_old_versions_of_tls_are_not_spoken(own):
    settings = DicomSettings.read(tls_certificate=own.certificate, tls_key=own.key)
    found = server_context(settings)
    assert found is not None
    assert found.minimum_version == ssl.TLSVersion.TLSv1_2


def test_files_that_cannot_be_used_are_told(own, tmp_path):
    other = Authority(tmp_path / "other").sign("other")
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("PLANTED SECRET")
    for certificate, key in (
        (tmp_path / "missing.pem", own.key),
        (own.certificate, other.key),
        (nothing, own.key),
    ):
        settings = DicomSettings.read(tls_certificate=certificate, tls_key=key)
        with pytest.raises(SettingsError, match="cannot be used with its key") as told:
            server_context(settings)
        assert "PLANTED" not in str(told.value)
    settings = DicomSettings.read(
        tls_certificate=own.certificate, tls_key=own.key, tls_authorities=nothing
    )
    with pytest.raises(SettingsError, match="CSFD_DICOM_TLS_AUTHORITIES"):
        server_context(settings)
    with pytest.raises(SettingsError, match="needs a certificate of this node"):
        server_context(DicomSettings.read(tls_key=own.key))
