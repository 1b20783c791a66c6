"""Ledgers for tests, begun the one way in which a ledger begins; grants, permissions and approved plans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedfsd.gate.gate import LEDGER, MIRROR, open_ledger
from fedfsd.ledger import draft, entry
from fedfsd.ledger.digest import key_commitment
from fedfsd.ledger.entry import Approval
from fedfsd.ledger.key import SigningKey
from fedfsd.ledger.ledger import Ledger
from fedfsd.plan.plan import Plan


def begin(folder: Path, mirror: Path, *, node: SigningKey, officer: SigningKey, **options: Any) -> Ledger:
    """A ledger in ``folder`` with nothing but its genesis."""
    folder.mkdir(parents=True, exist_ok=True)
    genesis = draft.genesis(node=node.verification, officer=officer.verification, **options)
    signed = entry.sign(genesis, {"officer": officer, "node": node})
    return Ledger.create(folder, mirror=mirror, genesis=signed, node=node)


def grant_for(ledger: Ledger, officer: SigningKey, *plans: Plan, data_set: str) -> None:
    """Have the officer grant exactly what ``plans`` cost."""
    made = draft.grant(
        ledger.state,
        data_set=data_set,
        data_commitment="0" * 64,
        delta=1e-4,
        events=[event for plan in plans for event in plan.events(ledger.state.genesis.region)],
    )
    ledger.add(entry.sign(made, {"officer": officer}))


def permission(ledger: str, **options: Any) -> Approval:
    """Permission to transfer to the coordinator, for all of 2026, or as ``options`` say; not signed yet."""
    defaults = {
        "ledger": ledger,
        "data_set": "fleet-2026",
        "authority": "Data office",
        "number": "2026/1",
        "recipient": "fedfsd/coordinator/hub",
        "purpose": "research",
        "models": ("mlp",),
        "valid_from": "2026-01-01",
        "valid_until": "2026-12-31",
        "max_releases": 100,
        "max_bytes": 10**6,
    }
    return Approval(**{**defaults, **options})


def keep_books(folder: Path, region: str, *plans: Plan) -> None:
    """Make the ledger in ``folder`` where there is none, and hold ``plans`` in a grant that pays for them."""
    if (folder / LEDGER).exists():
        return
    from fedfsd.engine import randomness  # with torch, which most ledgers do without

    officer, node = draft.officer_key(region), draft.node_key(region)
    ledger = begin(folder / LEDGER, folder / MIRROR, node=node, officer=officer)
    grant_for(ledger, officer, *plans, data_set="test")
    for plan in plans:
        commitment = None
        if plan.mode == "private":
            commitment = key_commitment(randomness.run_key(folder / "keys", plan.hash))
        ledger.approve_plan(plan, recipient="coordinator", purpose="test", key_commitment=commitment)
    ledger.close()


def rounds_in(folder: Path, *types: str) -> list[dict[str, Any]]:
    """The entries of these types, by default reservations and releases, that the books of ``folder`` hold."""
    path = folder / MIRROR
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [one for one in map(json.loads, lines) if one["type"] in (types or ("reserve", "release"))]


__all__ = ["keep_books", "open_ledger", "rounds_in"]
