"""The budget, summed again from the mechanisms alone: FORMAT.md section 5, without the ledger's own code.

Losses are whole nano-nats at the grant's order. What a plan or a round costs is computed here from its
sample rate, noise and steps, whatever its entry says it costs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from fedfsd.audit.evidence import Ledger
from fedfsd.audit.finding import Finding, contradiction, refusal
from fedfsd.audit.loss import epsilon_lifetime, nano_nats, rounds_of
from fedfsd.errors import AccountingError, PlanError
from fedfsd.language import say
from fedfsd.ledger.budget import SLACK
from fedfsd.ledger.entry import Entry, Grant, PlanEntry, Recover, Reserve, Settle
from fedfsd.mechanism.event import Event


@dataclass
class Sum:
    """What one data set's live grant stands at."""

    grant: Grant
    spent: int = 0
    held: int = 0
    plans: int = 0
    rounds: int = 0
    recipients: Counter[str] = field(default_factory=Counter)
    events: list[Event] = field(default_factory=list)
    """Reserved since the vehicles were last said to be other ones."""


@dataclass
class Part:
    """What one approved plan still holds of its grant."""

    entry: PlanEntry
    sum: str
    rounds: int
    """Not reserved yet."""
    left: int


def check_filter(ledger: Ledger) -> Iterator[Finding]:
    """At no entry did the privacy loss booked and held exceed the grant, its horizon or its caps."""
    walk = Walk()
    for one in ledger.entries():
        try:
            yield from walk.step(one)
        except (AccountingError, PlanError) as error:
            yield refusal(f"entry {one.seq} ({one.type})", error)


def sums(ledger: Ledger) -> dict[str, Sum]:
    """Where every data set stands at the end, by its label."""
    walk = Walk()
    for one in ledger.entries():
        try:
            for _ in walk.step(one):
                pass
        except (AccountingError, PlanError):
            continue
    return walk.sums


class Walk:
    """The sums of all data sets, entry by entry. It goes on after a finding, with what was booked."""

    def __init__(self) -> None:
        self.sums: dict[str, Sum] = {}
        self.parts: dict[str, Part] = {}

    def step(self, one: Entry) -> Iterator[Finding]:
        """Count one entry; say what it breaks."""
        place = f"entry {one.seq} ({one.type})"
        touched: Sum | None = None
        if isinstance(one, Grant):
            yield from self._grant(one, place)
            touched = self.sums[one.data_set]
        elif isinstance(one, PlanEntry):
            touched = next((some for some in self.sums.values() if some.grant.seq == one.grant), None)
            if touched is None:
                yield contradiction(
                    place, say("grant {grant}", grant=one.grant), say("the live grant of a data set")
                )
            else:
                yield from self._plan(one, touched, place)
        elif isinstance(one, Reserve) and one.plan in self.parts:
            touched = self.sums[self.parts[one.plan].sum]
            yield from self._reserve(one, touched, place)
        elif isinstance(one, Settle) and one.plan in self.parts:
            yield from self._settle(one, self.parts.pop(one.plan), place)
        elif isinstance(one, Recover):
            yield from self._recover(one, place)
        if touched is not None:
            yield from _limits(touched, place)

    def _grant(self, one: Grant, place: str) -> Iterator[Finding]:
        allowed = epsilon_lifetime(one.rho_max, alpha=one.alpha, delta=one.delta)
        if allowed > one.epsilon + SLACK:
            yield contradiction(
                f"{place}, epsilon",
                one.epsilon,
                say("at least {allowed:.6f} for its rho_max", allowed=allowed),
            )
        live = self.sums.get(one.data_set)
        if one.predecessor != (None if live is None else live.grant.seq):
            yield contradiction(
                f"{place}, predecessor", one.predecessor, say("the live grant of this data set")
            )
        if live is None or one.disjoint:
            if one.disjoint and (
                live is None or any(part.sum == one.data_set for part in self.parts.values())
            ):
                yield contradiction(
                    place, say("other vehicles while plans are open"), say("settled plans first")
                )
            self.sums[one.data_set] = Sum(one, spent=one.carried_rho)
            return
        if one.alpha != live.grant.alpha:
            yield contradiction(f"{place}, alpha", one.alpha, live.grant.alpha)
        live.grant, live.spent = one, live.spent + one.carried_rho

    def _plan(self, one: PlanEntry, held_on: Sum, place: str) -> Iterator[Finding]:
        grant = held_on.grant
        rho = rounds_of(one.event.model_dump(), one.rounds).nano_nats(grant.alpha)
        self.parts.setdefault(one.plan, Part(one, grant.data_set, one.rounds, rho))
        held_on.held += rho
        held_on.plans += 1
        held_on.rounds += one.rounds
        held_on.recipients[one.recipient] += rho
        if one.signatures.officer is None:
            for word, got, cap in (
                ("this plan", rho, grant.plan_cap),
                ("this recipient", held_on.recipients[one.recipient], grant.recipient_cap),
            ):
                if got > cap:
                    yield contradiction(
                        place,
                        say("{got} nano-nats for {word} unsigned", got=got, word=word),
                        say("at most {cap}, or the officer's signature", cap=cap),
                    )

    def _reserve(self, one: Reserve, account: Sum, place: str) -> Iterator[Finding]:
        part = self.parts[one.plan]
        event = rounds_of(one.event.model_dump(), 1)[1].event
        rho = nano_nats([event], account.grant.alpha)
        drawn = min(rho, part.left)  # a round too many holds nothing, but it is spent
        part.left -= drawn
        part.rounds = max(0, part.rounds - 1)
        account.held -= drawn
        account.spent += rho
        account.events.append(event)
        for name, got, expected in (
            ("rho", one.rho, rho),
            ("spent", one.spent, account.spent),
            ("held", one.held, account.held),
            ("grant", one.grant, account.grant.seq),
        ):
            if got != expected:
                yield contradiction(f"{place}, {name}", got, expected)

    def _settle(self, one: Settle, part: Part, place: str) -> Iterator[Finding]:
        account = self.sums[part.sum]
        account.held -= part.left
        account.rounds -= part.rounds
        account.recipients[part.entry.recipient] -= part.left
        if one.freed != part.left:
            yield contradiction(f"{place}, freed", one.freed, part.left)

    def _recover(self, one: Recover, place: str) -> Iterator[Finding]:
        expected = {
            some.grant.seq: some.held if one.reach == "rounds" else max(0, some.grant.rho_max - some.spent)
            for some in self.sums.values()
        }
        charged = {charge.grant: charge.rho for charge in one.charges}
        if charged != expected:
            yield contradiction(
                f"{place}, charges", say("other ones"), say("the worst case of what was lost")
            )
        for some in self.sums.values():
            some.spent += max(charged.get(some.grant.seq, 0), expected[some.grant.seq])
            some.held = 0
        self.parts.clear()


def _limits(account: Sum, place: str) -> Iterator[Finding]:
    grant = account.grant
    for name, got, most in (
        ("nano-nats spent and held", account.spent + account.held, grant.rho_max),
        ("plans", account.plans, grant.max_plans),
        ("rounds", account.rounds, grant.max_rounds),
    ):
        if got > most:
            yield contradiction(
                f"{place}, {name}", got, say("at most {most} by entry {seq}", most=most, seq=grant.seq)
            )
