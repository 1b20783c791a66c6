"""The state of the coordinator's gate: plans on offer, receipts, the witness, and a desk for every region."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fedfsd.coordinator.desk import Desk, DeskTask
from fedfsd.coordinator.folder import Coordinator
from fedfsd.coordinator.intake import Intake, Offered, is_fork
from fedfsd.coordinator.offer import Board
from fedfsd.coordinator.presence import CallLimit, Presence
from fedfsd.coordinator.receipt_book import ReceiptBook
from fedfsd.coordinator.shelf import Shelf
from fedfsd.errors import NotReadyError
from fedfsd.ledger import note
from fedfsd.ledger.error import EvidenceError
from fedfsd.plan.plan import Arrays, ArraySchema
from fedfsd.service.gauge import Metrics

# Beside the folders of the regions; no region can be called that.
SHELF = ".arrays"
# Whoever waits longer goes on all the same: memory is bounded, but one who hangs must not hold up the others.
_TURN_SECONDS = 30.0


@dataclass
class RegionStation:
    """One region: what is outstanding, its connections, and the release whose bytes may come."""

    name: str
    desk: Desk
    presence: Presence
    lock: threading.RLock = field(default_factory=threading.RLock)
    offered: Offered | None = None
    strikes: int = 0
    """Offers refused for the outstanding round."""
    known: tuple[int, int] = (0, 0)
    """The position from which the region proves that its ledger goes on, as it was told last."""
    told: dict[str, float] = field(default_factory=dict)
    """When (monotonic) each plan that it has not answered was last offered."""
    last: dict[str, Any] = field(default_factory=dict)
    """The round that was answered last, with its outcome, for people."""
    refusals: dict[str, int] = field(default_factory=dict)
    version: int = 1
    """Of the border, as agreed; 1 until it said hello, which every release speaks."""
    objection: str | None = None
    """Why it and this coordinator cannot work together."""


class Hall:
    """Everything that the calls of regions and the messages of Flower meet in."""

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        metrics: Metrics | None = None,
        log: logging.Logger | None = None,
        limit: CallLimit | None = None,
    ) -> None:
        """Load the state in the coordinator's folder. NotReadyError if it is damaged."""
        self.coordinator = coordinator
        self.board = Board(coordinator.offers)
        self.board.look()
        self.shelf = Shelf(coordinator.folder / "store" / SHELF)
        self.book = ReceiptBook(coordinator.receipts, coordinator.key)
        self.intake = Intake(coordinator)
        self.stopping = threading.Event()
        self._log = log or logging.getLogger("fedfsd.coordinator")
        self._metrics = metrics or Metrics(0)
        self._limit = limit or CallLimit()
        self._lock, self._turn, self._shelving = threading.Lock(), threading.Lock(), threading.Lock()
        self._stations: dict[str, RegionStation] = {}

    def station(self, region: str) -> RegionStation:
        """The region's, made when first asked for."""
        with self._lock:
            if region not in self._stations:
                desk = Desk(self.coordinator.store(region))
                self._stations[region] = RegionStation(region, desk, Presence(self._limit))
            return self._stations[region]

    @property
    def stations(self) -> tuple[RegionStation, ...]:
        """All that were asked for."""
        with self._lock:
            return tuple(self._stations.values())

    def look(self) -> None:
        """Notice plans that came or went."""
        if self.board.look():
            self.ring()

    def ring(self) -> None:
        """Wake all waiting threads."""
        for station in self.stations:
            station.desk.ring()

    def lay(
        self,
        station: RegionStation,
        arrays: Arrays,
        schema: Sequence[ArraySchema],
        task: Callable[[str], DeskTask],
    ) -> None:
        """Keep ``arrays`` and lay the task of their hash on the desk, hidden. NotReadyError: a full disk."""
        with self._shelving:
            station.desk.put(task(self.shelf.put(arrays, schema)), hidden=True)

    def tidy(self) -> None:
        """Forget arrays that no outstanding round starts from."""
        with self._shelving:
            tasks = [station.desk.task for station in self.stations]
            self.shelf.keep({task.arrays for task in tasks if task is not None})

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One at a time where whole updates are in memory."""
        mine = self._turn.acquire(timeout=_TURN_SECONDS)
        try:
            yield
        finally:
            if mine:
                self._turn.release()

    def believe(self, station: RegionStation, accept: Callable[[], str]) -> str:
        """What ``accept`` gives: a head of the region's, cosigned.

        Raises:
            NotReadyError: a proof from another position than the one remembered; greet again to learn it.
            EvidenceError: as the witness does; a fork is one.
        """
        try:
            return accept()
        except EvidenceError as error:
            if is_fork(error) and station.known != self.intake.position(station.name):
                raise NotReadyError(
                    "head", got="a proof from an old position", expected="a new one"
                ) from None
            raise

    def told(self, station: RegionStation, cosigned: str) -> None:
        """The region gets this head: if it is the newest, the next proof is from here."""
        head = note.Checkpoint.parse(note.Note.parse(cosigned).text)
        epoch, size = self.intake.position(station.name)
        if (head.size, head.origin.endswith(f"/{epoch}")) == (size, epoch > 0):
            station.known = epoch, size

    # What people and Prometheus see.

    def note(self, event: str, station: RegionStation, *, warn: bool = False, **facts: object) -> None:
        """One line in the log."""
        level = logging.WARNING if warn else logging.INFO
        self._log.log(level, event, extra={"region": station.name, **facts})

    def refused(self, station: RegionStation, code: str, why: str) -> None:
        """Something that the region asked was refused."""
        station.refusals[code] = station.refusals.get(code, 0) + 1
        self._metrics.counter("refusals", "Refusals by code.", "region", "code").labels(
            station.name, code
        ).inc()
        self.note("refused", station, warn=True, code=code, line=why)

    def outcome(self, station: RegionStation, plan: str, round: int, code: str) -> None:
        """A round is answered."""
        station.last = {"plan": plan, "round": round, "outcome": code}
        counter = self._metrics.counter("rounds", "Rounds by outcome.", "region", "outcome")
        counter.labels(station.name, code).inc()
        self.note("round", station, plan=plan, round=round, code=code)

    def moved(self, station: RegionStation, direction: str, size: int) -> None:
        """Bytes of arrays went ``in`` or ``out``; they count against the region's limit."""
        station.presence.owe(size)
        counter = self._metrics.counter("bytes", "Bytes of arrays.", "region", "direction")
        counter.labels(station.name, direction).inc(size)

    def gauge(self) -> None:
        """Set the gauges."""
        outstanding = self._metrics.gauge("outstanding", "Rounds that wait for the region.", "region")
        seen = self._metrics.gauge("seen_seconds", "POSIX time of the region's last call.", "region")
        for station in self.stations:
            outstanding.labels(station.name).set(station.desk.open is not None)
            seen.labels(station.name).set(station.presence.seen or 0)
        self._metrics.gauge("plans", "Plans on offer.").set(len(self.board.plans))
