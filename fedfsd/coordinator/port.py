"""The ports of a coordinator: free before it starts, served while it runs."""

from __future__ import annotations

import socket

from fedfsd.coordinator.folder import Settings

LOOPBACK = "127.0.0.1"


def taken(settings: Settings) -> list[str]:
    """The ports that cannot be listened on here, each as its key in coordinator.toml and its number."""
    hosts = {"port": settings.listen, "join_port": settings.listen, "flower_port": LOOPBACK}
    wanted = [(key, getattr(settings, key)) for key in hosts]
    return [f"{key} {port}" for key, port in wanted if not _is_free(hosts[key], port)]


def answers(host: str, port: int) -> bool:
    """Whether something listens there; ``host`` is what the server was told to listen on."""
    where = LOOPBACK if host in ("0.0.0.0", "::") else host
    try:
        socket.create_connection((where, port), timeout=3.0).close()
    except OSError:
        return False
    return True


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
