"""A region's status: budget spent, reserved and left of each grant, plans, transfers, refusals, warnings.

Epsilons are at the grant's order and delta. With nothing booked the epsilon is 0, although the
ledger's conversion gives a bound above 0 for zero loss.
"""

from __future__ import annotations

import datetime
from contextlib import closing
from typing import Any, cast

from fedfsd.ledger import entry
from fedfsd.ledger.budget import Account
from fedfsd.ledger.note import Note
from fedfsd.ledger.permission import Permission
from fedfsd.ledger.state import Run, State
from fedfsd.ledger.store import Store
from fedfsd.mechanism.renyi import epsilon_lifetime
from fedfsd.node.approve import program_there
from fedfsd.node.node import Node
from fedfsd.node.outlook import fitting, lasts, warnings

RECENT = 5

Document = dict[str, Any]


def status(node: Node, *, today: datetime.date) -> Document:
    """Everything ``fedfsd region status --json`` prints.

    Raises:
        NotReadyError: no ledger, or one that is not the newest copy.
    """
    with closing(node.open_ledger()) as ledger, closing(Store(node.ledger, node.mirror)) as store:
        state = ledger.state
        checkpoints = store.checkpoints()
        told, behind = _told(store), ledger.mirror_behind
    date = today.isoformat()
    found = {
        "region": node.settings.name,
        "ledger": state.genesis.ledger,
        "entries": state.size,
        "bytes": (node.ledger / "ledger.sqlite").stat().st_size,
        "mirror": str(node.mirror),
        "mirror_behind": behind,
        "epoch": state.epoch,
        "closed": state.closed,
        "node_key": str(state.node),
        "officer_key": str(state.officer),
        "trust_lines": _trust_lines(state),
        "checkpoint": _checkpoint(state, checkpoints, told),
        "grants": [_grant(state, account, today) for account in state.accounts.values()],
        "plans": [_plan(state, run) for run in state.runs.values()],
        "program_changed": _program_changed(node, state),
        "releases": _releases(state)[-RECENT:],
        "refusals": [
            {
                "entry": one.seq,
                "plan": one.plan,
                "name": _name(state, one.plan),
                "round": one.round,
                "code": one.code,
            }
            for one in told
            if isinstance(one, entry.Refuse)
        ],
        "approvals": [_approval(one, today) for one in state.permissions.values()],
        "incidents": [
            {"entry": one.seq, "code": one.code, "plan": one.plan, "text": one.text}
            for one in told
            if isinstance(one, entry.Incident)
        ],
    }
    return found | {"warnings": list(warnings(node, state, found, date))}


def _program_changed(node: Node, state: State) -> list[str]:
    """Open plans whose rounds the running gate refuses: its runner is not the program on record."""
    there = program_there(node)
    return [
        plan
        for plan, run in state.runs.items()
        if there is not None and not run.settled and run.program not in (None, there)
    ]


def _trust_lines(state: State) -> list[str]:
    """What an auditor's trust file needs of this region: its first keys; all later ones follow from them."""
    first = state.genesis
    return [f"node {first.node_key}", f"officer {first.officer_key}"]


def _told(store: Store) -> list[entry.Entry]:
    """Refusals, incidents and cosigned checkpoints in order: what the state keeps no list of."""
    marks = [f'"type":"{kind}"'.encode() for kind in ("refuse", "incident", "witness")]
    lines = (content for content in store.entries() if any(mark in content for mark in marks))
    return [
        one
        for one in map(entry.parse, lines)
        if isinstance(one, entry.Refuse | entry.Incident | entry.WitnessEntry)
    ]


def _checkpoint(state: State, kept: list[tuple[int, int, str]], told: list[entry.Entry]) -> Document | None:
    if not kept:
        return None
    epoch, size, _ = kept[-1]
    seen = [one for one in told if isinstance(one, entry.WitnessEntry)]
    names = [one.name for one in Note.parse(seen[-1].checkpoint).signatures] if seen else []
    return {
        "epoch": epoch,
        "size": size,
        "entries_since": state.size - size,
        "cosigned_size": seen[-1].size if seen else None,
        "cosigned_by": [name for name in names if name != state.node.name],
    }


def _grant(state: State, account: Account, today: datetime.date) -> Document:
    grant, balance = account.grant, account.balance

    def at(rho: int) -> float:
        return epsilon_lifetime(rho, alpha=grant.alpha, delta=grant.delta) if rho else 0.0

    mine = [run.entry for run in state.runs.values() if run.data_set == grant.data_set]
    return {
        "data_set": grant.data_set,
        "entry": grant.seq,
        "delta": grant.delta,
        "alpha": grant.alpha,
        "epsilon": grant.epsilon,
        "epsilon_spent": at(balance.spent),
        "epsilon_lifetime": at(balance.spent + balance.held),
        "rho_max": grant.rho_max,
        "spent": balance.spent,
        "held": balance.held,
        "left": balance.left,
        "plans": balance.plans,
        "max_plans": grant.max_plans,
        "rounds": balance.rounds,
        "max_rounds": grant.max_rounds,
        "approval_required": grant.approval_required,
        "last_plan": _name(state, mine[-1].plan) if mine else None,
        "more_like_it": fitting(account, mine[-1]) if mine else None,
        "lasts_until": lasts(state, account, balance.left, today),
    }


def _plan(state: State, run: Run) -> Document:
    bookings, document = run.bookings.values(), cast(Any, run.entry.document)
    return {
        "entry": run.entry.seq,
        "plan": run.entry.plan,
        "name": _name(state, run.entry.plan),
        "data_set": run.data_set,
        "recipient": run.entry.recipient,
        "epsilon": document["regions"][state.genesis.region].get("epsilon"),
        "settled": run.settled,
        "rounds": run.entry.rounds,
        "reserved": len(run.bookings),
        "released": sum(booking.release is not None for booking in bookings),
        "aborted": sum(booking.aborted for booking in bookings),
        "rho": run.entry.rho,
    }


def _releases(state: State) -> list[Document]:
    made = [
        (booking.release, booking.entry)
        for run in state.runs.values()
        for booking in run.bookings.values()
        if booking.release is not None
    ]
    return [
        {
            "entry": one.seq,
            "plan": one.plan,
            "name": _name(state, one.plan),
            "round": one.round,
            "date": booked.date,
            "bytes": one.bytes,
            "sha256": one.sha256,
            "destination": one.destination,
            "approval": None if one.approval is None else state.permissions[one.approval].approval.number,
        }
        for one, booked in sorted(made, key=lambda pair: pair[0].seq)
    ]


def _approval(permission: Permission, today: datetime.date) -> Document:
    mine, year = permission.approval, today.year
    return {
        "entry": mine.seq,
        "authority": mine.authority,
        "number": mine.number,
        "data_set": mine.data_set,
        "recipient": mine.recipient,
        "purpose": mine.purpose,
        "valid_from": mine.valid_from,
        "valid_until": mine.valid_until,
        "days_left": (datetime.date.fromisoformat(mine.valid_until) - today).days,
        "void": permission.void,
        "year": year,
        "releases": permission.reserved[year],
        "max_releases": mine.max_releases,
        "bytes": permission.reserved_bytes[year],
        "max_bytes": mine.max_bytes,
    }


def _name(state: State, plan: str) -> str | None:
    """What a plan calls itself, where it was approved here."""
    run = state.runs.get(plan)
    return str(run.entry.document.get("name")) if run else None
