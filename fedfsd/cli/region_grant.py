"""``fedfsd region grant``: what may be lost in total on one data set, with what its order means."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from fedfsd.cli.answer import Answer, Json, rounded_up, table, warned
from fedfsd.cli.folder import HERE, RegionFolder
from fedfsd.cli.region_sign import Draft, OfficerKey, finish


def grant(
    epsilon: Annotated[float, typer.Option(help="Lifetime limit for all plans on the data set.")],
    delta: Annotated[float, typer.Option(help="Below 1 / number of vehicles.")],
    data_set: Annotated[str, typer.Option(metavar="LABEL", help="Name of the data set.")],
    region: RegionFolder = HERE,
    data: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Its tables: also commit to their content.")
    ] = None,
    for_plan: Annotated[
        Path | None, typer.Option("--for", metavar="PLAN", help="Choose the order for plans like this one.")
    ] = None,
    alpha: Annotated[
        int | None, typer.Option(help="Renyi order, 2 to 64, instead of the computed one.")
    ] = None,
    max_plans: Annotated[int, typer.Option(min=1, help="Maximum number of plans.")] = 1000,
    max_rounds: Annotated[int, typer.Option(min=1, help="Maximum number of rounds of all plans.")] = 100_000,
    plan_cap: Annotated[
        float | None,
        typer.Option(metavar="EPSILON", help="The officer signs a plan that is charged more than this."),
    ] = None,
    recipient_cap: Annotated[
        float | None,
        typer.Option(metavar="EPSILON", help="The same for all plans of one recipient together."),
    ] = None,
    approval_required: Annotated[
        bool,
        typer.Option("--approval-required", help="Every transfer needs a permission (approve-transfer)."),
    ] = False,
    disjoint: Annotated[
        bool,
        typer.Option(
            "--disjoint", help="No vehicle was in the data before: the spent budget starts at zero."
        ),
    ] = False,
    carried_rho: Annotated[
        int, typer.Option(metavar="NANO-NATS", min=0, help="Privacy loss booked in an earlier ledger.")
    ] = 0,
    officer_key: OfficerKey = None,
    output: Draft = None,
    _json: Json = False,
) -> Answer:
    """Draft a lifetime budget for the officer.

    The Renyi order is fixed permanently; all plans are added up at this order. A second grant on a label
    replaces the first and keeps its order and spent budget.
    """
    from contextlib import closing

    from fedfsd.mechanism.event import delta_warning
    from fedfsd.node import approve, grant
    from fedfsd.node.node import open_node

    node = open_node(region)
    plan = approve.read(for_plan) if for_plan else None
    events = plan.events(node.settings.name) if plan else ()
    wish = grant.Wish(
        data_set=data_set,
        epsilon=epsilon,
        delta=delta,
        alpha=alpha,
        plan=events,
        max_plans=max_plans,
        max_rounds=max_rounds,
        plan_cap=plan_cap,
        recipient_cap=recipient_cap,
        approval_required=approval_required,
        disjoint=disjoint,
        carried_rho=carried_rho,
    )
    with closing(node.open_ledger()) as ledger:
        state = ledger.state
    policy = node.policy()
    made = grant.make(state, wish, policy=policy, salts=node.salts, data=data)
    answer = finish(node, made, officer_key=officer_key, output=output)
    warning = policy.roster and delta_warning(delta, policy.roster)
    answer = replace(answer, text=warned(answer.text, [warning] if warning else []))
    if plan is None:
        return answer
    orders = grant.orders(made, events, rounds=plan.rounds_of(node.settings.name), state=state)
    rows = [
        {
            "order": f"{one.alpha}{' (the grant)' if one.alpha == made.alpha else ''}",
            "such a plan alone is charged": rounded_up(one.epsilon_charged),
            "such plans that fit": one.fitting,
        }
        for one in orders
    ]
    return replace(
        answer,
        document={**answer.document, "orders": [asdict(one) for one in orders]},
        text=f"{table(rows)}\n{answer.text}",
    )
