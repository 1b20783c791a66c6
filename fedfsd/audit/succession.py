"""A region that began another ledger: the one before it was closed, and what it spent was carried over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fedfsd.audit.evidence import Evidence, Ledger
from fedfsd.audit.filter import sums
from fedfsd.audit.finding import Finding, contradiction, left_out, undecided
from fedfsd.language import say
from fedfsd.ledger.entry import Close, Grant


def check_succession(ledger: Ledger, evidence: Evidence) -> Iterator[Finding]:
    """It is the region's only ledger, or the one before it was closed and its losses were carried over."""
    genesis = ledger.genesis
    if genesis is None:
        return
    same = [one for one in evidence.ledgers if one.genesis and one.genesis.region == genesis.region]
    for other in same:
        theirs = other.genesis
        if theirs and theirs.ledger != genesis.ledger and theirs.previous == genesis.previous:
            yield contradiction(
                "entry 0 (genesis)",
                say("{ledger} beside it ({source})", ledger=theirs.ledger, source=other.source),
                say("one ledger after another"),
            )
    if _circular(ledger, same):
        yield contradiction("entry 0 (genesis)", say("a ledger that goes on from itself"), say("a first one"))
    if genesis.previous is None:
        yield left_out(say("whether the region has another ledger, of which nothing was handed in"))
        return
    before = [one for one in same if one.genesis and one.genesis.ledger == genesis.previous]
    if not before:
        yield undecided(
            "entry 0 (genesis)",
            say("goes on from ledger {previous}, which is not here", previous=genesis.previous),
        )
    for one in before[:1]:
        yield from _carried(ledger, max(before, key=lambda some: len(some.lines)) if before else one)


def _circular(ledger: Ledger, same: Sequence[Ledger]) -> bool:
    """Whether the ledgers before this one lead back to it or to each other."""
    previous = {one.genesis.ledger: one.genesis.previous for one in same if one.genesis}
    seen, at = set(), ledger.genesis.ledger if ledger.genesis else None
    while at in previous and at not in seen:
        seen.add(at)
        at = previous[at]
    return at in seen


def _carried(ledger: Ledger, before: Ledger) -> Iterator[Finding]:
    if before.newer is not None:
        yield undecided(
            "entry 0 (genesis)",
            say("goes on from {source}, which can be read in part only", source=before.source),
        )
        return
    if not before.signed or not isinstance(before.signed[-1], Close):
        yield contradiction(
            "entry 0 (genesis)", say("{source} still open", source=before.source), say("its officer's close")
        )
    first: dict[str, Grant] = {}
    for one in ledger.signed:
        if isinstance(one, Grant):
            first.setdefault(one.data_set, one)
    for label, account in sums(before).items():
        grant = first.get(label)
        if grant is None:
            continue
        place, spent = f"entry {grant.seq} (grant), carried_rho", account.spent + account.held
        if grant.alpha != account.grant.alpha:
            yield undecided(
                place, say("order {alpha} after {alpha_2}", alpha=grant.alpha, alpha_2=account.grant.alpha)
            )
        elif grant.carried_rho < spent:
            yield contradiction(
                place,
                grant.carried_rho,
                say("at least {spent}, spent and held in {source}", spent=spent, source=before.source),
            )
