"""How an operator's commands reach the running gate: one JSON line each way over run/control.sock (0600)."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fedfsd.errors import FedfsdError, NotReadyError
from fedfsd.gate.frame import address
from fedfsd.node.node import Node

SOCKET = "control.sock"
MAX_REQUEST = 65_536
MAX_ANSWER = 2**20
SECONDS = 10.0
AT_ONCE = 8
Document = dict[str, Any]


def ask(node: Node, request: Mapping[str, Any], *, seconds: float = 60.0) -> Document:
    """What the gate of ``node`` answers to ``request``, such as {"op": "status"}.

    Raises:
        NotReadyError: no gate runs, or it does not answer.
        FedfsdError: what the gate raised, of the same class.
    """
    path = node.folder / "run" / SOCKET
    try:
        with address(path) as name, socket.socket(socket.AF_UNIX) as line:
            line.settimeout(seconds)
            line.connect(name)
            line.sendall(json.dumps(request).encode() + b"\n")
            answer = json.loads(_line(line, MAX_ANSWER))
    except (OSError, ValueError) as error:
        silent = isinstance(error, TimeoutError | ValueError)
        raise NotReadyError(
            f"gate of {node.settings.name}",
            got="no answer" if silent else "no running gate",
            expected="a running gate",
            hint="fedfsd region up",
        ) from None
    if "error" in answer:
        raise _error(answer["error"])
    return dict(answer)


class Control:
    """Answers requests by ``operations``, each a function from the request to a document."""

    def __init__(self, folder: Path, operations: Mapping[str, Callable[[Document], Document]]) -> None:
        self._path, self._operations = folder / SOCKET, operations
        self._free = threading.BoundedSemaphore(AT_ONCE)
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        with address(self._path) as name:
            self._listener.bind(name)
        self._path.chmod(0o600)
        self._listener.listen(AT_ONCE)
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            self._free.acquire()
            threading.Thread(target=self._answer, args=(line,), daemon=True).start()

    def _answer(self, line: socket.socket) -> None:
        try:
            with line, suppress(OSError, ValueError):
                line.settimeout(SECONDS)
                line.sendall(json.dumps(self._result(_line(line, MAX_REQUEST))).encode() + b"\n")
        finally:
            self._free.release()

    def _result(self, text: bytes) -> Document:
        try:
            request = json.loads(text)
            operation = self._operations[request["op"]]
        except (ValueError, TypeError, KeyError, RecursionError):
            return _failed(
                NotReadyError("control", got="an unknown request", expected=sorted(self._operations))
            )
        try:
            return operation(request)
        except FedfsdError as error:
            return _failed(error)
        except Exception as error:  # its text is nobody's business
            return _failed(NotReadyError("gate", got=type(error).__name__, expected="an answer"))


def _line(line: socket.socket, limit: int) -> bytes:
    """One line of at most ``limit`` bytes. ValueError for a longer one, or none."""
    content = b""
    while not content.endswith(b"\n"):
        more = line.recv(65_536)
        content += more
        if not more or len(content) > limit:
            raise ValueError
    return content


def _failed(error: FedfsdError) -> Document:
    return {"error": error.document()}


def _error(document: Mapping[str, Any]) -> FedfsdError:
    """The error of an answer."""
    kinds = {kind.code: kind for kind in FedfsdError.__subclasses__()}
    kind = kinds.get(document.get("code", ""), NotReadyError)
    return kind(
        str(document.get("place")),
        got=document.get("got"),
        expected=document.get("expected"),
        hint=document.get("hint"),
    )
