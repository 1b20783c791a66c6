"""A region's ledger in a folder, with keys whose holder is known, for tests."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import books
from plan.sample import spending

from fedfsd import canonical
from fedfsd.ledger import draft, entry
from fedfsd.ledger.digest import key_commitment
from fedfsd.ledger.key import SigningKey
from fedfsd.ledger.ledger import Booked, Ledger
from fedfsd.plan.plan import Plan

REGION = "EU"
DATA = "fleet-2026"
RECIPIENT = "fedfsd/coordinator/hub"
PURPOSE = "research"
DAY = datetime.date(2026, 11, 22)
OFFICER = SigningKey.from_seed(f"fedfsd/{REGION}/officer", b"o" * 32)
NODE = SigningKey.from_seed(f"fedfsd/{REGION}/{'0' * 32}", b"n" * 32)
ARRAYS = tuple(canonical.sha256(str(number).encode()) for number in range(100))
FLOATS = 5
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where syncing costs nothing: what a crash leaves behind is the same."""


def plan_of(
    *, rounds: int = 3, noise: float | tuple[float, ...] = 1.0, seed: int = 0, mode: str = "private"
) -> Plan:
    """A plan of ``rounds`` rounds of 4 steps; ``seed`` makes it another one, several noises one by round."""
    return spending(REGION, noise=noise, num_rounds=rounds, seed=seed, mode=mode)


def create(folder: Path, **options: object) -> Ledger:
    """A ledger in ``folder``/node with its mirror in ``folder``/mirror.jsonl, and no grant."""
    books.begin(folder / "node", mirror(folder), node=NODE, officer=OFFICER).close()
    return reopen(folder, **options)


def reopen(folder: Path, **options: object) -> Ledger:
    """The ledger of ``folder`` as a process that starts finds it."""
    return Ledger(folder / "node", mirror=mirror(folder), **{"today": lambda: DAY, **options})


def mirror(folder: Path) -> Path:
    return folder / "mirror.jsonl"


def grant(ledger: Ledger, **options: object) -> int:
    """A signed grant of epsilon 10 on DATA, or as ``options`` say."""
    defaults = {"data_set": DATA, "data_commitment": "d" * 64, "delta": 1e-4, "epsilon": 10.0}
    return ledger.add(sign(draft.grant(ledger.state, **{**defaults, **options})))


def sign(one: entry.Signed) -> entry.Signed:
    """Signed by the officer."""
    return entry.sign(one, {"officer": OFFICER})


def approve(ledger: Ledger, plan: Plan, **options: object) -> int:
    """The plan approved under a key of its own."""
    defaults = {
        "recipient": RECIPIENT,
        "purpose": PURPOSE,
        "key_commitment": key_commitment(plan.hash.encode()),
    }
    return ledger.approve_plan(plan, **{**defaults, **options})


def approval(ledger: Ledger, **options: object) -> int:
    """A signed permission to transfer, for all of 2026, or as ``options`` say."""
    return ledger.add(sign(books.permission(ledger.state.genesis.ledger, **options)))


def update(booked: Booked) -> bytes:
    """What training makes of a booking: the same bytes whenever it is asked."""
    return canonical.sha256(repr(booked).encode()).encode()[: 4 * FLOATS]


def ready(folder: Path, plan: Plan, **options: object) -> Ledger:
    """A ledger with a grant on which ``plan`` is approved."""
    ledger = create(folder, **options)
    grant(ledger)
    approve(ledger, plan)
    return ledger


def run_round(ledger: Ledger, plan: Plan, round: int) -> bytes:
    """What a region does in a round: the bytes that it sends."""
    booked = ledger.reserve(plan.hash, round, ARRAYS[round])
    earlier = ledger.released(booked)
    return (earlier or ledger.release(update(booked), booked)).content
