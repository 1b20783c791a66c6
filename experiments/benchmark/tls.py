"""Bytes copied over TLS on loopback by Python's ssl: the least that a border can cost."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from pathlib import Path

from fedfsd.flower.loopback import certify

_BLOCK = 2**20
_HOST = "127.0.0.1"


def seconds(folder: Path, size: int) -> float:
    """Seconds that ``size`` bytes take there and back, the handshake included."""
    folder.mkdir(exist_ok=True)
    root, certificate, key = (folder / name for name in ("root.crt", "server.crt", "server.key"))
    certify(root, certificate, key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    content, block = memoryview(os.urandom(size)), bytearray(_BLOCK)
    with socket.create_server((_HOST, 0)) as listener:
        thread = threading.Thread(target=_echo, args=(listener, server, size))
        thread.start()
        started = time.monotonic()
        with (
            socket.create_connection(listener.getsockname()) as plain,
            ssl.create_default_context(cafile=str(root)).wrap_socket(plain, server_hostname=_HOST) as line,
        ):
            for start in range(0, size, _BLOCK):
                line.sendall(content[start : start + _BLOCK])
            _drain(line, size, block)
        took = time.monotonic() - started
        thread.join()
    return took


def _echo(listener: socket.socket, context: ssl.SSLContext, size: int) -> None:
    """Take ``size`` bytes, then send as many."""
    plain, _ = listener.accept()
    with plain, context.wrap_socket(plain, server_side=True) as line:
        block = bytearray(_BLOCK)
        _drain(line, size, block)
        for start in range(0, size, _BLOCK):
            line.sendall(memoryview(block)[: min(_BLOCK, size - start)])


def _drain(line: ssl.SSLSocket, size: int, block: bytearray) -> None:
    while size:
        size -= line.recv_into(block, min(size, len(block)))
