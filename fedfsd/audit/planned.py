"""Plans against their documents, rounds and releases against their plans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fedfsd import canonical
from fedfsd.audit.evidence import Ledger
from fedfsd.audit.finding import Finding, contradiction, refusal
from fedfsd.errors import AccountingError, ConfigError
from fedfsd.ledger import terms
from fedfsd.ledger.entry import Entry, Grant, Mechanism, PlanEntry, Release, Reserve
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.terms import Terms
from fedfsd.mechanism.renyi import nano_nats

Fields = Sequence[tuple[str, object, object]]


def check_plans(ledger: Ledger) -> Iterator[Finding]:
    """Every plan is its document's: hash, sample rate, noise, clipping norm, steps and privacy loss."""
    grants: dict[int, Grant] = {}
    for one in ledger.signed:
        if isinstance(one, Grant):
            grants[one.seq] = one
        elif isinstance(one, PlanEntry):
            try:
                yield from _differing(one, _of_plan(one, grants.get(one.grant), ledger.region))
            except (EvidenceError, ConfigError, AccountingError) as error:
                yield refusal(f"entry {one.seq} (plan)", error)


def check_rounds(ledger: Ledger) -> Iterator[Finding]:
    """Every reservation and release is as its plan says: mechanism, steps, loss, bytes, destination."""
    for one in ledger.entries():
        if isinstance(one, Reserve) and one.plan in ledger.terms:
            yield from _differing(one, _of_reserve(one, ledger.plans[one.plan], ledger.terms[one.plan]))
        elif isinstance(one, Release) and one.plan in ledger.terms:
            yield from _differing(one, _of_release(one, ledger.plans[one.plan], ledger.terms[one.plan]))


def _of_plan(one: PlanEntry, grant: Grant | None, region: str) -> Fields:
    """(field, what the entry says, what its document and grant make it)."""
    read = terms.read(one.document, region)
    if grant is None:
        return [("grant", one.grant, "a grant before it")]
    rho_round = nano_nats([read.round_event.event], grant.alpha)
    return [
        ("hash", one.plan, canonical.digest(one.document)),
        *_of_event(one.event, read.event),
        ("rounds", one.rounds, read.rounds),
        ("rho_round", one.rho_round, rho_round),
        ("rho", one.rho, rho_round * read.rounds),
        ("release_bytes", one.release_bytes, read.release_bytes),
    ]


def _of_reserve(one: Reserve, plan: PlanEntry, read: Terms) -> Fields:
    within = 1 <= one.round <= read.rounds
    return [
        *_of_event(one.event, read.round_event),
        ("rho", one.rho, plan.rho_round),
        ("round", one.round, one.round if within else f"1 to {read.rounds}"),
    ]


def _of_release(one: Release, plan: PlanEntry, read: Terms) -> Fields:
    return [
        ("bytes", one.bytes, read.release_bytes),
        ("schema", one.schema_, read.schema),
        ("destination", one.destination, plan.recipient),
    ]


def _of_event(got: Mechanism, expected: Mechanism) -> Fields:
    return [
        (name, getattr(got, name), getattr(expected, name))
        for name in ("sample_rate", "noise_multiplier", "max_grad_norm", "steps")
    ]


def _differing(one: Entry, fields: Fields) -> Iterator[Finding]:
    for name, got, expected in fields:
        if got != expected:
            yield contradiction(f"entry {one.seq} ({one.type}), {name}", got, expected)
