"""Grants and permissions to transfer, drafted for the officer, and what a grant's order means."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedfsd.errors import BudgetError, PlanError
from fedfsd.gate.policy import Policy
from fedfsd.ledger import budget, draft, strict
from fedfsd.ledger.entry import Approval, Grant
from fedfsd.ledger.state import State
from fedfsd.mechanism.event import MOST_STEPS, Event, delta_fault, repeat, small_delta
from fedfsd.mechanism.renyi import ORDERS, best_order, epsilon_lifetime, nano_nats, rho_max
from fedfsd.node import data_set
from fedfsd.node.node import Node


@dataclass(frozen=True)
class Wish:
    """What the officer wants to allow; epsilons at ``delta``."""

    data_set: str
    epsilon: float
    delta: float
    alpha: int | None = None
    plan: tuple[Event, ...] = ()
    """What one of the plans does that it should pay for."""
    max_plans: int = 1000
    max_rounds: int = 100_000
    plan_cap: float | None = None
    """The epsilon of one plan alone above which the officer signs it."""
    recipient_cap: float | None = None
    approval_required: bool = False
    disjoint: bool = False
    carried_rho: int = 0


@dataclass(frozen=True)
class Order:
    """What one order makes of a plan: what it is charged alone, and how many such plans fit."""

    alpha: int
    epsilon_charged: float
    fitting: int


def make(state: State, wish: Wish, *, policy: Policy, salts: Path, data: Path | None) -> Grant:
    """The grant, to be signed; what opens its commitment is kept in ``salts``.

    Raises:
        PlanError: an epsilon no order can keep, or a delta of one in N or more.
        BudgetError: it could not pay for a single such plan, or not for what is booked already.
        DataError: no table in ``data``.
    """
    demand_delta(wish, policy.roster)
    events = repeat(wish.plan, _most(wish.plan, wish)) if wish.plan else ()
    options: dict[str, Any] = {
        "delta": wish.delta,
        "epsilon": wish.epsilon,
        "events": events,
        "alpha": wish.alpha,
        "max_plans": wish.max_plans,
        "max_rounds": wish.max_rounds,
        "approval_required": wish.approval_required,
        "disjoint": wish.disjoint,
        "carried_rho": wish.carried_rho,
    }
    trial = draft.grant(state, data_set=wish.data_set, data_commitment="0" * 64, **options)

    def cap(option: str, epsilon: float | None) -> int | None:
        try:
            return None if epsilon is None else rho_max(epsilon=epsilon, delta=wish.delta, alpha=trial.alpha)
        except PlanError as error:
            raise PlanError(option, got=epsilon, expected=error.expected, hint=f"raise {option}") from None

    live = state.accounts.get(wish.data_set)
    if live is None:
        budget.opened(trial)
    else:  # refused here rather than on the way back from the officer
        live.succeed(trial, open_plans=any(not run.settled for run in state.runs.values()))
    caps: dict[str, Any] = {
        "plan_cap": cap("--plan-cap", wish.plan_cap),
        "recipient_cap": cap("--recipient-cap", wish.recipient_cap),
    }
    commitment = data_set.commit(salts, wish.data_set, data)
    return draft.grant(state, data_set=wish.data_set, data_commitment=commitment, **options, **caps)


def demand_delta(wish: Wish, roster: int | None) -> None:
    """PlanError where delta is not below one in ``roster``, as far as that is declared."""
    if roster is not None and delta_fault(wish.delta, roster):
        raise PlanError(
            "--delta",
            got=wish.delta,
            expected=f"below 1 / roster (1/{roster})",
            hint=f"--delta {small_delta(roster):g}",
        )


def orders(grant: Grant, plan: tuple[Event, ...], *, rounds: int, state: State) -> list[Order]:
    """The grant's own order, with half and twice of it where that can still be chosen."""
    kept = grant.predecessor is not None and not grant.disjoint
    live = state.accounts.get(grant.data_set) if kept else None
    used = grant.carried_rho + (live.spent + live.held if live else 0)
    near = (
        [grant.alpha] if kept else sorted({max(2, grant.alpha // 2), grant.alpha, min(64, 2 * grant.alpha)})
    )
    horizon = min(
        grant.max_plans - (live.plans if live else 0),
        (grant.max_rounds - (live.rounds if live else 0)) // rounds,
    )
    found = []
    for alpha in near:
        charged, allowed = nano_nats(plan, alpha), _allowed(grant.epsilon, grant.delta, alpha)
        alone = epsilon_lifetime(charged, alpha=alpha, delta=grant.delta)
        found.append(Order(alpha, alone, max(0, min(horizon, (allowed - used) // charged))))
    return found


def _most(plan: tuple[Event, ...], wish: Wish) -> int:
    """How many such plans fit at the best order; BudgetError where not even one does."""
    most = max(_allowed(wish.epsilon, wish.delta, alpha) // nano_nats(plan, alpha) for alpha in ORDERS)
    if most < 1 and wish.alpha is None:
        alpha = best_order(plan, wish.delta)
        least = epsilon_lifetime(nano_nats(plan, alpha), alpha=alpha, delta=wish.delta)
        raise BudgetError(
            f"grant of {wish.data_set}",
            got=f"epsilon {wish.epsilon:g}",
            expected=f"at least {least + 0.005:.2f} to pay for one such plan",
            hint=f"--epsilon {least + 0.005:.2f}, or a plan with more noise",
        )
    return max(1, min(most, wish.max_plans, MOST_STEPS // max(one.steps for one in plan)))


def _allowed(epsilon: float, delta: float, alpha: int) -> int:
    try:
        return rho_max(epsilon=epsilon, delta=delta, alpha=alpha)
    except PlanError:
        return 0


def permission(
    node: Node,
    *,
    data_set: str | None,
    authority: str,
    number: str,
    models: tuple[str, ...],
    valid: tuple[str, str],
    max_releases: int,
    max_bytes: int,
) -> Approval:
    """An approval for the recipient and purpose of the settings; ``valid`` are its first and last day.

    Raises:
        BudgetError: no grant for the data set, or several to choose from.
        ConfigError: a value that an approval cannot have, or no recipient in the settings.
    """
    recipient, purpose = node.settings.transfer_to()
    with closing(node.open_ledger()) as ledger:
        state = ledger.state
    labels = list(state.accounts)
    label = labels[0] if data_set is None and len(labels) == 1 else data_set
    if label not in labels:
        raise BudgetError(
            "--data-set",
            got=data_set or f"{len(labels)} data sets with a grant",
            expected="one of: " + (", ".join(labels) or "none yet"),
            hint="fedfsd region grant comes first" if not labels else f"--data-set {labels[0]}",
        )
    with strict.typed("approval"):
        return Approval(
            ledger=state.genesis.ledger,
            data_set=label,
            authority=authority,
            number=number,
            recipient=recipient,
            purpose=purpose,
            models=models,
            valid_from=valid[0],
            valid_until=valid[1],
            max_releases=max_releases,
            max_bytes=max_bytes,
        )
