"""One region as it calls: how often, how much, how many calls at once, and from how many places."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fedfsd.errors import RefusedError

_REMEMBERED = 64
_TELL_SECONDS = 60.0


class BusyError(RefusedError):
    """More than one region may ask at once, or in this time."""


class Bucket:
    """A token bucket: ``rate`` a second, ``burst`` at once; what is taken may leave it in debt.

    >>> bucket = Bucket(rate=1.0, burst=2.0, clock=lambda: 0.0)
    >>> [bucket.take(1), bucket.take(5), bucket.take(1)]
    [True, True, False]
    """

    def __init__(self, *, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left, self._at = burst, clock()

    def take(self, amount: float) -> bool:
        """Whether a token was left for the asking; then ``amount`` is gone."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < min(amount, 1.0):
            return False
        self._left -= amount
        return True

    def owe(self, amount: float) -> None:
        """Take ``amount`` whatever is left."""
        self.take(0)
        self._left -= amount


@dataclass(frozen=True)
class CallLimit:
    """What one region may ask for. Streams that run already are slowed by flow control alone."""

    calls_per_second: float = 200.0
    calls_at_once: float = 400.0
    bytes_per_second: float = 256 * 2.0**20
    bytes_at_once: float = 2.0**30
    open_calls: int = 8


class Presence:
    """What the coordinator's gate knows of one region's connections; threads share it."""

    def __init__(self, limit: CallLimit) -> None:
        self._limit, self._lock = limit, threading.RLock()  # a call may end in the collector, in any turn
        self._calls = Bucket(rate=limit.calls_per_second, burst=limit.calls_at_once)
        self._bytes = Bucket(rate=limit.bytes_per_second, burst=limit.bytes_at_once)
        self._open = 0
        self._peers: deque[str] = deque(maxlen=_REMEMBERED)
        self._single: dict[str, tuple[object, Callable[[], object]]] = {}
        self.seen: float | None = None
        """POSIX seconds of its last call."""
        self.doubled: float | None = None
        """POSIX seconds when it last came from two places at once, as two nodes with one key do."""
        self._told = 0.0

    @contextmanager
    def call(self, size: int = 0) -> Iterator[None]:
        """One call of ``size`` bytes. BusyError beyond the limit."""
        with self._lock:
            self.seen = time.time()
            if not self._calls.take(1):
                raise BusyError("calls", got="too many", expected="fewer a second")
            if not self._bytes.take(size):
                raise BusyError("bytes", got="too many", expected="fewer a second")
            if self._open >= self._limit.open_calls:
                raise BusyError("calls", got="too many at once", expected=f"{self._limit.open_calls}")
            self._open += 1
        try:
            yield
        finally:
            with self._lock:
                self._open -= 1

    def owe(self, size: int) -> None:
        """Bytes of a stream that is running: they are owed by later calls."""
        with self._lock:
            self._bytes.owe(size)

    def arrive(self, peer: str) -> bool:
        """Note where a call comes from; True when an earlier place is back after another took over.

        A dropped connection never returns under its old port, so two nodes use one key then. While this
        lasts, it is reported once a minute.
        """
        with self._lock:
            if self._peers and self._peers[-1] == peer:
                return False
            again = peer in self._peers
            if again:
                self._peers.remove(peer)
            self._peers.append(peer)
            if not again:
                return False
            self.doubled = time.time()
            if self.doubled - self._told < _TELL_SECONDS:
                return False
            self._told = self.doubled
            return True

    @contextmanager
    def only(self, kind: str, end: Callable[[], object]) -> Iterator[Callable[[], bool]]:
        """Be the newest call of its kind: an older one that still runs is ended. Gives "am I still"."""
        me = (object(), end)
        with self._lock:
            earlier = self._single.get(kind)
            self._single[kind] = me
        if earlier is not None:
            earlier[1]()
        try:
            yield lambda: self._single.get(kind) is me
        finally:
            with self._lock:
                if self._single.get(kind) is me:
                    del self._single[kind]
