"""TLS towards peers: whom this node believes, and what it shows of itself."""

import ssl

from csfd_core.network.tls import load_authorities, load_certificate
from csfd_core.settings import DicomSettings


def client_context(settings: DicomSettings) -> ssl.SSLContext:
    """Return what a connection to a peer is set up with.

    A peer must show a certificate of its host name that ``CSFD_DICOM_TLS_AUTHORITIES``
    has signed or holds, or else one that the system trusts. It is shown that of this
    node, where there is one.

    Raises:
        SettingsError: If a file cannot be used.
    """
    if settings.tls_authorities is None:
        context = ssl.create_default_context()
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        load_authorities(context, settings.tls_authorities)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.tls_certificate is not None:
        load_certificate(context, settings.tls_certificate, settings.tls_key)
    return context
