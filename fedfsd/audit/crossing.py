"""What left a region, release by release, and whether it arrived."""

from __future__ import annotations

from typing import Any

from fedfsd.audit.case import Case
from fedfsd.audit.chapter import Crossing
from fedfsd.audit.receipt import Receipt, Receipts
from fedfsd.audit.words import said

RECEIVED, UNDELIVERED = "received", "undelivered"


def releases(case: Case, receipts: Receipts | None) -> list[dict[str, Any]]:
    """Every release of a ledger with hash, size, schema, destination and delivery, in order."""
    if receipts is not None and not receipts.is_signed:
        receipts = None  # verify tells; nothing in them counts
    known = {(one.region, one.plan, one.round): one for one in receipts.receipts} if receipts else {}
    found = []
    for crossing in case.course.crossings:
        one = crossing.entry
        hash = entry_hash(case, crossing)
        receipt = known.get((case.course.ledger.region, one.plan, one.round))
        found.append(
            {
                "entry": one.seq,
                "entry_hash": hash,
                "plan": one.plan,
                "round": one.round,
                "sha256": one.sha256,
                "bytes": one.bytes,
                "schema": one.schema_,
                "destination": said(one.destination),
                "approval": one.approval,
                "date": crossing.reserve.date if crossing.reserve else None,
                "delivery": _delivery(crossing, hash, receipt, receipts),
            }
        )
    return found


def entry_hash(case: Case, crossing: Crossing) -> str:
    """By which a release is named outside its ledger."""
    tree = case.course.ledger.tree
    return tree.leaf(crossing.entry.seq).hex() if crossing.entry.seq < len(tree) else ""


def _delivery(
    crossing: Crossing, hash: str, receipt: Receipt | None, receipts: Receipts | None
) -> str | None:
    """What the coordinator's receipts say of a release; None where they say nothing."""
    one = crossing.entry
    if receipts is None or one.plan not in receipts.plans:
        return None
    if receipt is None:
        return UNDELIVERED
    same = (receipt.sha256, receipt.bytes, receipt.entry) == (one.sha256, one.bytes, hash)
    return RECEIVED if same else "other bytes than the receipt's"
