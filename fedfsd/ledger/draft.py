"""Entries drafted from a ledger's state, to be signed with ``entry.sign`` on the officer's machine."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Literal

from fedfsd.errors import BudgetError, PlanError
from fedfsd.ledger import budget, digest, strict, terms
from fedfsd.ledger.entry import MAX_INTEGER, Genesis, Grant, PlanEntry, Recover
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.key import SigningKey, VerificationKey
from fedfsd.ledger.state import State
from fedfsd.mechanism.event import Event
from fedfsd.mechanism.renyi import ORDERS, best_order, epsilon_lifetime, nano_nats, rho_max
from fedfsd.plan.plan import Plan


def node_key(region: str) -> SigningKey:
    """A new node key; its name holds the random id of the ledger that it will sign."""
    return SigningKey.generate(f"fedfsd/{region}/{secrets.token_hex(16)}")


def officer_key(region: str) -> SigningKey:
    """A new key for the region's data officer, to be kept away from the node."""
    return SigningKey.generate(f"fedfsd/{region}/officer")


def genesis(
    *,
    node: VerificationKey,
    officer: VerificationKey,
    simulated: bool = False,
    previous: str | None = None,
) -> Genesis:
    """The first entry of the ledger that the name of ``node`` announces; both keys sign it."""
    _, region, ledger = node.name.split("/")
    return Genesis(
        ledger=ledger,
        region=region,
        node_key=str(node),
        officer_key=str(officer),
        simulated=simulated,
        previous=previous,
        code=digest.code(),
        version=digest.version(),
    )


def grant(
    state: State,
    *,
    data_set: str,
    data_commitment: str,
    delta: float,
    epsilon: float | None = None,
    events: Iterable[Event] = (),
    alpha: int | None = None,
    max_plans: int = 1000,
    max_rounds: int = 100_000,
    plan_cap: int | None = None,
    recipient_cap: int | None = None,
    approval_required: bool = False,
    disjoint: bool = False,
    carried_rho: int = 0,
) -> Grant:
    """A grant on ``data_set``, the successor of the live one if there is one.

    Args:
        epsilon: the lifetime promise; by default exactly what ``events`` cost (a simulated grant).
        events: what the grant is meant to pay for; they choose the order.
        alpha: the order, where it is not to be chosen. A successor keeps its predecessor's.
        plan_cap: nano-nats a plan may cost without the officer's signature; by default all.

    Raises:
        PlanError: an epsilon that no order can keep, or neither epsilon nor events.
    """
    events = list(events)
    live = state.accounts.get(data_set)
    if live is not None and not disjoint:
        order, why = live.grant.alpha, "kept from the predecessor"
    elif alpha is not None:
        order, why = alpha, "chosen by the data officer"
    elif events:
        order, why = (
            best_order(events, delta),
            "smallest lifetime epsilon for the plans it is meant to pay for",
        )
    else:
        order, why = _usual_order(epsilon or 0.0, delta), "most runs of a Gaussian mechanism"
    simulated = epsilon is None
    if epsilon is None:
        most = nano_nats(events, order)
        epsilon = epsilon_lifetime(most, alpha=order, delta=delta)
    else:
        most = rho_max(epsilon=epsilon, delta=delta, alpha=order)
    with strict.typed("grant"):
        return Grant(
            ledger=state.genesis.ledger,
            data_set=data_set,
            data_commitment=data_commitment,
            delta=delta,
            alpha=order,
            rho_max=most,
            epsilon=epsilon,
            explanation=f"order {order}: {why}",
            max_plans=max_plans,
            max_rounds=max_rounds,
            plan_cap=MAX_INTEGER if plan_cap is None else plan_cap,
            recipient_cap=MAX_INTEGER if recipient_cap is None else recipient_cap,
            approval_required=approval_required,
            predecessor=None if live is None else live.grant.seq,
            disjoint=disjoint,
            carried_rho=carried_rho,
            simulated=simulated,
        )


def plan(
    state: State,
    plan: Plan,
    *,
    recipient: str,
    purpose: str,
    key_commitment: str | None,
    data_set: str | None = None,
) -> PlanEntry:
    """The approval of ``plan``, drawing on ``data_set`` (by default the only one with a grant).

    Raises:
        BudgetError: no grant, or several to choose from.
        PlanError: a plan without privacy, or without this region.
    """
    if data_set is None and len(state.accounts) == 1:
        (data_set,) = state.accounts
    account = state.accounts.get(data_set or "")
    if account is None:
        raise BudgetError(
            f"plan {plan.name}",
            got="no grant for it" if not state.accounts or data_set else "several data sets with a grant",
            expected="one data set with a grant: " + (", ".join(state.accounts) or "none yet"),
            hint="fedfsd region grant",
        )
    document = plan.as_written()
    try:
        read = terms.read(document, state.genesis.region)
    except EvidenceError as error:  # not evidence yet, just a plan that cannot be booked
        raise PlanError(error.place, got=error.got, expected=error.expected) from None
    rho_round, rho = budget.losses(read, account.grant.alpha)
    with strict.typed("plan"):
        return PlanEntry(
            ledger=state.genesis.ledger,
            plan=plan.hash,
            document=document,
            grant=account.grant.seq,
            format=None if isinstance(rho_round, int) else 2,
            event=read.event,
            rounds=read.rounds,
            rho_round=rho_round,
            rho=rho,
            release_bytes=read.release_bytes,
            recipient=recipient,
            purpose=purpose,
            key_commitment=key_commitment,
            code=digest.code(),
            version=digest.version(),
        )


def recover(
    state: State, *, lost_size: int, lost_root: str | None, reach: Literal["rounds", "unknown"]
) -> Recover:
    """The entry that lets a backup go on, charging the worst of what it forgot (FORMAT.md, section 7)."""
    return Recover(
        ledger=state.genesis.ledger,
        epoch=state.epoch + 1,
        lost_size=max(lost_size, state.size),
        lost_root=lost_root,
        reach=reach,
        charges=state.worst(reach),
    )


def _usual_order(epsilon: float, delta: float) -> int:
    """The order at which most equal Gaussian runs fit: their loss grows in proportion to the order."""

    def runs(alpha: int) -> float:
        try:
            return rho_max(epsilon=epsilon, delta=delta, alpha=alpha) / alpha
        except PlanError:
            return 0.0

    return max(ORDERS, key=runs)
