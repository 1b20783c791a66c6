"""Approving a plan: check the policy, reserve its whole loss, commit to its key; or explain why not."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedfsd.errors import BudgetError, NotReadyError, PlanError, RefusedError, UsageError
from fedfsd.gate.policy import Policy, declared, warnings
from fedfsd.ledger import draft
from fedfsd.ledger.budget import Account, Balance
from fedfsd.ledger.entry import PlanEntry, Program
from fedfsd.ledger.key import SigningKey
from fedfsd.ledger.ledger import Ledger
from fedfsd.ledger.state import Run, State
from fedfsd.node import control, run_key
from fedfsd.node.node import Node
from fedfsd.node.outlook import fitting, missing_approval
from fedfsd.plan import plan as plans
from fedfsd.plan.plan import Plan

OFFERED = "plans"  # documents that came over the border
DIGITS = 16
"""Of a plan's hash that name it where nobody looks at it: of fewer a coordinator can make a second plan."""
_HASH = re.compile("[0-9a-f]{4,64}")


@dataclass(frozen=True)
class Approved:
    """What came of it."""

    entry: PlanEntry
    """To be signed by the officer first, where ``seq`` is None."""
    seq: int | None
    balance: Balance
    """Where the grant stands with this plan."""
    fitting: int
    """How many more such plans fit then."""
    warnings: tuple[str, ...] = ()


def approve(
    node: Node,
    plan: Plan,
    *,
    data_set: str | None,
    officer: SigningKey | None,
    today: str,
    policy: Policy | None = None,
    commit: Callable[[str], str] | None = None,
    program: Program | None = None,
    anew: bool = False,
) -> Approved:
    """Reserve the loss of ``plan``, or draft what the officer must sign because it is above a cap.

    The program that trains goes on record with the plan: from then on the gate takes no other.

    Args:
        policy: by default the region's own, with rehearsals where its running gate takes them.
        commit: makes the run key of a plan hash and returns the commitment to it; by default ``run_key``'s.
        program: what the runner trains with; by default what the running gate says of it.
        anew: let that program also replace the one on record.

    Raises:
        RefusedError: outside the policy; recorded in the ledger.
        BudgetError: it exceeds the budget (the error names what would fit); recorded in the ledger.
        ConfigError: no recipient or purpose in the settings, or a policy that lacks something.
        PlanError: a plan without this region.
        NotReadyError: no process is available to make the run key.
    """
    policy = policy or policy_in_force(node)
    recipient, purpose = node.settings.transfer_to()
    plan.region(node.settings.name)
    with closing(node.open_ledger()) as ledger:
        try:
            policy.demand(plan, node.settings.name)
        except RefusedError:
            ledger.refuse(plan.hash, None, "policy")
            raise
        state = ledger.state
        options: dict[str, Any] = {"recipient": recipient, "purpose": purpose, "data_set": data_set}
        known = state.runs.get(plan.hash)
        if known is not None and known.settled:
            raise BudgetError(
                f"plan {plan.hash[:8]}",
                got="a plan that has ended",
                expected="a new plan",
                hint="change the seed to make a new plan",
            )
        draft.plan(state, plan, key_commitment=None, **options)  # its errors come before there is a key
        commitment = known.entry.key_commitment if known else None
        if known is None and plan.mode == "private":
            commitment = commit(plan.hash) if commit else run_key.commitment(node, plan.hash)
        made = draft.plan(state, plan, key_commitment=commitment, **options)
        account = next(one for one in state.accounts.values() if one.grant.seq == made.grant)
        if known is None and officer is None and needs_officer(account, made):
            return Approved(made, None, with_plan(account.balance, made), fitting(account, made) - 1)
        try:
            seq = ledger.approve_plan(plan, key_commitment=commitment, officer=officer, **options)
        except BudgetError:
            if commit is None:
                run_key.forget(node, plan.hash)
            raise
        if anew or state.runs[plan.hash].program is None:
            _record(ledger, plan, program or program_there(node), demanded=anew)
        told = (missing_approval(state, state.runs[plan.hash], today), *warnings(plan, node.settings.name))
        return Approved(made, seq, account.balance, fitting(account, made), tuple(filter(None, told)))


def _record(ledger: Ledger, plan: Plan, program: Program | None, *, demanded: bool) -> None:
    """What trains the plan from now on; without a runner the first round that is booked says it."""
    if program is not None:
        ledger.accept_program(plan.hash, program)
    elif demanded:
        raise NotReadyError(
            "runner",
            got="no running gate with a runner",
            expected="the runner whose program is accepted",
            hint="fedfsd region up, then the same again",
        )


def program_there(node: Node) -> Program | None:
    """What the runner of the running gate trains with; None where there is none."""
    try:
        return Program.model_validate(control.ask(node, {"op": "status"}, seconds=5.0).get("program"))
    except (NotReadyError, ValueError):  # ValueError: none, or a gate of another release
        return None


def policy_in_force(node: Node) -> Policy:
    """The policy in force now: only the running gate knows of ``region up --test-only``."""
    try:
        test_only = control.ask(node, {"op": "status"})["test_only"] is True
    except (NotReadyError, KeyError):
        return node.declared_policy()
    place = str(node.folder / node.settings.policy)
    return declared(node.policy(), place, test_only=test_only)


def approve_within_policy(
    node: Node,
    plan: Plan,
    commit: Callable[[str], str],
    *,
    policy: Policy | None = None,
    program: Program | None = None,
) -> Approved:
    """Approve a plan without an operator, if the policy allows it; arguments as for ``approve``.

    A plan above a cap of its grant is not approved (``seq`` is None): a person must have it signed.

    Raises:
        RefusedError: the policy wants each plan approved by hand, or refuses it.
        BudgetError, ConfigError, PlanError, NotReadyError: as ``approve``.
    """
    policy = policy or node.declared_policy()
    if policy.approve != "within policy":
        raise RefusedError(
            f"plan {plan.hash[:8]}",
            got="a plan without approval",
            expected="an approved plan",
            hint=f"fedfsd region approve {plan.hash[:DIGITS]}",
        )
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return approve(
        node, plan, data_set=None, officer=None, today=today, policy=policy, commit=commit, program=program
    )


def named(node: Node, text: str) -> Plan:
    """The plan that ``text`` names: its file, or a beginning of one offered plan's hash (4 digits or more).

    Raises:
        NotReadyError: no such file or offer, or several.
        PlanError: it is no plan.
    """
    if Path(text).exists() or not _HASH.fullmatch(text):
        return read(Path(text))
    offered = sorted((node.folder / OFFERED).glob(f"{text}*.json"))
    if len(offered) != 1:
        raise NotReadyError(
            f"plan {text}",
            got="several matching plans on offer" if offered else "no such plan on offer",
            expected="the beginning of the hash of one offered plan, or a file",
            hint="fedfsd region plans lists them",
        )
    return read(offered[0])


def demand_named_fully(text: str) -> None:
    """UsageError where ``text`` is the beginning of a hash that is too short to approve a plan unseen."""
    if _HASH.fullmatch(text) and len(text) < DIGITS and not Path(text).exists():
        raise UsageError(
            "--yes",
            got=f"{len(text)} digits of a plan's hash",
            expected=f"{DIGITS} or more where nobody looks at the plan",
            hint="fedfsd region plans --json lists whole hashes",
        )


def read(path: Path) -> Plan:
    """The plan a coordinator sent. NotReadyError without a file, PlanError for anything else in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise NotReadyError(
            str(path), got=error.strerror, expected="a plan, such as plan.json of a run folder"
        ) from None
    except UnicodeDecodeError:
        raise PlanError(str(path), got="text that is not UTF-8", expected="a plan") from None
    return plans.read(text.removesuffix("\n"))


def settle(node: Node, ledger: Ledger, plan_hash: str) -> None:
    """End a plan: what its rounds never reserved is free again, its run key is destroyed."""
    ledger.settle(plan_hash)
    run_key.forget(node, plan_hash)


def find(state: State, text: str) -> Run:
    """The plan that ``text`` names: the beginning of its hash, or its file.

    Raises:
        BudgetError: no such plan here, or several.
    """
    path = Path(text)
    known = text if _HASH.fullmatch(text) else read(path).hash if path.exists() else "-"
    found = [run for plan, run in state.runs.items() if plan.startswith(known)]
    if len(found) != 1:
        raise BudgetError(
            f"plan {text[:64]}",
            got="several plans" if found else "no such plan in this ledger",
            expected="the beginning of one plan's hash",
            hint="fedfsd region status lists them",
        )
    return found[0]


def needs_officer(account: Account, made: PlanEntry) -> bool:
    """Whether a plan fits the grant but is above one of its caps."""
    grant = account.grant
    recipient = account.recipients[made.recipient] + made.rho
    return fitting(account, made) > 0 and (made.rho > grant.plan_cap or recipient > grant.recipient_cap)


def with_plan(balance: Balance, made: PlanEntry) -> Balance:
    """The balance once ``made`` is reserved."""
    return replace(
        balance,
        held=balance.held + made.rho,
        plans=balance.plans + 1,
        rounds=balance.rounds + made.rounds,
    )
