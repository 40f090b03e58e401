"""TLS towards peers: who is believed, by C-STORE and by HTTPS."""

import datetime
import http.server
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.delivered import CLASSES, store_peer
from support.ports import free_port

from csfd_core.network.store_scu import StoreScu
from csfd_core.network.stow_client import StowClient
from csfd_core.settings import DicomSettings
from csfd_core.web.delivery.peers import PeerEndpoint, PeerKind

pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@dataclass
class Identity:
    """A certificate of this machine that has signed itself, and its key."""

    certificate: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def make_identity(folder: Path, name: str) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    made = Identity(folder / f"{name}.crt", folder / f"{name}.key")
    made.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return made


@pytest.fixture
def peer_identity(tmp_path: Path) -> Identity:
    return make_identity(tmp_path, "peer")


@pytest.fixture
def own_identity(tmp_path: Path) -> Identity:
    return make_identity(tmp_path, "node")


def settings_of(own: Identity, believed: Identity) -> DicomSettings:
    return DicomSettings.read(
        tls_certificate=own.certificate,
        tls_key=own.key,
        tls_authorities=believed.certificate,
    )


@pytest.mark.parametrize("is_mutual", [False, True])
def test_a_peer_that_is_believed_is_spoken_to_by_tls(
    peer_identity: Identity, own_identity: Identity, is_mutual: bool
) -> None:
    context = peer_identity.server_context()
    if is_mutual:  # it wants to see the certificate of this node
        context.load_verify_locations(own_identity.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
    settings = settings_of(own_identity, peer_identity)
    with store_peer(CLASSES, context=context) as peer:
        assert StoreScu(settings, peer.endpoint, connect_s=5).echo() == "It answers."


def test_a_peer_that_is_not_believed_is_told_nothing(
    peer_identity: Identity, own_identity: Identity
) -> None:
    settings = settings_of(own_identity, own_identity)
    with store_peer(CLASSES, context=peer_identity.server_context()) as peer:
        told = StoreScu(settings, peer.endpoint, connect_s=5).echo()
        assert told == "Nobody answers there as a DICOM node that is believed, by TLS."
        assert peer.received == []


def test_a_certificate_that_cannot_be_read_is_said(
    own_identity: Identity, tmp_path: Path
) -> None:
    missing = Identity(tmp_path / "missing.crt", own_identity.key)
    settings = settings_of(own_identity, missing)
    endpoint = PeerEndpoint(
        name="peer",
        kind=PeerKind.C_STORE,
        ae_title="PEER",
        host="127.0.0.1",
        port=free_port(),
        is_tls=True,
    )
    assert "CSFD_DICOM_TLS_" in StoreScu(settings, endpoint).echo()
    stow = StowClient(settings, f"https://127.0.0.1:{free_port()}/dicom-web")
    assert "CSFD_DICOM_TLS_AUTHORITIES" in stow.echo()


@contextmanager
def https_service(identity: Identity) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    context = identity.server_context()
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}/dicom-web"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def test_an_https_service_must_be_believed_as_well(
    peer_identity: Identity, own_identity: Identity
) -> None:
    with https_service(peer_identity) as url:
        believed = StowClient(settings_of(own_identity, peer_identity), url)
        assert believed.echo() == "It answers."
        other = StowClient(settings_of(own_identity, own_identity), url)
        assert other.echo() == (
            "Its certificate is not believed, or it wants another one of this node."
        )
        assert StowClient(DicomSettings.read(), url).echo() == other.echo()
