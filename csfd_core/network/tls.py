"""TLS of the DICOM node: its own certificate, and whose others it believes.

TLS 1.2 or later with the cipher suites of OpenSSL's default, as the BCP 195 RFC 9325
secure transport profile asks for (PS3.15 section B.12).
"""

import ssl
from pathlib import Path

from csfd_core.errors import SettingsError
from csfd_core.settings import DicomSettings


def server_context(settings: DicomSettings) -> ssl.SSLContext | None:
    """Return what connections are encrypted with; ``None`` where no certificate is set.

    Raises:
        SettingsError: If a file is missing, or is not what it should be.
    """
    if settings.tls_certificate is None:
        if settings.tls_key is not None or settings.tls_authorities is not None:
            raise SettingsError(
                "TLS needs a certificate of this node. Name its file with "
                "CSFD_DICOM_TLS_CERTIFICATE."
            )
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_certificate(context, settings.tls_certificate, settings.tls_key)
    if settings.tls_authorities is not None:
        load_authorities(context, settings.tls_authorities)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def load_certificate(context: ssl.SSLContext, path: Path, key: Path | None) -> None:
    """Give a context the certificate of this node.

    Raises:
        SettingsError: If the files cannot be used.
    """
    try:
        # Nobody is there to be asked for a password.
        context.load_cert_chain(path, key, password=lambda: b"")
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"The certificate {path} cannot be used with its key: {_told(error)}. "
            "Check CSFD_DICOM_TLS_CERTIFICATE and CSFD_DICOM_TLS_KEY: PEM files, the "
            "key without a password."
        ) from None


def load_authorities(context: ssl.SSLContext, path: Path) -> None:
    """Tell a context whose certificates to believe.

    Raises:
        SettingsError: If the file cannot be used.
    """
    try:
        context.load_verify_locations(path)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"The certificates of {path} cannot be used: {_told(error)}. Check "
            "CSFD_DICOM_TLS_AUTHORITIES: a PEM file."
        ) from None


def _told(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "it is no PEM file"
    return getattr(error, "strerror", None) or "it is no PEM file"
