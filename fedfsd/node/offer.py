"""A plan before it is approved: everything its operator has to weigh, with nothing written and nothing asked
of the runner. Every figure is from the plan's document, the policy and the ledger.
"""

from __future__ import annotations

import copy
import datetime
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

from fedfsd.errors import BudgetError, FedfsdError, NotReadyError
from fedfsd.gate.gate import unnoticed
from fedfsd.gate.policy import Policy, objections
from fedfsd.language import say
from fedfsd.ledger import draft
from fedfsd.ledger.budget import Account
from fedfsd.ledger.entry import PlanEntry
from fedfsd.ledger.ledger import Ledger
from fedfsd.mechanism.renyi import epsilon_lifetime
from fedfsd.node import approve, control
from fedfsd.node.node import Node
from fedfsd.node.outlook import fitting, lasts, missing_approval
from fedfsd.plan.plan import Plan

Document = dict[str, Any]


def waiting(node: Node) -> list[Document]:
    """The plans on offer that nobody approved or refused yet; those that the running gate knows, if one runs.

    Returns:
        For each ``plan`` (its hash), ``name``, ``epsilon``, ``delta``, ``rounds``, ``model`` and ``task``.
    """
    try:
        known = set(control.ask(node, {"op": "status"}, seconds=5.0)["pending"])
    except (NotReadyError, KeyError):
        known = None
    with closing(node.open_ledger()) as ledger:
        booked = set(ledger.state.runs)
    found = []
    for path in sorted((node.folder / approve.OFFERED).glob("*.json")):
        if path.stem in booked or (known is not None and path.stem not in known):
            continue
        with suppress(FedfsdError):  # what is no plan of this region is refused as soon as a gate runs
            plan = approve.read(path)
            mine = plan.region(node.settings.name)
            found.append(
                {
                    "plan": plan.hash,
                    "name": plan.name,
                    "epsilon": mine.epsilon,
                    "delta": mine.target_delta,
                    "rounds": plan.rounds_of(node.settings.name),
                    "task": plan.task.name,
                    "model": plan.model.name,
                }
            )
    return found


def describe(node: Node, plan: Plan, *, data_set: str | None, today: datetime.date) -> Document:
    """What approving ``plan`` would mean.

    Returns:
        ``standing`` (waits, approved, settled, refused by the policy, beyond the budget), what the plan asks
        for, what it costs alone and out of the lifetime grant, what is left then and until when at the pace
        so far, what the policy objects to, and what nobody could notice while it runs.

    Raises:
        ConfigError: no recipient or purpose in the settings, or a policy that lacks something.
        PlanError: a plan without this region or without privacy.
        NotReadyError: no ledger.
    """
    policy = approve.policy_in_force(node)
    recipient, purpose = node.settings.transfer_to()
    mine, others = plan.region(node.settings.name), sorted(set(plan.regions) - {node.settings.name})
    with closing(node.open_ledger()) as ledger:
        against = objections(policy, plan, node.settings.name)
        budget = _budget(ledger, plan, recipient=recipient, purpose=purpose, data_set=data_set, today=today)
        run = ledger.state.runs.get(plan.hash)
    standing = say("waits for approval")
    if run is not None:
        standing = say("ended") if run.settled else say("approved as entry {entry}", entry=run.entry.seq)
    elif against:
        standing = say("refused by the policy")
    elif budget["objection"] is not None:
        standing = say("beyond the budget")
    return {
        "plan": plan.hash,
        "name": plan.name,
        "standing": standing,
        "approved": run is not None,
        "mode": plan.mode,
        "recipient": recipient,
        "purpose": purpose,
        "others": others,
        "weight": mine.weight,
        "task": plan.task.name,
        "model": plan.model.name,
        "parameters": plan.model.parameters,
        "backbone": None if plan.model.backbone is None else plan.model.backbone.model_dump(mode="json"),
        "witness_size": plan.model.witness_size,
        "release_bytes": 4 * plan.model.size,
        "rounds": plan.rounds_of(node.settings.name),
        "local_steps": mine.local_steps,
        "sample_rate": mine.sample_rate,
        "windows_per_vehicle": mine.windows_per_vehicle,
        "max_grad_norm": mine.max_grad_norm,
        "noise": None if mine.noise is None else mine.noise.words,
        "roster": mine.roster,
        "identity": mine.identity,
        "epsilon": mine.epsilon,
        "delta": mine.target_delta,
        "budget": budget,
        "objections": against,
        "unnoticed": list(_unnoticed(plan, policy)),
    }


def _unnoticed(plan: Plan, policy: Policy) -> Iterator[str]:
    """What could go wrong in this plan without anybody seeing it; one sentence each."""
    if missed := unnoticed(plan.model.witness_size):
        yield missed
    if policy.round_seconds == 0:
        yield say("nothing hides how long training takes: round_seconds is 0 in the policy")


def _budget(
    ledger: Ledger, plan: Plan, *, recipient: str, purpose: str, data_set: str | None, today: datetime.date
) -> Document:
    """What the plan takes from its grant; with ``objection`` where it cannot."""
    state = ledger.state
    try:
        made = draft.plan(
            state, plan, recipient=recipient, purpose=purpose, key_commitment=None, data_set=data_set
        )
    except BudgetError as error:
        return {"objection": str(error)}
    account = next(one for one in state.accounts.values() if one.grant.seq == made.grant)
    grant, known = account.grant, plan.hash in state.runs
    after = account.balance if known else approve.with_plan(account.balance, made)
    run = state.runs.get(plan.hash)
    return {
        "objection": None if known else _objection(account, made),
        "officer_signs": not known and approve.needs_officer(account, made),
        "data_set": grant.data_set,
        "granted": grant.epsilon,
        "granted_delta": grant.delta,
        "charged": epsilon_lifetime(made.rho, alpha=grant.alpha, delta=grant.delta),
        "before": _epsilon(account, account.balance.spent + account.balance.held),
        "after": _epsilon(account, after.spent + after.held),
        "share": made.rho / grant.rho_max,
        "share_left": max(after.left, 0) / grant.rho_max,
        "more_such_plans": fitting(account, made) - (0 if known else 1),
        "lasts_until": lasts(state, account, after.left, today),
        "transfer": None if run is None else missing_approval(state, run, today.isoformat()),
    }


def _objection(account: Account, made: PlanEntry) -> str | None:
    """Why the grant cannot hold the plan; the officer's signature for one above a cap is no objection."""
    try:
        copy.deepcopy(account).hold(made)
    except BudgetError as error:
        return None if approve.needs_officer(account, made) else str(error)
    return None


def _epsilon(account: Account, rho: int) -> float:
    return epsilon_lifetime(rho, alpha=account.grant.alpha, delta=account.grant.delta) if rho else 0.0


def on_offer(node: Node) -> list[Document]:
    """``waiting``, or nothing where the ledger cannot be opened: for a status that shows the rest."""
    try:
        return waiting(node)
    except FedfsdError:
        return []
