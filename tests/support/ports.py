"""A port of this machine at which nobody listens."""

from deploy.demo.ports import free_ports


def free_port() -> int:
    (port,) = free_ports(1)
    return port
