"""An HTTP proxy that opens connections (CONNECT), as a data centre has one on its way out."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from contextlib import suppress


class ConnectProxy:
    """Knows the names in ``names`` only, (host, port) by the ``host:port`` asked for, and refuses others."""

    def __init__(self, names: Mapping[str, tuple[str, int]], *, authorization: str = "") -> None:
        self.names, self._authorization = dict(names), authorization
        self.asked: list[str] = []
        self.carried = b""
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, caller: socket.socket) -> None:
        head = b""
        with caller, suppress(OSError):
            while b"\r\n\r\n" not in head:
                got = caller.recv(4096)
                if not got:
                    return
                head += got
            method, target = head.decode().split(" ")[:2]
            self.asked.append(target)
            if self._authorization and f"Proxy-Authorization: {self._authorization}\r\n" not in head.decode():
                caller.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            elif method != "CONNECT" or target not in self.names:
                caller.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            else:
                with socket.create_connection(self.names[target], timeout=30) as callee:
                    caller.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    back = threading.Thread(target=self._pass, args=(callee, caller), daemon=True)
                    back.start()
                    self._pass(caller, callee)
                    back.join()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while content := source.recv(65536):
                self.carried += content
                target.sendall(content)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
