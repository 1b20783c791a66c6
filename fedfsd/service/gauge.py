"""Prometheus metrics of one process, on loopback only.

Their names begin with ``fedfsd_``. They count what happened and what was spent; nothing that is computed from
data is ever among them, so no loss and no figure of a task: a name that ``NAMES`` lacks is refused.
"""

from __future__ import annotations

import threading
from http.server import HTTPServer
from types import TracebackType
from typing import Any, Self

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest, start_http_server

from fedfsd.errors import NotReadyError

HOST = "127.0.0.1"
NAMES = frozenset(
    {
        "bytes",
        "certificate_days",
        "clock_offset_seconds",
        "connected",
        "epsilon_left",
        "epsilon_spent",
        "ledger_entries",
        "mirror_behind",
        "outbox_depth",
        "outstanding",
        "paused",
        "plans",
        "plans_waiting",
        "refusals",
        "rounds",
        "seen_seconds",
    }
)


class Metrics:
    """A registry of its own, served on 127.0.0.1:``port``; port 0 serves nothing, None any free port.

    The first process to name a metric fixes its labels:

    >>> metrics = Metrics(0)
    >>> metrics.counter("rounds", "Rounds by outcome.", "outcome").labels("released").inc()
    >>> metrics.gauge("outbox_depth", "Releases that wait for a receipt.").set(2)
    >>> metrics.value("fedfsd_rounds_total", outcome="released"), metrics.value("fedfsd_outbox_depth")
    (1.0, 2.0)
    """

    def __init__(self, port: int | None) -> None:
        self._registry = CollectorRegistry()
        self._made: dict[str, Any] = {}
        self._server: HTTPServer | None = None
        self._thread: threading.Thread | None = None
        self.port = 0
        if port == 0:
            return
        try:
            self._server, self._thread = start_http_server(port or 0, HOST, self._registry)
        except OSError as error:
            raise NotReadyError(
                f"{HOST}:{port}", got=error.strerror, expected="a free port", hint="change metrics_port"
            ) from None
        self.port = self._server.server_port

    def counter(self, name: str, about: str, *labels: str) -> Counter:
        """The counter fedfsd_``name``_total, made when first asked for."""
        made: Counter = self._metric(Counter, name, about, labels)
        return made

    def gauge(self, name: str, about: str, *labels: str) -> Gauge:
        """The gauge fedfsd_``name``, made when first asked for."""
        made: Gauge = self._metric(Gauge, name, about, labels)
        return made

    def value(self, sample: str, **labels: str) -> float | None:
        """The value of ``sample`` (its full name)."""
        return self._registry.get_sample_value(sample, labels)

    def text(self) -> str:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry).decode()

    def close(self) -> None:
        """Serve no more."""
        if self._server and self._thread:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _metric(self, kind: Any, name: str, about: str, labels: tuple[str, ...]) -> Any:
        if name not in NAMES:
            raise ValueError(f"{name}: not in NAMES; nothing computed from data may be served")
        if name not in self._made:
            self._made[name] = kind(f"fedfsd_{name}", about, labels, registry=self._registry)
        return self._made[name]
