"""The order of things: reserved before released, nothing twice, no key used again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from fedfsd.audit.evidence import Ledger
from fedfsd.audit.finding import Finding, contradiction
from fedfsd.language import mark, say
from fedfsd.ledger.entry import Abort, PlanEntry, Recover, Release, Reserve, Settle

Round = tuple[str, int]
"""A plan's hash and a round's number."""


def check_reservations(ledger: Ledger) -> Iterator[Finding]:
    """Every release was reserved before it, under a plan approved before that and not settled yet."""
    open_plans: set[str] = set()
    reserved: dict[Round, int] = {}
    aborted: set[Round] = set()
    released: set[Round] = set()
    booked: Counter[str] = Counter()
    sent: Counter[str] = Counter()
    for one in ledger.entries():
        place = f"entry {one.seq} ({one.type})"
        if isinstance(one, PlanEntry):
            open_plans.add(one.plan)
        elif isinstance(one, Recover):
            open_plans.clear()
        elif isinstance(one, Reserve | Release | Abort | Settle):
            if one.plan not in open_plans:
                yield contradiction(place, say("no approved plan that is open"), say("one before it"))
            if isinstance(one, Settle):
                open_plans.discard(one.plan)
                got, expected = (one.reserved, one.released), (booked[one.plan], sent[one.plan])
                if got != expected:
                    yield contradiction(f"{place}, rounds reserved and released", got, expected)
                continue
            case = (one.plan, one.round)
            if isinstance(one, Reserve):
                booked[one.plan] += case not in reserved
                reserved.setdefault(case, one.seq)
                continue
            if reserved.get(case) != one.reserve:
                yield contradiction(
                    place,
                    say("no reservation of this round before it"),
                    say("entry {reserve}", reserve=one.reserve),
                )
            if case in aborted:
                yield contradiction(place, say("a reservation that was given up"), say("an open one"))
            if isinstance(one, Release):
                sent[one.plan] += case not in released
                released.add(case)
            else:
                aborted.add(case)
                if case in released:
                    yield contradiction(place, say("a round that was released"), say("one that was not"))


def check_once(ledger: Ledger) -> Iterator[Finding]:
    """No plan is approved twice, no round of one reserved or released twice, no noise key used twice."""
    seen: dict[tuple[object, ...], int] = {}
    for one in ledger.entries():
        place = f"entry {one.seq} ({one.type})"
        cases: list[tuple[tuple[object, ...], str]] = []
        if isinstance(one, PlanEntry):
            cases = [((one.type, one.plan), mark("plan")), (("key", one.key_commitment), mark("noise key"))]
            cases = cases if one.key_commitment else cases[:1]
            read = ledger.terms.get(one.plan)
            if one.key_commitment is None and read is not None and read.mode != "rehearsal":
                yield contradiction(place, say("no commitment to a noise key"), say("one"))
        elif isinstance(one, Reserve | Release):
            cases = [((one.type, one.plan, one.round), mark("round"))]
        for case, word in cases:
            if seen.setdefault(case, one.seq) != one.seq:
                yield contradiction(
                    place,
                    say("the {word} of entry {value} again", word=say(word), value=seen[case]),
                    say("a new {word}", word=say(word)),
                )
