"""A document in words that a data officer can check before signing. Reads nothing but the document."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from fedfsd import canonical
from fedfsd.errors import PlanError
from fedfsd.ledger import entry
from fedfsd.ledger.entry import Genesis, PlanEntry, Signed
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.terms import Terms
from fedfsd.ledger.terms import read as read_terms
from fedfsd.mechanism.accountant import epsilon_pld
from fedfsd.mechanism.renyi import NANO, epsilon_lifetime
from fedfsd.plan import plan as plans
from fedfsd.plan.plan import Plan

Facts = dict[str, str]


def facts(paper: Signed) -> Facts:
    """The paper's content by label, in reading order.

    Raises:
        PlanError: a plan whose document and figures disagree.
    """
    return _FACTS[type(paper)](paper)


def _genesis(paper: Genesis) -> Facts:
    return {
        "begins": f"the ledger {paper.ledger} of region {paper.region}",
        "follows": f"the closed ledger {paper.previous}"
        if paper.previous
        else "nothing: this is the first ledger",
        "node's key": paper.node_key,
        "officer's key": paper.officer_key,
        "program": f"fedfsd {paper.version}, code {paper.code[:16]}",
        "sign only if": "the region has no other ledger that is still open",
    }


def _grant(paper: entry.Grant) -> Facts:
    most = epsilon_lifetime(paper.rho_max, alpha=paper.alpha, delta=paper.delta)

    def cap(rho: int) -> str:
        if rho >= paper.rho_max:
            return "up to the grant"
        at = epsilon_lifetime(rho, alpha=paper.alpha, delta=paper.delta)
        return f"up to epsilon {at:.2f}; above it with your signature"

    found = {
        "grants": f"epsilon {paper.epsilon:g} at delta {paper.delta:g} on {paper.data_set}, permanently",
        "in nano-nats": f"{paper.rho_max:,}, which is epsilon {most:.4f}",
        "counted": paper.explanation,
        "horizon": f"{paper.max_plans:,} plans, {paper.max_rounds:,} rounds together",
        "one plan": cap(paper.plan_cap),
        "one recipient": cap(paper.recipient_cap),
        "each transfer": "needs an approval" if paper.approval_required else "needs no approval",
        "data": f"commitment {paper.data_commitment[:16]}",
    }
    if paper.predecessor is not None:
        found["replaces"] = f"the grant in entry {paper.predecessor}" + (
            "; THE SPENT BUDGET STARTS AT ZERO: you declare that no vehicle was in the data before"
            if paper.disjoint
            else "; spent budget stays spent"
        )
    if paper.carried_rho:
        found["carries"] = f"{paper.carried_rho:,} nano-nats of loss booked elsewhere"
    return found


def _approval(paper: entry.Approval) -> Facts:
    return {
        "permits": f"transfers of updates trained on {paper.data_set}",
        "authority": f"{paper.authority}, number {paper.number}",
        "to": paper.recipient,
        "for": paper.purpose,
        "models": "any" if "*" in paper.models else ", ".join(paper.models),
        "valid": f"{paper.valid_from} to {paper.valid_until}, both days included",
        "a year": f"{paper.max_releases:,} releases, {paper.max_bytes:,} bytes",
    }


def _plan(paper: PlanEntry) -> Facts:
    event, plan = paper.event, plans.read(canonical.encode(paper.document).decode())
    booked = _booked(paper, plan)
    if not booked or plan.hash != paper.plan:
        raise PlanError(
            f"plan {paper.plan[:8]}", got="figures that differ from its document", expected="the document's"
        )
    terms = booked[0][1]
    # Computed again here: the officer's machine need not believe the node's.
    alone = {f"epsilon {epsilon_pld(event.events(), delta):.4f} at delta {delta:g}" for delta, _ in booked}
    return {
        "approves": f"the plan {plan.name} ({paper.plan[:8]}), mode {terms.mode}",
        "trains": f"the model {terms.model} in {paper.rounds} rounds of {terms.mechanism.local_steps} steps",
        **_part(plan),
        "each step": f"sample rate {event.sample_rate:g}, noise multiplier {event.words}, "
        f"clip {event.max_grad_norm:g}",
        "this plan alone": " or ".join(sorted(alone)),
        "charged": f"{paper.rho:,} nano-nats ({paper.rho / NANO:.4g} nats), grant of entry {paper.grant}",
        "to": paper.recipient,
        "for": paper.purpose,
        "leaves": f"{paper.rounds} updates of {paper.release_bytes:,} bytes",
    }


def _part(plan: Plan) -> Facts:
    """What is said of a plan that trains a part of its model."""
    frozen = plan.model.backbone
    if frozen is None:
        return {}
    trained = plan.model.parameters
    source = "as its reviewed code makes them" if frozen.source == "model" else f"of the file {frozen.sha256}"
    return {"of it": f"{trained:,} weights; {frozen.size:,} stay as they are, {source}"}


def _recover(paper: entry.Recover) -> Facts:
    charges = ", ".join(f"{one.rho:,} nano-nats to entry {one.grant}" for one in paper.charges)
    return {
        "recovers": f"the ledger from a backup; {paper.lost_size} entries were known",
        "what is lost": "you state that it is rounds of plans in the backup, nothing else"
        if paper.reach == "rounds"
        else "not known: every grant is charged in full",
        "charges": charges or "nothing: there is no grant",
        "ends": "every open plan and every approval",
    }


def _rotate(paper: entry.KeyRotate) -> Facts:
    return {
        "replaces": f"the {paper.role}'s key",
        "new key": paper.key,
        "old key": "signs as well"
        if paper.signatures.old is not None or paper.role == "officer"
        else "is lost",
    }


def _close(paper: entry.Close) -> Facts:
    return {"closes": f"the ledger {paper.ledger}, permanently", "reason": paper.reason}


def _booked(paper: PlanEntry, plan: Plan) -> list[tuple[float, Terms]]:
    """(target_delta, terms) of the regions whose terms the entry books: an entry does not name its region."""
    found = []
    for name, region in plan.regions.items():
        with suppress(EvidenceError):
            terms = read_terms(paper.document, name)
            mine = (terms.event, terms.rounds, terms.release_bytes)
            if mine == (paper.event, paper.rounds, paper.release_bytes):
                found.append((region.target_delta, terms))
    return found


_FACTS: dict[type, Callable[[Any], Facts]] = {
    Genesis: _genesis,
    entry.Grant: _grant,
    entry.Approval: _approval,
    PlanEntry: _plan,
    entry.Recover: _recover,
    entry.KeyRotate: _rotate,
    entry.Close: _close,
}
