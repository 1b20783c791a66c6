"""Frames over the Unix socket between a region's gate and its runner: a small header, then a body of bytes.

    header length (4 bytes) | body length (8 bytes) | header (canonical JSON, an object) | body

Lengths are big-endian and checked before anything is read. The reader limits the length of a body, which is
read into one buffer. A peer that disconnects, or stalls inside a frame, is gone; one that sends anything else
is not trusted again.
"""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from fedfsd import canonical
from fedfsd.errors import FedfsdError, NotReadyError, RefusedError
from fedfsd.service.patience import Progress

MAX_HEADER = 64 * 2**10
FRAME_SECONDS = 60.0  # for the whole of a frame once it began, not counting time in which the peer works
_LONGEST = 100  # bytes of a socket's path; the system takes 107
_LENGTHS = struct.Struct(">IQ")
_CREDENTIALS = struct.Struct("iII")
_SLICE_SECONDS, _GLANCE_SECONDS = 1.0, 0.001

Buffer = bytes | memoryview


class FrameError(RefusedError):
    """The peer sent what is no frame, or none that is expected now."""


class PeerGoneError(NotReadyError):
    """The peer is gone, or silent for too long."""


class Frames:
    """One connection, on which the two sides take turns."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket, self._raw = connection, _Raw(connection)
        self._reader = io.BufferedReader(self._raw)

    def send(self, header: dict[str, Any], *body: Buffer) -> None:
        """Send one frame. PeerGoneError where the peer does not take it."""
        content = canonical.encode(header)
        if len(content) > MAX_HEADER:
            raise FrameError("frame", got="a header that is too long", expected=f"{MAX_HEADER} bytes")
        lengths = _LENGTHS.pack(len(content), sum(map(len, body)))
        self._raw.begin(FRAME_SECONDS)
        try:
            for part in (lengths + content, *body):
                self._raw.send(memoryview(part).cast("B"))
        except OSError:
            raise _gone("a connection that broke off") from None

    def receive(self, *, max_body: int = 0, seconds: float) -> tuple[dict[str, Any], bytes]:
        """The next frame: its header and its body.

        Args:
            max_body: bytes; a longer body is not read.
            seconds: how long its first byte is waited for, not counting time in which the peer works.

        Raises:
            FrameError: not a frame, or one with too long a body.
            PeerGoneError: no more frames, or none in time.
        """
        self._raw.begin(seconds)
        start = self._read(1)
        self._raw.begin(FRAME_SECONDS)
        header_size, body_size = _LENGTHS.unpack(start + self._read(_LENGTHS.size - 1))
        if header_size > MAX_HEADER or body_size > max_body:
            raise FrameError("frame", got="a frame that is too long", expected=f"a body of {max_body} bytes")
        header = _header(self._read(header_size))
        return header, self._read(body_size)

    @property
    def quiet(self) -> bool:
        """Whether the peer is there and has nothing to say: so it should be when it is not its turn."""
        self._raw.begin(0.0)  # so that nothing new is read
        try:
            return not self._reader.peek()
        except TimeoutError:
            return self._raw.silent
        except (OSError, ValueError):
            return False

    def close(self) -> None:
        """End the connection, also while another thread waits on it."""
        with suppress(OSError):  # it ended by itself
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _read(self, size: int) -> bytes:
        try:
            found = self._reader.read(size) if size else b""
        except (OSError, ValueError):  # ValueError: closed here meanwhile
            raise _gone("silence") from None
        if len(found) < size:
            raise _gone("a connection that broke off")
        return found


class _Raw(io.RawIOBase):
    """A socket on which reading and sending end when the peer was idle for so long since ``begin``."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._socket, self._left = connection, 0.0
        self._peer = Progress(lambda: [_pid(connection)])

    def begin(self, seconds: float) -> None:
        """From now on the peer may be idle for so long."""
        self._left = seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._patiently(lambda: self._socket.recv_into(buffer))

    def send(self, content: memoryview) -> None:
        """All of it. OSError where the peer does not take it."""
        while content:
            content = content[self._patiently(partial(self._socket.send, content)) :]

    def _patiently(self, work: Callable[[], int]) -> int:
        """What ``work`` does on the socket. TimeoutError once the peer was idle for too long, in all."""
        while self._left > 0:
            began, most = time.monotonic(), min(self._left, _SLICE_SECONDS)
            self._socket.settimeout(most)
            done: int | None = None
            with suppress(TimeoutError):
                done = work()
            # No more than was asked for: this process may have been held itself.
            passed = min(time.monotonic() - began, most)
            if passed > _GLANCE_SECONDS and not self._peer.seen():
                self._left -= passed  # also of one that sends byte by byte
            if done is not None:
                return done
        raise TimeoutError

    @property
    def silent(self) -> bool:
        """Whether there is nothing to read, not even the end."""
        try:
            self._socket.settimeout(0)
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


def _pid(connection: socket.socket) -> int:
    """The process that opened the other end of a Unix socket; 0 where it is not to be seen from here."""
    try:
        size = _CREDENTIALS.size
        return int(_CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[0])
    except OSError:
        return 0


@contextmanager
def address(path: Path) -> Iterator[str]:
    """A name of the socket ``path`` that is short enough for the system, inside the ``with`` block."""
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _header(content: bytes) -> dict[str, Any]:
    """The object that ``content`` is the canonical JSON of."""
    try:
        found = json.loads(content)
        if isinstance(found, dict) and canonical.encode(found) == content:
            return found
    except (ValueError, RecursionError, FedfsdError):
        pass
    raise FrameError("frame", got="a header that cannot be read", expected="an object in canonical JSON")


def _gone(got: str) -> PeerGoneError:
    return PeerGoneError("socket", got=got, expected="the other side")
