"""A region's books for tests: ledger, grant and approved plans, as an operator would have made them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedfsd.engine import randomness
from fedfsd.gate.gate import LEDGER, MIRROR, open_ledger
from fedfsd.ledger import draft, entry
from fedfsd.ledger.digest import key_commitment
from fedfsd.ledger.ledger import Ledger
from fedfsd.plan.plan import Plan


def keep_books(folder: Path, region: str, *plans: Plan) -> None:
    """Make the ledger in ``folder`` where there is none, and hold ``plans`` in a grant that pays for them."""
    if (folder / LEDGER).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    officer, node = draft.officer_key(region), draft.node_key(region)
    genesis = draft.genesis(node=node.verification, officer=officer.verification)
    signed = entry.sign(genesis, {"officer": officer, "node": node})
    ledger = Ledger.create(folder / LEDGER, mirror=folder / MIRROR, genesis=signed, node=node)
    made = draft.grant(
        ledger.state,
        data_set="test",
        data_commitment="0" * 64,
        delta=1e-4,
        events=[event for plan in plans for event in plan.events(region)],
    )
    ledger.add(entry.sign(made, {"officer": officer}))
    for plan in plans:
        commitment = None
        if plan.mode == "private":
            commitment = key_commitment(randomness.run_key(folder / "keys", plan.hash))
        ledger.approve_plan(plan, recipient="coordinator", purpose="test", key_commitment=commitment)
    ledger.close()


def rounds_in(folder: Path) -> list[dict[str, Any]]:
    """The reservations and releases that the books of ``folder`` hold."""
    path = folder / MIRROR
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [one for one in map(json.loads, lines) if one["type"] in ("reserve", "release")]


__all__ = ["keep_books", "open_ledger", "rounds_in"]
