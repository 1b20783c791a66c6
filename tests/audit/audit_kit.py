"""Regions with real ledgers, made through the ledger's own commands, and what they hand to an auditor."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import books
from plan import sample
from plan.sample import spending

from fedfsd import canonical
from fedfsd.audit import receipt
from fedfsd.audit.evidence import Evidence, load
from fedfsd.audit.receipt import Receipt, Receipts
from fedfsd.audit.verdict import Report
from fedfsd.audit.verify import verify
from fedfsd.ledger import draft, entry, strict
from fedfsd.ledger.entry import Grant
from fedfsd.ledger.key import SigningKey
from fedfsd.ledger.ledger import Ledger, Released
from fedfsd.mechanism.accountant import epsilon_pld
from fedfsd.mechanism.event import Event
from fedfsd.plan.plan import ModelPlan, Plan

DATA, PURPOSE, DELTA, FLOATS = "fleet-2026", "research", 1e-4, 5
HUB = SigningKey.from_seed("fedfsd/coordinator/hub", b"c" * 32)


def plan_of(*names: str, rounds: int = 3, noise: float = 2.0, mode: str = "private", **changes: Any) -> Plan:
    """A plan of ``rounds`` rounds of 4 steps at q 0.1; ``changes`` are fields of the plan."""
    epsilon = None if mode == "rehearsal" else epsilon_pld([Event(0.1, noise, 4 * rounds)], DELTA)
    region = {"max_grad_norm": 0.5, "windows_per_vehicle": 8, "epsilon": epsilon}
    return spending(*names or ("EU",), noise=noise, region=region, num_rounds=rounds, mode=mode, **changes)


def model(name: str = "mlp") -> ModelPlan:
    return sample.model(FLOATS, name=name)


class Region:
    """One region's node and data officer."""

    def __init__(self, folder: Path, name: str = "EU", *, simulated: bool = False) -> None:
        self.name, self.folder = name, folder / name
        self.day = datetime.date(2026, 11, 22)
        self.officer = SigningKey.from_seed(f"fedfsd/{name}/officer", name.encode().ljust(32, b"o"))
        ledger = canonical.sha256(name.encode())[:32]
        self.node = SigningKey.from_seed(f"fedfsd/{name}/{ledger}", name.encode().ljust(32, b"n"))
        mirror = self.folder / "mirror.jsonl"
        keys = {"node": self.node, "officer": self.officer}
        books.begin(self.folder / "node", mirror, **keys, simulated=simulated).close()
        self.ledger = Ledger(self.folder / "node", mirror=mirror, today=lambda: self.day)
        self.released: list[tuple[Plan, int, Released]] = []

    def signed(self, one: Any) -> int:
        """Append what the officer signs."""
        return self.ledger.add(entry.sign(one, {"officer": self.officer}))

    def grant(self, **options: Any) -> Grant:
        defaults = {"data_set": DATA, "data_commitment": "d" * 64, "delta": DELTA, "epsilon": 10.0}
        one = draft.grant(self.ledger.state, **{**defaults, **options})
        return one.model_copy(update={"seq": self.signed(one)})

    def approve(self, plan: Plan, **options: Any) -> int:
        secret = None if plan.mode == "rehearsal" else canonical.sha256(plan.hash.encode())
        defaults = {"recipient": HUB.name, "purpose": PURPOSE, "key_commitment": secret}
        return self.ledger.approve_plan(plan, **{**defaults, **options})

    def permit(self, **options: Any) -> int:
        """The officer's permission to transfer, for all of 2026."""
        return self.signed(books.permission(self.ledger.state.genesis.ledger, **options))

    def round(self, plan: Plan, number: int) -> None:
        """Reserve, train, release."""
        booked = self.ledger.reserve(plan.hash, number, canonical.sha256(b"arrays%d" % number))
        update = canonical.sha256(f"{self.name}{booked}".encode()).encode()[: 4 * FLOATS]
        self.released.append((plan, number, self.ledger.release(update, booked)))

    def run(self, plan: Plan, **options: Any) -> None:
        """A whole plan, settled."""
        self.approve(plan, **options)
        for number in range(1, plan.num_rounds + 1):
            self.round(plan, number)
        self.ledger.settle(plan.hash)

    def bundle(self) -> Path:
        path = self.folder.parent / f"{self.name}.zip"
        self.ledger.bundle(path)
        return path


def receipts(folder: Path, *regions: Region, leave_out: tuple[int, ...] = ()) -> Path:
    """What the coordinator countersigned, but for some round numbers."""
    rows = [
        Receipt(
            region=one.name,
            plan=plan.hash,
            round=number,
            entry=released.entry_hash,
            sha256=released.sha256,
            bytes=len(released.content),
        )
        for one in regions
        for plan, number, released in one.released
        if number not in leave_out
    ]
    made = Receipts(
        run="test",
        coordinator=str(HUB.verification),
        plans=tuple(sorted({plan.hash for one in regions for plan, _, _ in one.released})),
        receipts=tuple(sorted(rows, key=lambda one: (one.region, one.plan, one.round))),
    )
    path = folder / "receipts.json"
    path.write_bytes(strict.encode(receipt.sign(made, HUB)))
    return path


def trust(folder: Path, *regions: Region) -> Path:
    """The keys of regions and coordinator, as an auditor has them from elsewhere."""
    rows = [f"coordinator {HUB.verification}"]
    for one in regions:
        rows += [f"node {one.node.verification}", f"officer {one.officer.verification}"]
    path = folder / "trust.keys"
    path.write_text("\n".join(rows) + "\n")
    return path


def audited(folder: Path, *regions: Region, **options: Any) -> tuple[Evidence, Report]:
    """All that these regions hand in, with everybody's keys, and what verification makes of it."""
    evidence = load([one.bundle() for one in regions], trust=trust(folder, *regions), **options)
    return evidence, verify(evidence)
