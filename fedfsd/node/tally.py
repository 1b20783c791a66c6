"""What the region's gate counts: for its status, and as metrics on loopback. Never anything of the data."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from fedfsd.ledger.state import State
from fedfsd.mechanism.renyi import epsilon_lifetime
from fedfsd.service.gauge import Metrics


class Tally:
    """Counts since the process started; any thread may add."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics, self._lock = metrics, threading.Lock()
        self.rounds: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.connection = "closed"
        self.objection: str | None = None
        """Why this region and the coordinator cannot work together, until they do."""
        self.last_round: dict[str, Any] | None = None
        self.clock_offset: float | None = None
        """Seconds by which this machine's clock is ahead of the coordinator's, where they were compared."""
        self._bytes = metrics.counter("bytes", "Bytes over the border.", "direction")
        self._rounds = metrics.counter("rounds", "Rounds by outcome.", "outcome")
        self._refusals = metrics.counter("refusals", "Refused plans and rounds by code.", "code")
        self._connected = metrics.gauge("connected", "1 while the connection is open.")
        self._spent = metrics.gauge("epsilon_spent", "Epsilon spent of a data set's grant.", "data_set")
        self._left = metrics.gauge("epsilon_left", "Epsilon that a data set's grant has left.", "data_set")
        self._entries = metrics.gauge("ledger_entries", "Entries in the ledger.")
        self._behind = metrics.gauge("mirror_behind", "Entries that the mirror has no room for.")
        self._waiting = metrics.gauge("plans_waiting", "Plans that wait for approval.")
        self._paused = metrics.gauge("paused", "1 while the operator holds back all updates.")
        self._outbox = metrics.gauge("outbox_depth", "Releases that wait for a receipt.")
        self._days = metrics.gauge("certificate_days", "Days until the certificate ends.")
        self._clock = metrics.gauge("clock_offset_seconds", "Seconds ahead of the coordinator's clock.")

    def crossed(self, direction: str, size: int) -> None:
        """``size`` bytes came "in" or went "out"."""
        with self._lock:
            self.bytes[direction] += size
        self._bytes.labels(direction).inc(size)

    def round(self, plan: str, round: int, outcome: str) -> None:
        """A round ended: ``received``, or one of the wire's codes."""
        with self._lock:
            self.rounds[outcome] += 1
            self.last_round = {"plan": plan, "round": round, "outcome": outcome}
        self._rounds.labels(outcome).inc()
        if outcome != "received":
            self.refused(outcome)

    def refused(self, code: str) -> None:
        """A plan or a round was refused."""
        with self._lock:
            self.refusals[code] += 1
        self._refusals.labels(code).inc()

    def connected(self, state: str) -> None:
        """The connection is now ``open``, ``waiting`` (to be tried again) or ``closed``."""
        self.connection = state
        if state == "open":
            self.objection = None
        self._connected.set(state == "open")

    def clock(self, offset: float) -> None:
        """The clocks were compared: this machine's is ``offset`` seconds ahead."""
        self.clock_offset = offset
        self._clock.set(offset)

    def stands(
        self, state: State, *, outbox: int, days: float | None, plans: int, paused: bool, behind: int
    ) -> None:
        """The state of the ledger, and what waits.

        Args:
            outbox: releases without a receipt. days: left of the certificate. plans: that wait for approval.
            behind: entries that the mirror lacks.
        """
        for label, account in state.accounts.items():
            grant, balance = account.grant, account.balance
            spent, used = (
                epsilon_lifetime(rho, alpha=grant.alpha, delta=grant.delta) if rho else 0.0
                for rho in (balance.spent, balance.spent + balance.held)
            )
            self._spent.labels(label).set(spent)
            self._left.labels(label).set(max(0.0, grant.epsilon - used))
        self._entries.set(state.size)
        self._behind.set(behind)
        self._waiting.set(plans)
        self._paused.set(paused)
        self._outbox.set(outbox)
        if days is not None:
            self._days.set(days)

    def document(self) -> dict[str, Any]:
        """The counts, for ``status``."""
        with self._lock:
            return {
                "connection": self.connection,
                "objection": self.objection,
                "last_round": self.last_round,
                "clock_offset": None if self.clock_offset is None else round(self.clock_offset),
                "rounds": dict(self.rounds),
                "refusals": dict(self.refusals),
                "bytes": dict(self.bytes),
            }
