"""The one place where a socket is opened for pages and uvicorn answers on it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn
from starlette.types import ASGIApp

from fedfsd.errors import NotReadyError


@contextmanager
def opened(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket. NotReadyError where the address is taken or not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        made = socket.create_server((host, port), family=family)
    except OSError as error:
        raise NotReadyError(
            f"{host} port {port}",
            got=error.strerror or "no such address",
            expected="a free port of this machine",
            hint="--port 0 takes any free one",
        ) from None
    with made:
        yield made


def listen(app: ASGIApp, at: socket.socket) -> None:
    """Answer until Ctrl-C."""
    settings = uvicorn.Config(
        app, log_level="error", access_log=False, server_header=False, date_header=False, ws="none"
    )
    with suppress(KeyboardInterrupt):  # the way to end it
        uvicorn.Server(settings).run(sockets=[at])
