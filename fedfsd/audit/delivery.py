"""What the coordinator says it received, against what the region says it released."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from fedfsd.audit.evidence import Evidence, Ledger
from fedfsd.audit.finding import Finding, contradiction, left_out, remark, skipped, undecided
from fedfsd.language import say
from fedfsd.ledger.entry import Close, Incident, PlanEntry, Recover, Release, Settle

Round = tuple[str, int]
"""A plan's hash and a round's number."""


def check_receipts(ledger: Ledger, evidence: Evidence) -> Iterator[Finding]:
    """What the coordinator received is what the region released, one to one, in the plans covered."""
    if evidence.refused_receipts is not None:
        yield skipped(say("receipts that cannot be read"))
        return
    if evidence.receipts is None:
        yield skipped(say("no --receipts: nothing shows what reached the coordinator"))
        return
    received = [one for one in evidence.receipts.receipts if one.region == ledger.region]
    covered = set(evidence.receipts.plans)
    if not received and not covered & set(ledger.plans):
        yield skipped(say("the receipts cover no plan of this ledger"))
        return
    region = [one for one in evidence.ledgers if one.region == ledger.region]
    released: dict[Round, set[tuple[str, int, str]]] = defaultdict(set)
    for one in region:
        for case, release in _releases(one):
            leaf = one.tree.leaf(release.seq).hex() if release.seq < len(one.lines) else ""
            released[case].add((release.sha256, release.bytes, leaf))
    elsewhere, plans = _elsewhere(region, evidence)
    for receipt in received:
        place = f"receipt of {receipt.plan[:8]} round {receipt.round}"
        found = released.get((receipt.plan, receipt.round))
        if found is None and (plans is None or receipt.plan in plans):
            yield undecided(place, say("no release of it; it may be in {elsewhere}", elsewhere=elsewhere))
        elif found is None:
            yield contradiction(place, say("no release of it"), say("one: what arrived had been released"))
        elif (receipt.sha256, receipt.bytes, receipt.entry) not in found:
            yield contradiction(place, say("other bytes or another entry"), say("those of its release"))
    own = {(one.plan, one.round, one.finding) for one in ledger.entries() if isinstance(one, Incident)}
    for ended in evidence.receipts.incidents:
        if ended.region == ledger.region:
            said = (
                say("an update unlike the plan's: {finding}", finding=ended.finding)
                if (ended.plan, ended.round, ended.finding) in own
                else say(
                    "an update unlike the plan's, by the coordinator's word alone: {finding}",
                    finding=ended.finding,
                )
            )
            place = f"plan {ended.plan[:8]}, round {ended.round}"
            yield contradiction(place, said, say("an update as planned"))
    arrived = {(one.plan, one.round) for one in received}
    mine = dict(_releases(ledger))
    undelivered = [case for case in mine if case[0] in covered and case not in arrived]
    if undelivered:
        yield remark(
            say(
                "undelivered: {rounds}, released without a receipt, counted as spent",
                rounds=_rounds(undelivered),
            )
        )
    others = sum(plan not in covered for plan, _ in mine)
    if others:
        yield left_out(say("{others} releases of plans that the receipts do not cover", others=others))


def check_regions(evidence: Evidence) -> Iterator[Finding]:
    """Of every region that the receipts name, there is a bundle."""
    if evidence.receipts is None:
        yield skipped(
            say("no --receipts") if evidence.refused_receipts is None else say("receipts that cannot be read")
        )
        return
    here = {one.region for one in evidence.ledgers}
    counts: dict[str, int] = {}
    for one in evidence.receipts.receipts:
        if one.region not in here:
            counts[one.region] = counts.get(one.region, 0) + 1
    for region, count in counts.items():
        yield undecided(
            "receipts",
            say("{count} of region {region}, whose bundle is not here", count=count, region=region),
        )


def _releases(ledger: Ledger) -> Iterator[tuple[Round, Release]]:
    """Each round's release; of two for one round, which another check tells, both."""
    return (((one.plan, one.round), one) for one in ledger.entries() if isinstance(one, Release))


def _elsewhere(region: Sequence[Ledger], evidence: Evidence) -> tuple[str, frozenset[str] | None]:
    """Where a release that no bundle of its region shows may be, and of which plans; None: of any."""
    lost = [_lost(one) for one in region]
    if None in lost:
        return "what a recovery says was lost", None
    if evidence.unread(region[0].region):
        return "what a newer release wrote", None
    here = {one.id for one in region}
    before = {one.genesis.previous for one in region if one.genesis} - {None}
    if before - here:
        return "the region's earlier ledger, which is not here", None
    if any(one.id not in before and one.signed and isinstance(one.signed[-1], Close) for one in region):
        return "a ledger that followed the closed one", None
    return "what a recovery says was lost", frozenset().union(*(one for one in lost if one))


def _lost(ledger: Ledger) -> frozenset[str] | None:
    """The plans of which a recovery says that rounds may be gone; None where anything may be."""
    lost: set[str] = set()
    open_plans: set[str] = set()
    for one in ledger.entries() if ledger.recoveries else ():
        if isinstance(one, PlanEntry):
            open_plans.add(one.plan)
        elif isinstance(one, Settle):
            open_plans.discard(one.plan)
        elif isinstance(one, Recover):
            if one.lost_size > one.seq:
                if one.reach == "unknown":
                    return None
                lost |= open_plans
            open_plans.clear()
    return frozenset(lost)


def _rounds(cases: Sequence[Round]) -> str:
    first = ", ".join(f"{plan[:8]} round {number}" for plan, number in cases[:5])
    return first if len(cases) <= 5 else f"{first} and {len(cases) - 5} more"
