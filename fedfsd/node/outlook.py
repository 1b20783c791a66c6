"""What a person should do something about, and how much more a grant can pay for."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

from fedfsd.border import identity
from fedfsd.border.identity import WARN_DAYS
from fedfsd.errors import ConfigError
from fedfsd.ledger import booking, digest
from fedfsd.ledger.budget import Account
from fedfsd.ledger.entry import PlanEntry
from fedfsd.ledger.key import SigningKey
from fedfsd.ledger.ledger import NODE_KEY
from fedfsd.ledger.state import Run, State
from fedfsd.node import run_key
from fedfsd.node.new_region import on_one_disk
from fedfsd.node.node import Node

SOON_DAYS = 60
LITTLE = 0.1  # of a grant


def warnings(node: Node, state: State, found: dict[str, Any], date: str) -> Iterator[str]:
    """One sentence each; ``found`` is what ``status`` says so far, ``date`` today."""
    if on_one_disk(node):
        yield "ledger and mirror are on the same disk and would be lost together: move the mirror"
    if found["mirror_behind"]:
        yield (
            f"the mirror {found['mirror']} has no room for the newest entries ({found['mirror_behind']}):"
            " nothing more is written until it has"
        )
    try:
        node.declared_policy()
    except ConfigError as error:
        yield f"no plan can be approved yet: {error}"
    if SigningKey.read(node.ledger / NODE_KEY).verification != state.node:
        yield "the node's key is not the current one, nothing can be signed: fedfsd region rotate"
    if state.closed:
        yield "this ledger is closed: no entry can follow"
    if not state.accounts:
        yield "no grant yet: fedfsd region grant"
    certificate = node.folder / "tls" / "region.crt"
    if (
        certificate.exists()
        and (left := identity.days_left(identity.read(certificate.read_bytes()))) <= WARN_DAYS
    ):
        yield f"the certificate expires in {left} days: ask the coordinator's operators for a new invitation"
    for grant in found["grants"]:
        if grant["left"] < LITTLE * grant["rho_max"]:
            yield f"grant of {grant['data_set']}: less than a tenth is left"
    for approval in found["approvals"]:
        if not approval["void"] and 0 <= approval["days_left"] <= SOON_DAYS:
            yield f"approval {approval['number']} ends on {approval['valid_until']}"
    code = digest.code()
    for plan, run in state.runs.items():
        if run.settled:
            continue
        if run.entry.key_commitment and run_key.is_lost(node, plan):
            yield f"plan {plan[:8]}: its run key is lost; settle it: fedfsd region settle {plan[:8]}"
        if run.program is None and run.entry.code != code:
            yield f"plan {plan[:8]}: the installed program is not the one it was approved with"
        if plan in found["program_changed"]:
            yield str(booking.changed(plan))
        missing = missing_approval(state, run, date)
        if missing:
            yield missing
    checkpoint = found["checkpoint"]
    if checkpoint is None or checkpoint["cosigned_size"] is None:
        yield "no witness has cosigned this ledger: only its mirror can show a restored old copy"


def fitting(account: Account, plan: PlanEntry) -> int:
    """How many more plans like ``plan`` fit the grant and its horizon, at its order."""
    grant, balance = account.grant, account.balance
    return max(
        0,
        min(
            balance.left // plan.rho,
            grant.max_plans - balance.plans,
            (grant.max_rounds - balance.rounds) // plan.rounds,
        ),
    )


def lasts(state: State, account: Account, left: int, today: datetime.date) -> str | None:
    """The day on which the grant is used up at the pace since its first round; None without a pace."""
    days = [
        booking.entry.date
        for run in state.runs.values()
        if run.data_set == account.grant.data_set
        for booking in run.bookings.values()
    ]
    since = (today - datetime.date.fromisoformat(min(days))).days if days else 0
    if since < 1 or not account.spent:
        return None
    try:
        return (today + datetime.timedelta(days=max(left, 0) * since // account.spent)).isoformat()
    except OverflowError:
        return None


def missing_approval(state: State, run: Run, date: str) -> str | None:
    """Why the next round of ``run`` would be refused for want of an approval on that date; or None."""
    if not state.accounts[run.data_set].grant.approval_required:
        return None
    objections = {seq: state.objection(seq, run, date) for seq in state.permissions}
    if None in objections.values():
        return None
    why = [f"{state.permissions[seq].approval.number}: {text}" for seq, text in objections.items()]
    return (
        f"plan {run.entry.plan[:8]}: its rounds are refused until an approval covers its transfers"
        f" ({'; '.join(why[-3:]) or 'there is none'}): fedfsd region approve-transfer"
    )
