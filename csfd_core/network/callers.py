"""Who may send studies, from where, and how urgent theirs are."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from csfd_core.errors import SettingsError
from csfd_core.settings import DicomSettings
from csfd_core.settings.page import AE_TITLE
from csfd_core.web.addresses import is_loopback

_URGENT: Final = ("1", "2")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Callers:
    """Application entities that may send.

    Attributes:
        networks: Where each may send from, ``None``: from anywhere.
        priorities: Of the studies of each: 1 urgent, 2 STAT.
    """

    networks: dict[str, tuple[Network | None, ...]]
    priorities: dict[str, int]

    @classmethod
    def of(cls, settings: DicomSettings) -> "Callers":
        """Read them from the settings.

        Raises:
            SettingsError: If they are not written as they should be.
        """
        networks: dict[str, tuple[Network | None, ...]] = {}
        for entry in _entries(settings.callers):
            title, has_address, address = entry.rpartition("@")
            if not has_address:
                title, address = address, ""
            _require_title(title, "CSFD_DICOM_CALLERS")
            network = _network(address, entry) if has_address else None
            networks[title] = (*networks.get(title, ()), network)
        priorities = {}
        for entry in _entries(settings.priorities):
            title, _, priority = entry.rpartition("=")
            _require_title(title, "CSFD_DICOM_PRIORITIES")
            if priority not in _URGENT:
                raise SettingsError(
                    "CSFD_DICOM_PRIORITIES must be AE=1 (urgent) or AE=2 (STAT), with "
                    f"commas between. Received: {entry}."
                )
            priorities[title] = int(priority)
        return cls(networks, priorities)

    @property
    def is_open(self) -> bool:
        """Whether nobody is named: then everybody may send."""
        return not self.networks

    def allow(self, title: str, address: str) -> bool:
        """Say whether somebody may send.

        Args:
            title: Calling AE title.
            address: Where the connection comes from.
        """
        if self.is_open:
            return True
        networks = self.networks.get(title, ())
        return any(network is None or _is_in(address, network) for network in networks)

    def allow_address(self, address: str) -> bool:
        """Say whether anybody may send from an address."""
        return self.is_open or any(
            self.allow(title, address) for title in self.networks
        )

    def priority_of(self, title: str) -> int:
        """Return the priority of what somebody sends."""
        return self.priorities.get(title, 0)


def require_known_callers(settings: DicomSettings) -> None:
    """Require that not anybody in a network may send.

    Raises:
        SettingsError: If it is so, or the callers are not written as they should be.
    """
    if is_loopback(settings.host) or not Callers.of(settings).is_open:
        return
    raise SettingsError(
        f"Other machines reach the DICOM node at {settings.host}, and any of them "
        "could send. Name who may with CSFD_DICOM_CALLERS (AE or AE@address, with "
        "commas between), or listen at 127.0.0.1."
    )


def _entries(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _require_title(title: str, variable: str) -> None:
    if re.match(AE_TITLE, title) is None:
        raise SettingsError(
            f"{variable} names an application entity of 1 to 16 printable characters. "
            f"Received: {title or 'none'}."
        )


def _network(address: str, entry: str) -> Network:
    try:
        return ipaddress.ip_network(address, strict=False)
    except ValueError:
        raise SettingsError(
            "CSFD_DICOM_CALLERS must be AE, AE@address or AE@address/bits, with an IP "
            f"address and commas between. Received: {entry}."
        ) from None


def _is_in(address: str, network: Network) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)  # IPv4 at a socket of IPv6
    return (mapped or parsed) in network
