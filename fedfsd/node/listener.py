"""The Unix socket on which a region's gate waits for its runner: one connection at a time."""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedfsd.errors import FedfsdError, FormatError, NotReadyError
from fedfsd.gate.frame import FrameError, Frames, PeerGoneError, address

MODE = 0o660  # the runner is another user of the same group
LOG = logging.getLogger("fedfsd.runner")
_LOOK_SECONDS = 0.5
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class Listener:
    """Takes a connection where there is none, or where the one there was has ended."""

    def __init__(self, path: Path, greet: Callable[[Frames], None], *, uid: int | None) -> None:
        """
        Args:
            greet: the first exchange on every connection; a FedfsdError ends it.
            uid: the user of the peer; None: any.
        """
        self._path, self._greet, self._uid = path, greet, uid
        self._change = threading.Condition()
        self._current: Frames | None = None
        self._lent = self._closed = self._greeting = False
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._accept, name="runner-socket", daemon=True)

    def open(self) -> None:
        """Listen. NotReadyError where the socket cannot be made."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._path.unlink(missing_ok=True)  # of a gate that ended
            with address(self._path) as name:
                listening.bind(name)
            os.chmod(self._path, MODE)  # before it listens nobody can connect
            listening.listen(4)
        except OSError as error:
            listening.close()
            raise NotReadyError(
                str(self._path),
                got=error.strerror or error,
                expected="a Unix socket in a folder of the gate's user",
            ) from None
        self._socket = listening
        self._thread.start()

    def close(self) -> None:
        """End everything; pending callers get a NotReadyError."""
        with self._change:
            self._closed = True
            if self._current is not None:
                self._current.close()
            self._current = None
            self._change.notify_all()
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            self._thread.join(timeout=2)
            self._socket.close()
            self._path.unlink(missing_ok=True)

    @property
    def connected(self) -> bool:
        """Whether a peer is there."""
        with self._change:
            return self._current is not None and (self._lent or self._current.quiet)

    @contextmanager
    def lent(self, seconds: float) -> Iterator[Frames]:
        """The connection, for one caller at a time; closed after a FrameError or PeerGoneError.

        Raises:
            NotReadyError: nobody connects within ``seconds``, or it is closed.
        """
        frames = self._wait(seconds)
        try:
            yield frames
        except (FrameError, PeerGoneError):
            self._drop(frames)
            raise
        finally:
            with self._change:
                self._lent = False

    def _wait(self, seconds: float) -> Frames:
        left = seconds
        with self._change:
            while not self._closed:
                if self._current is not None and self._current.quiet:
                    self._lent = True
                    return self._current
                self._let_go()
                if left <= 0:
                    break
                began = time.monotonic()
                self._change.wait(min(left, _LOOK_SECONDS))
                # One that has connected is coming: it loads what it trains with before it says hello.
                left -= 0.0 if self._greeting else min(time.monotonic() - began, _LOOK_SECONDS)
        raise NotReadyError(
            "runner", got="no runner", expected="one that is connected", hint="fedfsd region up starts it"
        )

    def _drop(self, frames: Frames) -> None:
        with self._change:
            if self._current is frames:
                self._let_go()

    def _let_go(self) -> None:
        if self._current is not None:
            self._current.close()
            self._current = None

    def _accept(self) -> None:
        assert self._socket is not None
        while not self._closed:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                if self._closed:
                    return
                time.sleep(0.1)  # out of descriptors, perhaps: not for ever
                continue
            frames = Frames(connection)
            if not (self._wanted(connection) and self._welcome(frames)):
                frames.close()

    def _wanted(self, connection: socket.socket) -> bool:
        """Whether this user may connect, and no peer is connected."""
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(found)
        if self._uid not in (None, uid):
            LOG.warning("runner_of_another_user", extra={"code": "refused"})
            return False
        return not self.connected

    def _welcome(self, frames: Frames) -> bool:
        self._greeting = True
        try:
            self._greet(frames)
        except FedfsdError as error:
            line = str(error) if isinstance(error, FormatError) else None
            LOG.warning("runner_not_welcome", extra={"error": type(error).__name__, "line": line})
            return False
        finally:
            self._greeting = False
        with self._change:
            if self._closed:
                return False
            self._let_go()
            self._current = frames
            self._change.notify_all()
        LOG.info("runner_connected")
        return True
