"""What every part of a region's gate works with: its books, its runner, its log, and the word to stop."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fedfsd.gate.gate import Gate
from fedfsd.ledger.entry import Program
from fedfsd.ledger.ledger import Ledger, Released
from fedfsd.node.node import Node
from fedfsd.node.receipt_store import ReceiptStore
from fedfsd.node.tally import Tally
from fedfsd.plan.plan import Arrays, Plan

FOLDERS = ("plans", "inbox", "receipts", "run", "log")
PAUSED = "paused"
_LOOK_SECONDS = 0.1


class Trainer(Protocol):
    """The gate's side of the runner, as ``node.runner.Runner`` is."""

    @property
    def connected(self) -> bool:
        """Whether a runner is there."""

    @property
    def program(self) -> Program | None:
        """What the runner that is there trains with."""

    def start(self) -> None:
        """Listen for a runner."""

    def commitment(self, plan_hash: str) -> str:
        """The commitment to the plan's run key, which the runner makes."""

    def facts(self, *, host: str, port: int, folder: str) -> dict[str, Any]:
        """What the runner's process can do."""

    def round(self, plan: Plan, round: int, arrays: Arrays) -> Released:
        """One round through the runner: booked, trained, judged, released."""

    def settle(self, plan_hash: str) -> None:
        """Destroy the plan's run key."""


class StoppedError(Exception):
    """The process is to end."""


@dataclass
class GateStation:
    """One region's gate process."""

    node: Node
    ledger: Ledger
    gate: Gate
    runner: Trainer
    receipts: ReceiptStore
    tally: Tally
    log: logging.Logger
    stop: threading.Event = field(default_factory=threading.Event)
    look: threading.Event = field(default_factory=threading.Event)
    """Set where an operator approved a plan: pending ones are looked at again."""
    began: dict[tuple[str, int], float] = field(default_factory=dict)
    """When each round first came, by the monotonic clock."""

    working: bool = False
    """Whether the runner has a round in hand."""

    @property
    def region(self) -> str:
        """This region's name."""
        return self.node.settings.name

    @property
    def paused(self) -> bool:
        """Whether the operator paused the outbox."""
        return (self.node.folder / PAUSED).exists()

    def folder(self, name: str) -> Path:
        """One of ``FOLDERS``."""
        return self.node.folder / name

    def hold(self) -> None:
        """Return when the outbox is not paused. StoppedError if the process ends meanwhile."""
        if self.paused:
            self.log.warning("outbox_held")
            while self.paused:
                self.rest(_LOOK_SECONDS)
            self.log.info("outbox_free")
        self.rest(0)

    def rest(self, seconds: float) -> None:
        """Wait. StoppedError if the process ends meanwhile."""
        if self.stop.wait(seconds):
            raise StoppedError

    def waiting(self) -> list[tuple[str, int]]:
        """(plan, round) of each release in the outbox that has no receipt."""
        runs = self.ledger.state.runs.values()
        newest = [(run.entry.plan, run.newest) for run in list(runs) if run.newest]
        return [one for one in newest if not self.receipts.has(*one)]
