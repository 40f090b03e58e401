"""Ports on this machine that nobody uses."""

import random
import socket
from contextlib import ExitStack
from typing import Final

HOST: Final = "127.0.0.1"
_GRPC_OFFSET: Final = 10_000  # SeaweedFS listens for gRPC on each port plus this
# Both stay below the ports that Linux gives to outgoing connections (32768 and above).
_FIRST, _LAST = 11_000, 22_000


def free_ports(count: int) -> list[int]:
    """Return ports that are free, as is each port plus 10000.

    Raises:
        RuntimeError: If there are not as many.
    """
    with ExitStack() as held:
        ports: list[int] = []
        for port in random.sample(range(_FIRST, _LAST), 400):
            if _hold(held, port) and _hold(held, port + _GRPC_OFFSET):
                ports.append(port)
            if len(ports) == count:
                return ports
    raise RuntimeError(f"No {count} free ports between {_FIRST} and {_LAST}.")


def listens(port: int) -> bool:
    """Say whether somebody listens at a port."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((HOST, port)) == 0


def _hold(held: ExitStack, port: int) -> bool:
    probe = held.enter_context(socket.socket())
    try:
        probe.bind((HOST, port))
    except OSError:
        return False
    return True
