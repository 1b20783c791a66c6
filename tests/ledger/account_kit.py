"""Grants and plans of round numbers: at order 2 a step of noise 1 on every vehicle costs one nat."""

from __future__ import annotations

from typing import Any

from fedfsd.ledger.entry import Charge, Grant, PlanEntry, PlanSignature, Recover, Reserve, Settle
from fedfsd.mechanism.kind import GaussianText
from fedfsd.mechanism.renyi import NANO

LEDGER = "0" * 32
SIGNED = PlanSignature(officer="1" * 128)


def grant(**changes: Any) -> Grant:
    """Ten nats for at most 100 plans and 100 rounds, without caps."""
    fields: dict[str, Any] = {
        "seq": 1,
        "ledger": LEDGER,
        "data_set": "fleet",
        "data_commitment": "d" * 64,
        "delta": 1e-4,
        "alpha": 2,
        "rho_max": 10 * NANO,
        "epsilon": 1000.0,
        "explanation": "for tests",
        "max_plans": 100,
        "max_rounds": 100,
        "plan_cap": 1000 * NANO,
        "recipient_cap": 1000 * NANO,
        "approval_required": False,
        "predecessor": None,
        "disjoint": False,
        "carried_rho": 0,
        "simulated": False,
    }
    return Grant(**(fields | changes))


def plan(number: int = 1, *, rounds: int = 1, recipient: str = "hub", **changes: Any) -> PlanEntry:
    """A plan that costs a nat a round; ``number`` makes it another one."""
    event = GaussianText(sample_rate=1.0, noise_multiplier=1.0, max_grad_norm=1.0, steps=rounds)
    fields: dict[str, Any] = {
        "seq": 100 + number,
        "ledger": LEDGER,
        "plan": f"{number:064x}",
        "document": {},
        "grant": 1,
        "event": event,
        "rounds": rounds,
        "rho_round": NANO,
        "rho": rounds * NANO,
        "release_bytes": 4,
        "recipient": recipient,
        "purpose": "research",
        "key_commitment": None,
        "code": "c" * 64,
        "version": "1",
    }
    return PlanEntry(**(fields | changes))


def reserve(one: PlanEntry, round: int, *, spent: int, held: int) -> Reserve:
    """A round of ``one`` booked; ``spent`` and ``held``, in nats, are what stands after it."""
    return Reserve(
        seq=200,
        plan=one.plan,
        round=round,
        arrays="a" * 64,
        event=one.event.model_copy(update={"steps": one.event.steps // one.rounds}),
        rho=NANO,
        grant=one.grant,
        spent=spent * NANO,
        held=held * NANO,
        approval=None,
        date="2026-11-22",
    )


def settle(one: PlanEntry, *, freed: int) -> Settle:
    """``one`` is over; ``freed`` in nats."""
    return Settle(seq=300, plan=one.plan, reserved=0, released=0, freed=freed * NANO)


def recover(reach: str, **charges: int) -> Recover:
    """A recovery that charges ``grant_1=3`` nats to the grant of entry 1, and so on."""
    made = tuple(
        Charge(grant=int(name.removeprefix("grant_")), rho=nats * NANO) for name, nats in charges.items()
    )
    return Recover(seq=400, ledger=LEDGER, epoch=1, lost_size=9, lost_root=None, reach=reach, charges=made)
