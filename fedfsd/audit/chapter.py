"""The course of one ledger: its data sets, grants, plans and releases, told in the order they came.

Nothing is judged here; that is for ``verify``. Sums are those of ``filter``, made from the mechanisms
alone. A data set whose officer declares its vehicles to be other ones begins a new chapter, and what
was promised to the earlier vehicles stands beside it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field

from fedfsd.audit.epsilon import MAX_EVENTS, Promise, promise
from fedfsd.audit.evidence import Ledger
from fedfsd.audit.filter import Sum, Walk
from fedfsd.audit.loss import epsilon_lifetime, nano_nats, rounds_of
from fedfsd.errors import AccountingError, PlanError
from fedfsd.ledger.entry import (
    Abort,
    Approval,
    Close,
    Entry,
    Grant,
    Incident,
    KeyRotate,
    PlanEntry,
    Recover,
    Refuse,
    Release,
    Reserve,
    Settle,
)
from fedfsd.ledger.terms import Terms
from fedfsd.mechanism.accountant import epsilon_pld
from fedfsd.mechanism.event import Event, merge


@dataclass
class Run:
    """An approved plan and what became of its rounds."""

    entry: PlanEntry
    terms: Terms | None
    promise: Promise | None
    chapter: Chapter
    grant: Grant
    """In force when the plan was approved."""
    committed: int
    """Nano-nats spent and held by its data set then, this plan included."""
    computed: bool
    """Not one mechanism too many: an epsilon takes up to a few seconds."""
    reserves: dict[int, Reserve] = field(default_factory=dict)
    releases: dict[int, Release] = field(default_factory=dict)
    aborted: set[int] = field(default_factory=set)
    settled: bool = False
    _epsilons: dict[tuple[Event, ...], float] = field(default_factory=dict)

    @property
    def rehearsal(self) -> bool:
        """Noise under a known key: nothing is promised."""
        return self.terms is not None and self.terms.mode == "rehearsal"

    @property
    def unbooked(self) -> int:
        """Rounds of the plan that were never booked."""
        return self.entry.rounds - len(self.reserves)

    @property
    def rounds(self) -> range:
        """The numbers of all rounds of the plan."""
        return range(1, self.entry.rounds + 1)

    @property
    def events(self) -> tuple[Event, ...]:
        """All rounds of the plan, for accountants."""
        return rounds_of(self.entry.event.model_dump(), self.entry.rounds).events

    def epsilon(self, rounds: Collection[int]) -> float | None:
        """Epsilon (PLD) of those rounds alone, at the plan's own delta; None where there is none."""
        if self.terms is None or self.promise is None or self.rehearsal or not (self.computed and rounds):
            return None
        try:
            planned = rounds_of(self.entry.event.model_dump(), self.entry.rounds)
            events = planned.events if rounds == self.rounds else merge(planned[one].event for one in rounds)
            if events not in self._epsilons:
                self._epsilons[events] = epsilon_pld(events, self.promise.target_delta)
            return self._epsilons[events]
        except (AccountingError, PlanError):
            return None


@dataclass(frozen=True)
class Point:
    """Where a data set stood after entry ``seq``, in nano-nats."""

    seq: int
    spent: int
    held: int
    grant: Grant


@dataclass
class Chapter:
    """Everything charged for the vehicles of one data set."""

    account: Sum
    grants: list[Grant]
    runs: list[Run] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    replaced: bool = False
    """A grant on other vehicles under the same label followed."""

    @property
    def grant(self) -> Grant:
        """The grant in force at the end."""
        return self.grants[-1]

    @property
    def rehearsal(self) -> bool:
        """Whether anything was released, or may be, under a known noise key."""
        return any(run.rehearsal for run in self.runs)

    def epsilon(self, nano: int, grant: Grant | None = None) -> float | None:
        """Epsilon at the grant's delta of a booked loss; nothing booked is exactly nothing."""
        grant = grant or self.grant
        try:
            return epsilon_lifetime(nano, alpha=grant.alpha, delta=grant.delta) if nano else 0.0
        except PlanError:
            return None

    def loss(self, alpha: int) -> int:
        """A bound on what was spent, at an order up to the grant's: Renyi loss falls with the order."""
        events = self.account.events
        elsewhere = self.account.spent - nano_nats(events, self.grant.alpha)
        return elsewhere + nano_nats(events, alpha)


@dataclass(frozen=True)
class Crossing:
    """A release with what the ledger knew when it was written."""

    entry: Release
    reserve: Reserve | None
    run: Run | None
    spent: int


@dataclass
class Course:
    """All that one ledger tells."""

    ledger: Ledger
    chapters: list[Chapter] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    crossings: list[Crossing] = field(default_factory=list)
    approvals: dict[int, Approval] = field(default_factory=dict)
    refusals: list[Refuse] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    rotations: list[KeyRotate] = field(default_factory=list)
    closed: bool = False

    @property
    def heading(self) -> str:
        """What must stand at the head of every page about this ledger; empty for a real one."""
        genesis = self.ledger.genesis
        simulated = bool(genesis and genesis.simulated) or any(
            grant.simulated for chapter in self.chapters for grant in chapter.grants
        )
        rehearsal = any(run.rehearsal for run in self.runs.values())
        return " · ".join(["simulated"] * simulated + ["rehearsal, no guarantee"] * rehearsal)


def course(ledger: Ledger) -> Course:
    """Read a ledger from its first entry to its last, also where it contradicts itself."""
    found, walk = Course(ledger), Walk()
    mechanisms: set[tuple[object, float | None]] = set()
    live: dict[str, Chapter] = {}
    for one in ledger.entries():
        with suppress(AccountingError, PlanError):  # verify tells; sums go on without that entry
            deque(walk.step(one), maxlen=0)
        run = found.runs.get(getattr(one, "plan", None) or "")
        if isinstance(one, Grant) and one.data_set in walk.sums:
            account = walk.sums[one.data_set]
            before = live.get(one.data_set)
            if before is not None and before.account is account:
                before.grants.append(one)
            else:
                if before is not None:
                    before.replaced = True
                live[one.data_set] = Chapter(account, [one])
                found.chapters.append(live[one.data_set])
        elif isinstance(one, PlanEntry) and run is None:
            chapter = next((some for some in live.values() if some.grant.seq == one.grant), None)
            if chapter is not None:
                said = promise(one, ledger.region)
                mechanisms.add((one.event, said.target_delta if said else None))
                made = Run(
                    entry=one,
                    terms=ledger.terms.get(one.plan),
                    promise=said,
                    chapter=chapter,
                    grant=chapter.grant,
                    committed=chapter.account.spent + chapter.account.held,
                    computed=len(mechanisms) <= MAX_EVENTS,
                )
                chapter.runs.append(made)
                found.runs[one.plan] = made
        elif isinstance(one, Reserve) and run is not None:
            run.reserves.setdefault(one.round, one)
        elif isinstance(one, Release):
            reserve = run.reserves.get(one.round) if run else None
            found.crossings.append(Crossing(one, reserve, run, run.chapter.account.spent if run else 0))
            if run is not None:
                run.releases.setdefault(one.round, one)
        elif isinstance(one, Abort) and run is not None:
            run.aborted.add(one.round)
        elif isinstance(one, Settle) and run is not None:
            run.settled = True
        elif isinstance(one, Recover):
            for some in found.runs.values():
                some.settled = True
        else:
            _keep(found, one)
        for chapter in _moved(one, live, found):
            _mark(chapter, one.seq)
    return found


def _moved(one: Entry, live: dict[str, Chapter], found: Course) -> tuple[Chapter, ...]:
    """The chapters whose sums an entry may have changed."""
    if isinstance(one, Recover):
        return tuple(live.values())
    if isinstance(one, Grant):
        return (live[one.data_set],) if one.data_set in live else ()
    run = found.runs.get(one.plan) if isinstance(one, PlanEntry | Reserve | Settle) else None
    return (run.chapter,) if run else ()


def _keep(found: Course, one: Entry) -> None:
    """Entries that change no sum."""
    if isinstance(one, Approval):
        found.approvals[one.seq] = one
    elif isinstance(one, Refuse):
        found.refusals.append(one)
    elif isinstance(one, Incident):
        found.incidents.append(one)
    elif isinstance(one, KeyRotate):
        found.rotations.append(one)
    elif isinstance(one, Close):
        found.closed = True


def _mark(chapter: Chapter, seq: int) -> None:
    """One more point where the sums moved."""
    account = chapter.account
    now = (account.spent, account.held, account.grant)
    last = chapter.points[-1] if chapter.points else None
    if last is None or (last.spent, last.held, last.grant) != now:
        chapter.points.append(Point(seq, *now))
