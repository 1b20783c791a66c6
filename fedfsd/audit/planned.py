"""Plans against their documents, rounds and releases against their plans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fedfsd import canonical
from fedfsd.audit.evidence import Ledger
from fedfsd.audit.finding import Finding, contradiction, refusal
from fedfsd.audit.loss import Rounds, differing, event_of, nano_nats, rounds_of
from fedfsd.errors import AccountingError, ConfigError
from fedfsd.ledger import terms
from fedfsd.ledger.entry import Entry, Grant, PlanEntry, Release, Reserve
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.terms import Terms

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
    planned: dict[str, Rounds] = {}
    for one in ledger.entries():
        if not isinstance(one, Reserve | Release) or one.plan not in ledger.terms:
            continue
        plan, read = ledger.plans[one.plan], ledger.terms[one.plan]
        if isinstance(one, Release):
            yield from _differing(one, _of_release(one, plan, read))
            continue
        if one.plan not in planned:
            event = event_of(plan.document, ledger.region, read.rounds)
            planned[one.plan] = rounds_of(event, read.rounds)
        yield from _differing(one, _of_reserve(one, plan, planned[one.plan], read.rounds))


def _of_plan(one: PlanEntry, grant: Grant | None, region: str) -> Fields:
    """(field, what the entry says, what its document and grant make it)."""
    read = terms.read(one.document, region)
    if grant is None:
        return [("grant", one.grant, "a grant before it")]
    expected = event_of(one.document, region, read.rounds)
    rounds = rounds_of(expected, read.rounds)
    numbers = range(1, read.rounds + 1) if "kind" in expected else range(1, 2)
    each = tuple(nano_nats([rounds[number].event], grant.alpha) for number in numbers)
    return [
        ("hash", one.plan, canonical.digest(one.document)),
        *differing(one.event.model_dump(mode="json"), expected),
        ("rounds", one.rounds, read.rounds),
        ("rho_round", one.rho_round, each if "kind" in expected else each[0]),
        ("rho", one.rho, rounds.nano_nats(grant.alpha)),
        ("release_bytes", one.release_bytes, read.release_bytes),
    ]


def _of_reserve(one: Reserve, plan: PlanEntry, planned: Rounds, count: int) -> Fields:
    return [
        *(
            (name, getattr(one.event, name), getattr(planned[one.round], name))
            for name in ("sample_rate", "noise_multiplier", "max_grad_norm", "steps")
        ),
        ("rho", one.rho, plan.rho_of(max(1, min(one.round, plan.rounds)))),
        ("round", one.round, one.round if 1 <= one.round <= count else f"1 to {count}"),
    ]


def _of_release(one: Release, plan: PlanEntry, read: Terms) -> Fields:
    return [
        ("bytes", one.bytes, read.release_bytes),
        ("schema", one.schema_, read.schema),
        ("destination", one.destination, plan.recipient),
    ]


def _differing(one: Entry, fields: Fields) -> Iterator[Finding]:
    for name, got, expected in fields:
        if got != expected:
            yield contradiction(f"entry {one.seq} ({one.type}), {name}", got, expected)
