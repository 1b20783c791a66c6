"""A proxy that a data centre's machines are told to use sees nothing of what stays on loopback."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from fedfsd.flower.engine import Engine


class Ear:
    """Listens on a free port, says nothing, and keeps the first bytes of whoever comes."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                self.heard.append(connection.recv(100))

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY", "https_proxy"])
def test_calls_to_the_engine_go_straight(tmp_path: Path, monkeypatch, name):
    proxy, superlink = Ear(), Ear()
    try:
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        engine = Engine(tmp_path / "flower", superlink.port)
        engine.prepare()
        assert not engine.ready()  # nobody answers there
        for _, environment in engine.commands().values():
            assert "127.0.0.1" in environment["NO_PROXY"].split(",")
    finally:
        proxy.close()
        superlink.close()
    assert proxy.heard == []
    assert superlink.heard[0][:1] == b"\x16"  # TLS, from the first byte on
