"""What the coordinator says it received, against what the region says it released."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fedfsd.audit.evidence import Evidence, Ledger
from fedfsd.audit.finding import Finding, contradiction, left_out, remark, skipped, undecided
from fedfsd.ledger.entry import PlanEntry, Recover, Release, Settle


def check_receipts(ledger: Ledger, evidence: Evidence) -> Iterator[Finding]:
    """What the coordinator received is what the region released, one to one, in the plans covered."""
    if evidence.newer_receipts is not None:
        yield skipped("receipts that a newer release wrote")
        return
    if evidence.receipts is None:
        yield skipped("no --receipts: nothing shows what reached the coordinator")
        return
    mine = [one for one in evidence.receipts.receipts if one.region == ledger.region]
    covered = set(evidence.receipts.plans)
    if not mine and not covered & set(ledger.plans):
        yield skipped("the receipts cover no plan of this ledger")
        return
    releases: dict[tuple[str, int], Release] = {}
    others = 0
    for one in ledger.entries():
        if isinstance(one, Release):
            if one.plan in covered:
                releases.setdefault((one.plan, one.round), one)
            else:
                others += 1
    lost, elsewhere = _lost(ledger), _elsewhere(ledger, evidence)
    for receipt in mine:
        release = releases.pop((receipt.plan, receipt.round), None)
        place = f"receipt of {receipt.plan[:8]} round {receipt.round}"
        if release is None and (receipt.plan, receipt.round) in elsewhere:
            continue
        if release is None:
            if lost.anything or receipt.plan in lost.plans:
                yield undecided(place, "no release of it; it may be in what a recovery says was lost")
            elif evidence.unread(ledger.region):
                yield undecided(place, "no release of it; it may be in what a newer release wrote")
            else:
                yield contradiction(place, "no release of it", "one: what arrived had been released")
        else:
            got = (receipt.sha256, receipt.bytes, receipt.entry)
            leaf = ledger.tree.leaf(release.seq).hex() if release.seq < len(ledger.lines) else ""
            if got != (release.sha256, release.bytes, leaf):
                yield contradiction(place, "other bytes or another entry", f"those of entry {release.seq}")
    if releases:
        yield remark(f"undelivered: {_rounds(releases)}, released without a receipt, counted as spent")
    if others:
        yield left_out(f"{others} releases of plans that the receipts do not cover")


def _elsewhere(ledger: Ledger, evidence: Evidence) -> set[tuple[str, int]]:
    """What this region's other bundles hold, longer ones of this ledger or ones of another."""
    others = (one for one in evidence.ledgers if one is not ledger and one.region == ledger.region)
    return {(one.plan, one.round) for other in others for one in other.entries() if isinstance(one, Release)}


@dataclass(frozen=True)
class _Lost:
    """What recoveries say may be gone: rounds of these plans, or anything at all."""

    plans: frozenset[str]
    anything: bool


def _lost(ledger: Ledger) -> _Lost:
    lost: set[str] = set()
    open_plans: set[str] = set()
    anything = False
    for one in ledger.entries() if ledger.recoveries else ():
        if isinstance(one, PlanEntry):
            open_plans.add(one.plan)
        elif isinstance(one, Settle):
            open_plans.discard(one.plan)
        elif isinstance(one, Recover):
            if one.lost_size >= one.seq + 2:  # a reservation and a release
                lost |= open_plans
                anything = anything or one.reach == "unknown"
            open_plans.clear()
    return _Lost(frozenset(lost), anything)


def _rounds(releases: dict[tuple[str, int], Release]) -> str:
    first = ", ".join(f"{plan[:8]} round {number}" for plan, number in list(releases)[:5])
    return first if len(releases) <= 5 else f"{first} and {len(releases) - 5} more"
