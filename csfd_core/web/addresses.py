"""Addresses: of the server of files, and whether only this machine reaches one.

A module of its own, so that who only writes a link does not load a server.
"""

import ipaddress
import socket
from typing import Final
from urllib.parse import quote

from csfd_core.errors import SettingsError

HOST: Final = "127.0.0.1"  # nothing is served to other machines


def file_url(port: int, path: str = "") -> str:
    """Return the address of a file of the store, or of the list of reports."""
    return f"http://{HOST}:{port}/{quote(path)}"


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_free_port(port: int, remedy: str) -> None:
    """Require that nobody listens on a port of this machine.

    Raises:
        SettingsError: If somebody does. It ends with ``remedy``.
    """
    with socket.socket() as probe:
        # As servers do: a connection that has just ended does not keep a port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise SettingsError(
                f"Port {port} of {HOST} cannot be used: {error.strerror}. {remedy}"
            ) from error
