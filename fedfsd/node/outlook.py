"""What a person should do something about, and how much more a grant can pay for."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

from fedfsd.border import identity
from fedfsd.border.identity import WARN_DAYS
from fedfsd.errors import ConfigError
from fedfsd.language import say
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
        yield say("ledger and mirror are on the same disk and would be lost together: move the mirror")
    if found["mirror_behind"]:
        yield say(
            "the mirror {mirror} has no room for the newest entries ({number}): nothing more is written until"
            " it has",
            mirror=found["mirror"],
            number=found["mirror_behind"],
        )
    try:
        node.declared_policy()
    except ConfigError as error:
        yield say("no plan can be approved yet: {error}", error=error)
    if SigningKey.read(node.ledger / NODE_KEY).verification != state.node:
        yield say("the node's key is not the current one, nothing can be signed: fedfsd region rotate")
    if state.closed:
        yield say("this ledger is closed: no entry can follow")
    if not state.accounts:
        yield say("no grant yet: fedfsd region grant")
    certificate = node.folder / "tls" / "region.crt"
    if (
        certificate.exists()
        and (left := identity.days_left(identity.read(certificate.read_bytes()))) <= WARN_DAYS
    ):
        yield say(
            "the certificate expires in {left} days: ask the coordinator's operators for a new invitation",
            left=left,
        )
    for grant in found["grants"]:
        if grant["left"] < LITTLE * grant["rho_max"]:
            yield say("grant of {data_set}: less than a tenth is left", data_set=grant["data_set"])
    for approval in found["approvals"]:
        if not approval["void"] and 0 <= approval["days_left"] <= SOON_DAYS:
            yield say(
                "approval {number} ends on {date}", number=approval["number"], date=approval["valid_until"]
            )
    code = digest.code()
    for plan, run in state.runs.items():
        if run.settled:
            continue
        if run.entry.key_commitment and run_key.is_lost(node, plan):
            yield say(
                "plan {plan}: its run key is lost; settle it: fedfsd region settle {plan}", plan=plan[:8]
            )
        if run.program is None and run.entry.code != code:
            yield say("plan {plan}: the installed program is not the one it was approved with", plan=plan[:8])
        if plan in found["program_changed"]:
            yield str(booking.changed(plan))
        missing = missing_approval(state, run, date)
        if missing:
            yield missing
    checkpoint = found["checkpoint"]
    if checkpoint is None or checkpoint["cosigned_size"] is None:
        yield say("no witness has cosigned this ledger: only its mirror can show a restored old copy")


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
    return say(
        "plan {plan}: its rounds are refused until an approval covers its transfers ({why}): fedfsd region"
        " approve-transfer",
        plan=run.entry.plan[:8],
        why="; ".join(why[-3:]) or say("there is none"),
    )
